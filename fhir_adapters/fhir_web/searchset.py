"""Searchsets: their entries, their next link, their total; and the one search that both sources make."""

from collections.abc import Iterator
from typing import Any

from fhir_adapters.errors import PalmaresError
from fhir_adapters.fhir_web.gathered import Sieve
from fhir_adapters.fhir_web.issues import issues, words
from fhir_adapters.fhir_web.web import Refused, Web
from fhir_adapters.landing.rules import id_text


def entries_of(bundle: Any, resource_type: str) -> Iterator[dict[str, Any]]:
    """A Bundle's entries. Raises E-FHIR-04 for any other answer."""
    if not isinstance(bundle, dict) or bundle.get("resourceType") != "Bundle":
        said = words(issues(bundle))
        raise PalmaresError(
            "E-FHIR-04", resource_type, detail=f"the answer is no Bundle{', but ' + said if said else ''}"
        )
    entries = bundle.get("entry")
    for entry in entries if isinstance(entries, list) else ():
        yield entry if isinstance(entry, dict) else {}


def next_link(bundle: Any) -> str | None:
    """Where the next page is."""
    links = bundle.get("link") if isinstance(bundle, dict) else None
    for link in links if isinstance(links, list) else ():
        if (
            isinstance(link, dict)
            and link.get("relation") == "next"
            and isinstance(link.get("url"), str)
            and link["url"]
        ):
            return str(link["url"])
    return None


def count(web: Web, address: str) -> int | None:
    """The total of a search with `_summary=count`; None where the server cannot count."""
    try:
        document = web.json(address).document
    except Refused:
        return None
    total = document.get("total") if isinstance(document, dict) else None
    return total if isinstance(total, int) and not isinstance(total, bool) and total >= 0 else None


def learn_patients(web: Web, sieve: Sieve, address: str = "") -> dict[str, str]:
    """Every patient's pseudonym by the server's id, record numbers learned before: in an increment most patients do not come.

    Raises Refused where patients cannot be searched, E-FHIR-05 where fewer come than the server counts: who is missing here would
    not be asked for.
    """
    address = address or f"{web.base}/Patient?_count=1000"
    one = sieve.one()
    found: dict[str, str] = {}
    came: set[str] = set()
    for again in (True, False):
        counted = count(web, f"{address}&_summary=count&_total=accurate")
        for resource in resources_of(web, f"{address}&_elements=identifier"):
            identifier = id_text(resource.get("id"))
            if resource.get("resourceType") == "Patient":
                came.add(str(resource.get("id")))
                if identifier is not None:
                    sieve.learn(resource)
                    found[identifier] = one.pseudonym("Patient", identifier)
        after = count(web, f"{address}&_summary=count&_total=accurate") if counted else None
        missing = min(counted, after) - len(came) if counted and after else 0
        if missing <= 0:
            break
        if not again:
            raise PalmaresError("E-FHIR-05", "Patient", count=missing)
    return found


def resources_of(web: Web, address: str) -> Iterator[dict[str, Any]]:
    """Every resource of a search as the hospital has it: to look at, not to keep."""
    url: str | None = address
    seen: set[str] = set()
    while url is not None and url not in seen:
        seen.add(url)
        bundle = web.json(url).document
        for entry in entries_of(bundle, "search"):
            resource = entry.get("resource")
            if isinstance(resource, dict):
                yield resource
        link = next_link(bundle)
        url = web.own(link, url) if link else None
