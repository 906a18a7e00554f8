"""What a server says of itself (CapabilityStatement): which types it lets be searched, and where it keeps a history."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fhir_adapters.errors import PalmaresError
from fhir_adapters.fhir_web.web import Refused, Web


@dataclass(frozen=True)
class Capability:
    """`searchable` and `named` (types that may be searched, types that it knows) are None where the server says nothing of itself."""

    searchable: frozenset[str] | None
    named: frozenset[str] | None
    histories: frozenset[str]
    version: str
    software: str

    def chosen(self, wanted: Iterable[str], mapped: Iterable[str], *, searching: bool = True) -> tuple[str, ...]:
        """The types to read. Raises E-FHIR-06 for a wanted one that the server does not offer: it may answer with nothing at all."""
        asked = tuple(dict.fromkeys(wanted))
        offered = self.searchable if searching else self.named
        if offered is None:
            return asked or tuple(mapped)
        for one in asked:
            if one not in offered:
                raise PalmaresError("E-FHIR-06", one)
        chosen = asked or tuple(one for one in mapped if one in offered)
        if not chosen:
            raise PalmaresError("E-FHIR-06", "types", detail="the server offers none of those that the toolkit maps")
        return chosen


def capability(web: Web) -> Capability:
    """Ask for `metadata`. Raises E-FHIR-04 when the answer is no CapabilityStatement of R4."""
    try:
        document = web.json(f"{web.base}/metadata").document
    except Refused:
        return Capability(None, None, frozenset(), "", "")
    if not isinstance(document, dict) or document.get("resourceType") != "CapabilityStatement":
        raise PalmaresError("E-FHIR-04", "metadata", detail="it is no CapabilityStatement")
    version = str(document.get("fhirVersion") or "")
    if version and not version.startswith(("4.0", "4.3")):  # R4B differs in types that the toolkit does not map
        raise PalmaresError("E-FHIR-04", "metadata", detail="the server does not speak FHIR R4 (4.0)")
    searchable, named, histories = set(), set(), set()
    for rest in _dicts(document.get("rest")):
        if rest.get("mode") == "client":
            continue
        whole = _codes(rest.get("interaction"))
        for resource in _dicts(rest.get("resource")):
            kind = resource.get("type")
            if not isinstance(kind, str):
                continue
            named.add(kind)
            ways = _codes(resource.get("interaction"))
            if "search-type" in ways or not ways:
                searchable.add(kind)
            if "history-type" in ways or "history-system" in whole:
                histories.add(kind)
    software = document.get("software")
    name = str(software.get("name") or "") if isinstance(software, dict) else ""
    return Capability(frozenset(searchable) or None, frozenset(named) or None, frozenset(histories), version, name[:80])


def _codes(value: Any) -> set[str]:
    return {code for one in _dicts(value) if isinstance(code := one.get("code"), str)}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
