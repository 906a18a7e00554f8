"""What the guide asks an implementer to declare stands in docs/conformance, and agrees with what the code does."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from fhir_adapters import allow_list
from fhir_adapters.knowledge import mappings_folder, table
from fhir_adapters.partial_dates import date_rules
from omop_etl.cdm import tables
from omop_etl.config import DEFAULT_TIME_ZONE
from omop_etl.conformance import capabilities as module
from omop_etl.conformance.capabilities import FULLY, IN_PART, NOT, capabilities
from omop_etl.mapping.recipes import cdm_selects, recipes

DOCS = Path(__file__).resolve().parents[3] / "docs"
TEXT = (DOCS / "conformance" / "etl-documentation.md").read_text(encoding="utf-8")
GUIDE = json.loads((mappings_folder() / "conformance" / "guide.json").read_text(encoding="utf-8"))


def section(key: str) -> str:
    """The text of the section whose heading names a requirement; a heading may name a span (f2o-020 to f2o-026)."""
    for part in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]:
        heading = part.splitlines()[0]
        spans = re.findall(r"f2o-(\d+)(?: to f2o-(\d+))?", heading)
        if any(int(first) <= int(key[4:]) <= int(last or first) for first, last in spans):
            return " ".join(part.split())
    raise AssertionError(f"no section names {key}")


@pytest.mark.requirement("f2o-002", "f2o-010")
def test_versions_and_profiles_that_are_read() -> None:
    assert f"version {GUIDE['fhir_version']}" in section("f2o-002")
    assert "No profile" in section("f2o-010") and "capabilities.json" in section("f2o-010")


@pytest.mark.requirement("f2o-004")
def test_use_cases() -> None:
    assert "PALMARES-2" in section("f2o-004") and "Not served" in section("f2o-004")


@pytest.mark.requirement("f2o-003", "f2o-122")
def test_the_manifest_covers_every_view_and_every_table() -> None:
    manifest = capabilities()
    assert manifest["fhir_version"] == GUIDE["fhir_version"] and manifest["cdm_version"] == "5.4"
    assert manifest["resources"].keys() == recipes().keys()
    assert manifest["tables"].keys() == {name for name, facts in tables().items() if facts.schema != "vocab"}
    for name, one in manifest["tables"].items():
        assert (one["filled"] == NOT) == (name not in cdm_selects())
        assert (one["filled"] == IN_PART) == bool(one["always_empty"])
        # a column that the CDM requires is never one that is always empty
        required = {column.name for column in tables()[name].columns if column.required}
        assert not required & set(one["always_empty"]), name
    for name, one in manifest["resources"].items():
        assert set(one["fills"]) <= cdm_selects().keys(), name
        assert one["elements"] and one["profile"].endswith(f"/{name}")
    everything = {name for one in manifest["resources"].values() for name in one["fills"]}
    assert everything >= {name for name, one in manifest["tables"].items() if one["filled"] != NOT} - {
        "cdm_source",
        "observation_period",
    }


def test_the_tables_of_a_resource() -> None:
    resources = capabilities()["resources"]
    assert resources["Patient"]["fills"] == ["death", "location", "person"]
    assert resources["ImagingStudy"]["fills"] == ["image_feature", "image_occurrence", "procedure_occurrence"]
    assert resources["AllergyIntolerance"]["fills"] == ["condition_occurrence", "observation"]
    assert {"measurement", "observation", "condition_occurrence"} <= set(resources["Observation"]["fills"])
    assert resources["Medication"]["fills"] == []
    assert module.filled()["person"] == (FULLY, []) and module.filled()["cost"] == (NOT, [])
    assert module.filled()["provider"][1] == ["provider_name", "npi", "dea", "year_of_birth"]


@pytest.mark.requirement("f2o-025", "f2o-026")
def test_each_system_of_identifiers_has_its_assessment_and_its_handling() -> None:
    assert "GDPR" in section("f2o-025")
    rows = [
        line.strip("| ").split(" | ") for line in TEXT.splitlines() if line.startswith("| ") and line.count(" | ") == 3
    ]
    listed = [
        row for row in rows if row[0] != "identifiers" and "---" not in row[0] and not row[0].startswith(("site", "*"))
    ]
    assert len(listed) >= 12
    for name, where, assessment, handling in listed:
        assert name and where and len(assessment) > 10
        assert re.search(r"\b(replaced|kept outside|left out|cut)\b", handling), name
    told = " ".join(row[0] for row in listed)
    for word in ("record number", "codice fiscale", "accession", "UIDs", "logical id", "practitioner", "specimen"):
        assert word in told, word
    # what the allow-list of DICOM replaces is what the page says
    kinds = {keyword: element.kind for keyword, element in allow_list.dicom().keep.items()}
    assert {keyword for keyword, kind in kinds.items() if kind in ("uid", "pseudonym")} == {
        "PatientID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
        "SpecimenUID",
    }


def test_no_view_reads_an_identifier_that_the_page_does_not_name() -> None:
    """Of business identifiers, only the re-hashed study UID, the linkage token and the product's device identifier."""
    read = {path for one in capabilities()["resources"].values() for path in one["elements"] if "dentifier" in path}
    assert read == {
        "identifier.where(system = 'urn:dicom:uid').value.first()",
        "identifier.where(system = 'urn:palmares:linkage-token').value.first()",
        "udiCarrier.deviceIdentifier.first()",
    }
    naming = {path for one in capabilities()["resources"].values() for path in one["elements"] if "telecom" in path}
    assert not naming


@pytest.mark.requirement("f2o-071", "f2o-072", by="implementer")
def test_zone_and_rule_of_partial_dates() -> None:
    told = section("f2o-071")
    dates = tomllib.loads((mappings_folder() / "dates.toml").read_text(encoding="utf-8"))
    assert f"rule {dates['partial']['rule']}" in told
    rules = date_rules()
    assert (rules.start, rules.end, rules.absent) == ("first-day", "last-day", "midnight")
    assert "first day" in told and "the last" in told and "midnight" in told
    assert f"before {rules.earliest} and after {rules.latest}" in told
    assert f"by default {DEFAULT_TIME_ZONE}" in section("f2o-072") and "PALMARES_TIME_ZONE" in told


@pytest.mark.requirement("f2o-034", by="implementer")
def test_departures_in_the_choice_of_a_coding() -> None:
    told = section("f2o-034")
    assert "Departures" in told and "coding_priority.csv" in told
    ranks = {
        (row["profile"], row["vocabulary_id"]): int(row["rank"])
        for row in table("codes", "fhir", "coding_priority.csv")
    }
    first = sorted((rank, vocabulary) for (profile, vocabulary), rank in ranks.items() if profile == "condition")
    assert [vocabulary for _, vocabulary in first[:3]] == ["SNOMED", "ICDO3", "Cancer Modifier"]


@pytest.mark.requirement("f2o-038", "f2o-093", by="implementer")
def test_crosswalks_are_named_with_their_release_and_provenance() -> None:
    told = section("f2o-038")
    for place in ("mappings/codes/study", "mappings/codes/fhir", "mappings/vocabulary"):
        assert place in told and (mappings_folder().parent / place).is_dir()
    assert "vocabulary.lock" in told
    for path in (mappings_folder() / "codes" / "study").glob("*.csv"):
        if path.name.startswith("_"):
            continue
        for row in table("codes", "study", path.name):
            if row["mappingStatus"] == "APPROVED":
                assert row["statusSetBy"] and row["statusSetOn"] and row["comment"], path.name


@pytest.mark.requirement("f2o-061", by="implementer")
def test_filters_and_their_changes() -> None:
    told = section("f2o-061")
    assert "CHANGELOG.md" in told and "reasons.csv" in told
    filters = [row for row in table("explanations", "reasons.csv") if row["code"].startswith("X-")]
    assert filters and all(row["explanation"] and row["remedy"] for row in filters)


@pytest.mark.requirement("f2o-080")
def test_losses() -> None:
    told = section("f2o-080")
    assert "losses" in told and told.count(" - ") >= 10
    for row in table("conformance", "losses.csv"):
        assert row["explanation"]


@pytest.mark.requirement("f2o-082")
def test_decisions_priorities_manual_steps_and_limits() -> None:
    for key in ("f2o-034", "f2o-060", "f2o-071", "f2o-080", "f2o-082", "f2o-092"):
        assert len(section(key)) > 200, key


@pytest.mark.requirement("f2o-092")
def test_departures_from_the_structure_maps() -> None:
    assert "StructureMaps" in section("f2o-092") and "deviations.toml" in section("f2o-092")


@pytest.mark.requirement("f2o-132")
def test_legal_basis() -> None:
    told = section("f2o-132")
    for word in ("consent", "art. 110", "withdrawal", "linkage", "re-identif", "ethics"):
        assert word in told, word


def test_every_page_that_is_linked_is_there() -> None:
    made = set(module.generated()) | {Path("docs/conformance/fhir-to-omop.md")}
    for link in re.findall(r"\]\(([^)#]+)\)", TEXT):
        target = (DOCS / "conformance" / link).resolve()
        assert target.is_file() or target.relative_to(DOCS.parent) in made, link
