"""Many messages, one resource: of each element the newest message's word stands, in whatever order they come.

HL7 v2 sends a patient and a visit again and again, each time as far as the sender knows: a field that is not valued says
nothing, a field of two double quotes deletes. So a resource is folded from all messages, element by element. Where two tell of
one element, the one of the master (ADT, for patients and visits) wins, then the later, then the one that comes later in the
files.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from fhir_adapters.hl7v2.people import complete
from fhir_adapters.hl7v2.reading import Told

Rank = tuple[bool, str, int]  # of the master; when the message was made; its place among all


class Folder:
    """Gathers what messages tell, and gives the resources in the order in which they were first told of."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], dict[str, tuple[Rank, dict[str, Any] | None]]] = {}
        self._touched: dict[tuple[str, str], str] = {}
        self._new: set[tuple[str, str]] = set()

    def take(self, told: Iterable[Told], *, master: bool, touched: str, place: int, new: bool) -> int:
        """Take in a message; returns of how many resources it is the first new one to tell."""
        first = 0
        for one in told:
            key = (one.type, one.id)
            if new and key not in self._new:
                self._new.add(key)
                first += 1
            elements = self._known.setdefault(key, {})
            for name, said in one.elements.items():
                rank = (master, touched, place)
                if name not in elements or elements[name][0] <= rank:
                    elements[name] = rank, said
            if touched > self._touched.get(key, ""):
                self._touched[key] = touched
        return first

    def resources(self) -> Iterator[dict[str, Any]]:
        """The folded resources of which a new message tells."""
        for key, elements in self._known.items():
            if key not in self._new:
                continue
            resource: dict[str, Any] = {"resourceType": key[0], "id": key[1]}
            if key in self._touched:
                resource["meta"] = {"lastUpdated": self._touched[key]}
            # what an event says of a visit's status goes before what only its class says
            for _, said in sorted(
                ((name == "status", said) for name, (_, said) in elements.items() if said), key=lambda one: one[0]
            ):
                for name, value in said.items():
                    old = resource.get(name)
                    resource[name] = old | value if isinstance(old, dict) and isinstance(value, dict) else value
            if key[0] == "Patient":
                resource |= self._of_survivor(resource)
            complete(key[0], resource)
            yield resource

    def _of_survivor(self, resource: dict[str, Any]) -> dict[str, Any]:
        """Of a file that was merged into another, what only the other one tells: it is the same person, whose records both hold."""
        lacking = [name for name in ("birthDate", "gender") if name not in resource]
        found: dict[str, Any] = {}
        seen = {resource["id"]}
        link = resource.get("link")
        while lacking and link:
            other = link[0]["other"]["reference"].removeprefix("Patient/")
            elements = self._known.get(("Patient", other))
            if elements is None or other in seen:
                break
            seen.add(other)
            told = {name: said for name, (_, said) in elements.items() if said}
            found |= {name: told[name][name] for name in lacking if name in told}
            lacking = [name for name in lacking if name not in found]
            link = told.get("link", {}).get("link")
        return found
