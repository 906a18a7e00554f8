"""The allow-list of FHIR elements: complete, without contradiction, and with all that mapping and validation need."""

import json
import re
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from fhir_adapters import fhir_elements
from fhir_adapters.deidentify import Deidentifier
from fhir_adapters.fhir_elements import gtin, rules, verhoeff
from fhir_adapters.knowledge import mappings_folder
from fhir_adapters.pseudonyms import SiteKey
from fhir_adapters.views import compile_view
from fhir_adapters.views.elements import element

VIEWS = {view["resource"]: view for path in sorted((mappings_folder() / "views").glob("*.json"))
         for view in [json.loads(path.read_text())]}  # fmt: skip
# what a view reads and what does not pass, with the column that is then empty
GIVEN_UP = {
    "Location.name": "care_site_name", "Location.address": "location, of a place that may be a home",
    "Location.position": "latitude, longitude", "Organization.name": "care_site_name",
    "Device.lotNumber": "device_source_value", "Immunization.lotNumber": "lot_number",
    "Coverage.payor.display": "payer_source_value",
    "ImagingStudy.series.extension": "what only the toolkit's own DICOM adapter writes",
}  # fmt: skip
# parts that a view reads and that pass only as `withheld`, or not at all
WORDS = ("display", "text")


def leaves(path: tuple[str, ...], type_: Any) -> Iterator[tuple[str, ...]]:
    if type_.id == "list":
        yield from leaves(path, type_.children[0][1])
    elif type_.id == "struct":
        for name, child in type_.children:
            yield from leaves((*path, name), child)
    else:
        yield path


def passes(resource: str, path: tuple[str, ...]) -> bool:
    """Whether the allow-list lets a path through, across the data types on its way."""
    root, at = resource, ""
    type_ = resource
    for place, name in enumerate(path):
        one = element(type_, name)
        if one is None:
            return False
        at = f"{at}.{name}" if at else name
        rule = rules()[root]
        whole = place == 0 and (at in rules()["any"].keep or at in ("resourceType",))
        if not (whole or name in ("modifierExtension", "url") or at in rule.keep or rule.passes(at)):
            return False
        type_ = one.type
        if whole or at in rule.keep:
            base = "Quantity" if type_ in ("Age", "Duration", "Count", "Distance") else type_
            if base in ("Extension", "Resource"):
                return True
            if base in rules():
                root, at, type_ = base, "", base
    return True


def test_each_element_is_kept_or_left_out_with_a_reason() -> None:
    assert fhir_elements.problems() == []


@pytest.mark.parametrize("resource", sorted(VIEWS))
def test_extensions_that_the_mapping_reads_are_listed(resource: str) -> None:
    paths = json.dumps(VIEWS[resource]).replace("\\u0027", "'")
    document = fhir_elements.document()
    known = {name.partition(" ")[0] for name in (*document["extensions"], *document["extensions_left_out"])}
    assert set(re.findall(r"extension\('([a-z]+:[^']+)'\)", paths)) - known == set()


@pytest.mark.parametrize("resource", sorted(VIEWS))
def test_what_the_mapping_reads_passes(resource: str) -> None:
    """A view that reads more needs its element under `keep` of fhir_adapters/fhir_elements.toml."""
    missing = []
    for name, type_ in compile_view(VIEWS[resource]).columns.items():
        if name == "resourceType":
            continue
        for path in leaves((name,), duckdb.sqltype(type_)):
            shown = f"{resource}.{'.'.join(path)}"
            if path[-1] in WORDS or (path[-1] == "id" and len(path) > 1) or path[0] == "extension":
                continue
            if any(shown == one or shown.startswith(f"{one}.") for one in GIVEN_UP):
                continue
            if not passes(resource, path):
                missing.append(shown)
    assert missing == []


@pytest.mark.parametrize("resource", sorted(VIEWS))
def test_what_validation_demands_passes(resource: str) -> None:
    from fhir.resources.R4B import get_fhir_model_class

    fields = get_fhir_model_class(resource).model_fields
    needed = [
        field.alias or name
        for name, field in fields.items()
        if field.is_required() or (field.json_schema_extra or {}).get("element_required")
    ]
    assert [name for name in needed if not passes(resource, (name,))] == []


def test_every_type_compiles() -> None:
    deidentifier = Deidentifier(SiteKey(b"k" * 32))
    for kind in fhir_elements.resource_types():
        assert deidentifier.resource({"resourceType": kind, "id": "1"})["resourceType"] == kind


def test_no_view_reads_a_type_that_does_not_pass() -> None:
    assert VIEWS.keys() - set(fhir_elements.resource_types()) == set()


@pytest.mark.parametrize("code", ["254837009", "448952004", "278054005", "128462008", "22298006", "1082701000112100"])
def test_snomed_identifiers_have_their_check_digit(code: str) -> None:
    assert verhoeff(code)
    assert not verhoeff(code[:-1] + str((int(code[-1]) + 1) % 10))
    assert not verhoeff(code[:-3] + code[-2] + code[-3] + code[-1]) or code[-3] == code[-2]


def test_product_numbers_have_their_check_digit() -> None:
    assert gtin("09506000134352") and gtin("96385074")
    assert not gtin("09506000134353") and not gtin("9506000134") and not gtin("0950600013435x")
