"""The FHIR of the hospitals: valid where it is not meant to be broken, and without a name, a record number or a tax code."""

import json
import random
import re
from collections import Counter

import pytest
from fhir.resources.R4B import get_fhir_model_class

from fhir_adapters.pseudonyms import SiteKey
from omop_etl.config import load_site, site_ids
from tests.synthetic_helpers import Run

PER_TYPE = 60


def _broken(run: Run, site: str) -> set[str]:
    return {
        row["position"]
        for row in run.truth("defects")
        if row["site"] == site and row["expected_outcome"].startswith("quarantined")
    }


def test_every_resource_that_is_not_planted_as_broken_is_r4b(run: Run) -> None:
    rng = random.Random(1)
    seen: Counter[str] = Counter()
    for site in run.sites():
        broken = _broken(run, site)
        by_type: dict[str, list[dict]] = {}
        for position, line in run.lines(site):
            if position not in broken:
                resource = json.loads(line)
                by_type.setdefault(resource["resourceType"], []).append(resource)
        for kind, resources in by_type.items():
            model = get_fhir_model_class(kind)
            for resource in rng.sample(resources, min(PER_TYPE, len(resources))):
                model.model_validate(resource)
                seen[kind] += 1
    assert set(seen) == {
        "Patient", "Condition", "Encounter", "MedicationAdministration", "MedicationStatement", "Observation",
        "Organization", "Procedure", "Specimen",
    }  # fmt: skip


def test_every_resource_says_when_it_was_touched_and_not_after_the_extraction(run: Run) -> None:
    extracted = {site["site"]: site["extracted"] for site in run.manifest["sites"]}
    for site, resources in run.resources.items():
        for resource in resources:
            assert resource["meta"]["lastUpdated"][:10] <= extracted[site]
            assert re.fullmatch(r"[A-Za-z0-9.\-]{1,64}", resource["id"])


def test_references_lead_somewhere_in_the_hospital(run: Run) -> None:
    astray = {row["resource_id"] for row in run.truth("defects") if row["kind"] in ("absent-patient", "ghost-record")}
    for _site, resources in run.resources.items():
        there = {f"{resource['resourceType']}/{resource['id']}" for resource in resources}
        for resource in resources:
            for reference in re.findall(r'"reference": "([^"]*)"', json.dumps(resource)):
                if resource["id"] not in astray:
                    assert "/".join(reference.split("/")[-2:]) in there


def test_no_name_no_record_number_no_tax_code_is_in_the_fhir(run: Run) -> None:
    secrets = run.truth("identifiers")
    columns = ("surname", "given_name", "record_number", "codice_fiscale")
    values = {row[name].lower() for row in secrets for name in columns}
    for site in run.sites():
        text = b"\n".join(line for _, line in run.lines(site)).decode().lower()
        words = set(re.findall(r"[\w'-]+", text))
        assert not values & words
        assert not [value for value in values if " " in value and value in text]


def test_birth_dates_stop_at_the_month(run: Run) -> None:
    for resources in run.resources.values():
        for resource in resources:
            if resource["resourceType"] == "Patient" and isinstance(resource.get("birthDate"), str):
                assert re.fullmatch(r"\d{4}-\d\d", resource["birthDate"])


def test_patient_ids_are_the_pseudonyms_of_the_record_numbers(run: Run) -> None:
    folder = run.out / "sites"
    assert site_ids(folder) == run.sites()
    for name in run.sites():
        site = load_site(name, folder)
        key = SiteKey.load(site.key_file)
        numbers = {row["record_number"] for row in run.truth("identifiers") if row["site"] == name}
        expected = {key.pseudonym("patient", number) for number in numbers}
        assert {row["patient"] for row in run.truth("patients") if row["site"] == name} == expected


def test_sites_write_in_different_ways(run: Run) -> None:
    endings = {path.name.split(".", 1)[1] for path in (run.out / "hospitals").glob("*/fhir/*")}
    assert endings == {"ndjson", "ndjson.gz", "json"}
    systems = Counter(
        coding["system"]
        for resources in run.resources.values()
        for resource in resources
        if isinstance(resource.get("code"), dict)
        for coding in resource["code"]["coding"]
        if "system" in coding
    )
    for part in ("sid/icd-10", "sid/icd-9-cm", "snomed.info", "urn:palmares:site:site04:laboratory"):
        assert any(part in system for system in systems), part


def test_old_atc_codes_stand_at_the_sites_that_write_them(run: Run) -> None:
    codes = Counter(
        resource["medicationCodeableConcept"]["coding"][0]["code"]
        for resource in run.resources["site03"]
        if resource["resourceType"] == "MedicationAdministration"
    )
    assert codes["L01XE33"] and codes["L01XE42"] and not codes["L01EF01"]


def test_some_times_are_written_in_utc_with_another_date(run: Run) -> None:
    times = [
        resource["effectiveDateTime"]
        for resources in run.resources.values()
        for resource in resources
        if str(resource.get("effectiveDateTime", "")).endswith("Z")
    ]
    assert times and all(int(time[11:13]) >= 22 for time in times)


def test_the_sites_code_maps_are_read_as_the_vocabulary_reads_them(run: Run) -> None:
    code_maps = pytest.importorskip("omop_etl.vocabulary.code_maps")
    rows = code_maps.read_folder(run.out / "sites" / "codes" / "site02", "site")
    assert {row.concept_id for row in rows} >= {45892075, 1592911, 792649}
    assert all(row.keys == ("urn:palmares:site:site02:drug",) for row in rows)
