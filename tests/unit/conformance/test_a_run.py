"""What the guide asks each run to tell: versions and time, the vocabulary in use, the way back to each resource, what is left out."""

import json
import stat
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fhir_adapters.knowledge import mappings_folder, table
from omop_etl import __version__
from omop_etl.cdm import CDM_VERSION, tables
from omop_etl.config import Site
from omop_etl.mapping import map_folder
from omop_etl.warehouse.building import PALMARES
from tests.mapping_helpers import (
    LOINC,
    SNOMED,
    Slice,
    concept,
    mapped,
    patient,
    resource,
    site,
    tiny_vocabulary,
    write_fhir,
)

LOCAL = "urn:hospital:codes"
ONE, OTHER = 2_000_000_001, 2_000_000_002
SYSTOLIC, DIASTOLIC = concept((LOINC, "8480-6")), concept((LOINC, "8462-4"))
TYPES = (
    "Condition",
    "Procedure",
    "MedicationRequest",
    "MedicationStatement",
    "MedicationAdministration",
    "MedicationDispense",
    "Immunization",
    "AllergyIntolerance",
    "Device",
    "DiagnosticReport",
    "DocumentReference",
    "Specimen",
    "Encounter",
    "Coverage",
    "ImagingStudy",
    "AdverseEvent",
)
STAFF: list[dict[str, Any]] = [
    {"resourceType": "Practitioner", "id": "staff"},
    {"resourceType": "Organization", "id": "hospital", "name": "Ospedale"},
    {"resourceType": "Location", "id": "ward", "name": "Reparto", "address": {"state": "MI"}},
]

# a series of reports, one of whose measurements is the Observation `single`
MEASURED = {
    "uid": "2.25.3",
    "modality": {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "SR"},
    "extension": [
        {
            "url": "urn:palmares:imaging:feature",
            "extension": [
                {"url": "observation", "valueReference": {"reference": "Observation/single"}},
                {"url": "report", "valueOid": "urn:oid:2.25.3"},
            ],
        }
    ],
}


def everything() -> list[dict[str, Any]]:
    """A patient with one record of each kind, one that gives several rows, and one that gives none."""
    pressure = resource("Observation", "pressure", code=concept((LOINC, "85354-9")))
    del pressure["valueQuantity"]
    pressure["component"] = [
        {"code": SYSTOLIC, "valueInteger": 120},
        {"code": DIASTOLIC, "valueInteger": 80},
    ]
    return [
        patient(deceasedDateTime="2024-02-01"),
        *STAFF,
        *(resource(kind, f"one-{kind.lower()}") for kind in TYPES),
        resource("Encounter", "part", partOf={"reference": "Encounter/one-encounter"}),
        resource("Observation", "single"),
        resource("ImagingStudy", "measured", series=[MEASURED]),
        pressure,
        resource("Procedure", "never", status="not-done"),
    ]


@pytest.fixture(scope="module")
def slice_(tmp_path_factory: pytest.TempPathFactory) -> Slice:
    return mapped(tmp_path_factory.mktemp("run"), everything())


def released(folder: Path, target: int, release: str) -> Path:
    """A vocabulary in which a SNOMED code, that is not standard, maps to `target`."""
    concepts = [
        (ONE, "Condition", "SNOMED", "S", "one"),
        (OTHER, "Condition", "SNOMED", "S", "other"),
        (2_000_000_009, "Condition", "SNOMED", "", "asked"),
    ]
    made = tiny_vocabulary(folder, concepts, [(2_000_000_009, target, "Maps to")])
    (made / "VOCABULARY.csv").write_text(
        "vocabulary_id\tvocabulary_name\tvocabulary_reference\tvocabulary_version\tvocabulary_concept_id\n"
        f"None\tOMOP Standardized Vocabularies\tOMOP generated\t{release}\t44819096\n",
        encoding="utf-8",
    )
    return made


@pytest.mark.requirement("f2o-102", "f2o-002")
def test_versions_and_time_of_a_run(slice_: Slice) -> None:
    told = slice_.manifest()
    guide = json.loads((mappings_folder() / "conformance" / "guide.json").read_text(encoding="utf-8"))
    assert told["cdm_version"] == CDM_VERSION == "5.4"
    assert told["guide_version"] == guide["guide_version"] == "2.0.0-ballot"
    assert (told["fhir_version"], told["code_version"]) == ("4.0.1", __version__)
    assert len(told["mappings_sha256"]) == 64
    age = datetime.now(UTC) - datetime.fromisoformat(told["run"]["started"])
    assert 0 <= age.total_seconds() < 3600 and told["run"]["seconds"] > 0


@pytest.mark.requirement("f2o-030", "f2o-040", "f2o-093", "f2o-102")
def test_the_vocabulary_in_use_answers_and_is_named_with_its_release(tmp_path: Path) -> None:
    """The same code, two releases: the answer is the release's own, never one that the toolkit carries with it."""
    asked = [patient(), resource("Condition", "c", code=concept((SNOMED, "asked")))]
    for target, release in ((ONE, "v5.0 27-FEB-25"), (OTHER, "v5.0 30-AUG-25")):
        place = tmp_path / str(target)
        found = mapped(place, asked, vocabulary=released(place / "athena", target, release))
        assert found.one("Condition", "c", "condition_occurrence")["condition_concept_id"] == target
        lock = found.manifest()["vocabulary"]
        assert lock["release"] == release
        assert {"CONCEPT.csv", "CONCEPT_RELATIONSHIP.csv"} <= set(lock["files"])
        assert all(len(file["sha256"]) == 64 for file in lock["files"].values())
        [source] = found.rows("cdm_source")
        assert source["vocabulary_version"] == release and source["cdm_version"] == "5.4"


@pytest.mark.requirement("f2o-038")
def test_a_crosswalk_has_its_provenance_and_is_named_by_the_run(tmp_path: Path) -> None:
    """A code map of the site decides, each row says who set it and when, and another map is another run."""
    write_fhir(tmp_path / "fhir", [patient(), resource("Condition", "c", code=concept((LOCAL, "x")))])
    seen = []
    for target in (4112853, 4162253):
        codes = tmp_path / f"codes-{target}"
        codes.mkdir()
        (codes / "_systems.csv").write_text(f"file,system,vocabulary_id\nx.csv,{LOCAL},Prova\n", encoding="utf-8")
        head = next(iter((mappings_folder() / "codes" / "study" / "atc.csv").read_text(encoding="utf-8").splitlines()))
        row = (
            f"x,,-1,,0.0,APPROVED,EQUAL,reviewer,1795219200000,{target},,Condition,MAPS_TO,seen,reviewer,1795219200000,"
        )
        (codes / "x.csv").write_text(f"{head}\n{row}\n", encoding="utf-8")
        its_site = Site(id="test", name="test", time_zone="Europe/Rome", folder=tmp_path, codes=codes)
        out = tmp_path / f"slice-{target}"
        found = Slice(out, map_folder(its_site, tmp_path / "fhir", out, jobs=1))
        assert found.one("Condition", "c", "condition_occurrence")["condition_concept_id"] == target
        seen.append(found.manifest()["mappings_sha256"])
    assert seen[0] != seen[1]
    for path in sorted((mappings_folder() / "codes" / "study").glob("*.csv")):
        if path.name != "_systems.csv":
            for row in table("codes", "study", path.name):
                assert row["statusSetBy"] and int(row["statusSetOn"]) > 0 and row["comment"], path.name


@pytest.mark.requirement("f2o-023", "f2o-100")
def test_from_every_row_back_to_its_resource(slice_: Slice) -> None:
    read = {(one["resourceType"], one["id"]) for one in everything()}
    ways = Counter((one["cdm_table"], one["cdm_id"]) for one in slice_.origins())
    assert set(ways.values()) == {1}
    assert {(one["resource_type"], one["resource_id"]) for one in slice_.origins()} <= read
    filled = set()
    for path in sorted(slice_.folder.glob("*.parquet")):
        name = path.stem
        if name in ("ledger", "cdm_source", "observation_period"):
            continue
        key = "person_id" if name == "death" else f"{name}_id"
        rows = {(name, row[key]) for row in slice_.rows(name)}
        assert rows == {one for one in ways if one[0] == name}, name
        filled |= {name} if rows else set()
    # the set of resources above leaves no table of the mapping empty
    assert filled == {path.stem for path in slice_.folder.glob("*.parquet")} - {
        "ledger",
        "cdm_source",
        "observation_period",
    }
    two = {one["cdm_id"] for one in slice_.origins() if one["resource_id"] == "pressure"}
    assert len(two) == 2


@pytest.mark.requirement("f2o-024")
def test_the_way_back_stands_outside_the_cdm_and_is_its_owners_alone(slice_: Slice) -> None:
    side = slice_.folder / "side"
    assert (side / "trace.parquet").is_file()
    assert stat.S_IMODE(side.stat().st_mode) == 0o700
    assert stat.S_IMODE((slice_.folder / "ledger.parquet").stat().st_mode) == 0o600
    assert not {"ledger", "trace"} & set(tables())
    # nor does the centre's warehouse hold it: the ledger is summed up there
    assert not [name for name, columns in PALMARES.items() if "resource_id" in columns]
    # no id of a clinical resource stands in a CDM table
    ids = {one["id"] for one in everything() if one["resourceType"] in (*TYPES, "Observation")}
    for path in sorted(slice_.folder.glob("*.parquet")):
        if path.stem != "ledger":
            for row in slice_.rows(path.stem):
                assert not ids & {value for value in row.values() if isinstance(value, str)}, path.stem


@pytest.mark.requirement("f2o-062")
def test_the_report_of_what_was_left_out(slice_: Slice) -> None:
    assert slice_.manifest()["exclusions"] == [
        {"resource_type": "Procedure", "outcome": "excluded", "reason": "X-NOT-DONE", "resources": 1}
    ]


@pytest.mark.requirement("f2o-080")
def test_each_loss_that_is_counted_is_explained() -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "conformance" / "losses.md"
    text = page.read_text(encoding="utf-8")
    for row in table("conformance", "losses.csv"):
        assert row["loss"] in text and len(row["explanation"]) > 20


@pytest.mark.requirement("f2o-122")
def test_the_run_says_how_many_rows_each_table_has(slice_: Slice) -> None:
    told = slice_.manifest()["tables"]
    assert told == {name: len(slice_.rows(name)) for name in told}
    assert set(told) == {path.stem for path in slice_.folder.glob("*.parquet")} - {"ledger"}


@pytest.mark.requirement("f2o-061")
def test_the_filters_in_force_are_named_by_their_hash_and_a_changed_filter_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from omop_etl.mapping import run

    before = run.mappings_sha256(site())
    other = tmp_path / "mappings"
    other.mkdir()
    for path in mappings_folder().rglob("*"):
        if path.is_file():
            target = other / path.relative_to(mappings_folder())
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    monkeypatch.setattr(run, "mappings_folder", lambda: other)
    assert run.mappings_sha256(site()) == before
    filter_ = other / "events" / "procedure.sql"
    filter_.write_text(filter_.read_text(encoding="utf-8").replace("'not-done'", "'undone'"), encoding="utf-8")
    assert run.mappings_sha256(site()) != before
