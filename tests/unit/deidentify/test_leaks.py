"""She is planted in every element of every resource type of R4, and passes in none."""

import json

import orjson
import pytest

from fhir_adapters.deidentified import Block, Filter
from fhir_adapters.deidentify import Deidentifier
from fhir_adapters.landing.rules import Identity
from fhir_adapters.pseudonyms import LinkageKey, SiteKey
from fhir_adapters.validation.model import check
from tests.planted import every_resource, sound_resources, traces

KEY, LINKAGE = SiteKey(bytes(range(32))), LinkageKey(bytes(range(1, 33)))


@pytest.mark.parametrize("mode", ["toolkit", "hospital"])
def test_in_every_element_of_every_type(mode: str) -> None:
    deidentifier = Deidentifier(KEY, settings={"pseudonyms": mode}, linkage=LINKAGE)
    seen = 0
    leaks: dict[str, list[str]] = {}
    for resource in every_resource(2 if mode == "toolkit" else 1):
        if mode == "hospital":  # its gateway has replaced ids and UIDs, so they do not name her
            text = json.dumps(resource)
            for planted in ("MRN88776655", "ACC44332211", "1.2.840.113619.2.88776655.1"):
                text = text.replace(planted, "1.2.3")
            resource = json.loads(text)
        got = orjson.dumps(deidentifier.resource(resource))
        seen += 1
        if found := traces(got):
            leaks.setdefault(resource["resourceType"], []).extend(found)
    assert seen > 100
    assert leaks == {}
    assert traces(repr(deidentifier.counts)) == []


def test_sound_resources_stay_sound_and_name_nobody() -> None:
    deidentifier = Deidentifier(KEY, linkage=LINKAGE)
    for resource in sound_resources():
        identity = Identity(resource["resourceType"], resource["id"])
        assert check(resource, identity) is None, identity
        got = deidentifier.resource(resource)
        if got is None:
            continue
        assert check(got, identity) is None, identity
        assert traces(orjson.dumps(got)) == [], identity


@pytest.mark.parametrize("lines", [True, False])
def test_cut_off_at_every_place(lines: bool) -> None:
    """A text that ends in the middle of anything shows nothing of it."""
    text = orjson.dumps(next(iter(sound_resources())))
    work = Filter(Deidentifier(KEY))
    for end in range(0, len(text), 23):
        data = text[:end] + b"\n" + text[end:] if end % 2 else text[:end]
        assert traces(work.passed(Block(0, data, lines=lines, first=True)).data) == []
