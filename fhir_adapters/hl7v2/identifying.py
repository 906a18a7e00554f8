"""What a message says that identifies: for the hospital's own list of identifiers, which is looked for in all that would leave."""

from collections.abc import Iterator

from fhir_adapters.hl7v2.charsets import decoded
from fhir_adapters.hl7v2.message import Components, NoMessage, Segment, part, segments
from fhir_adapters.known_identifiers import ADDRESS, FISCAL_CODE, NAME, NUMBER, ORDER
from fhir_adapters.pseudonyms import codice_fiscale_error

# segment → field → what stands there
_FIELDS = {
    "PID": {
        2: NUMBER,
        3: NUMBER,
        4: NUMBER,
        5: NAME,
        6: NAME,
        9: NAME,
        11: ADDRESS,
        13: "telephone",
        14: "telephone",
        18: NUMBER,
        19: NUMBER,
    },
    "MRG": {1: NUMBER, 4: NUMBER, 7: NAME},
    "NK1": {2: NAME, 4: ADDRESS, 5: "telephone"},
    "PV1": {19: ORDER, 50: ORDER},
    "SPM": {2: ORDER},
    "GT1": {3: NAME, 5: ADDRESS, 6: "telephone"},
    "ORC": {2: ORDER, 3: ORDER},
    "OBR": {2: ORDER, 3: ORDER},
}


def of_message(content: bytes, encoding: str) -> Iterator[tuple[str, str]]:
    """(kind, value) of a message; one whose header cannot be read says nothing."""
    try:
        found = segments(decoded(content, encoding))
    except NoMessage:
        return
    for segment in found:
        for field, kind in _FIELDS.get(segment.name, {}).items():
            for components in segment.repetitions(field):
                yield from _said(segment, kind, components)


def _said(segment: Segment, kind: str, components: Components) -> Iterator[tuple[str, str]]:
    if kind == NAME:
        parts = [part(components, place) for place in (1, 2, 3)]
        text = " ".join(one for one in parts if one)
    elif kind == "telephone":
        text = part(components, 1) or part(components, 12) or "".join(part(components, place) for place in (5, 6, 7))
    else:
        text = part(components)
    if not text:
        return
    yield (FISCAL_CODE if kind == NUMBER and codice_fiscale_error(text) is None else kind), text
