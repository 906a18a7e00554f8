"""What is mapped again patient by patient is what a run over all gives: the same slice, file by file."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fhir_adapters.landing import land
from fhir_adapters.validation import validate
from omop_etl.mapping import MapResult, map_site
from tests.mapping_helpers import concept, patient, resource, site

pytestmark = pytest.mark.long

PATIENTS = ("p1", "p2", "p3", "p4")
KINDS = (
    "Patient",
    "Condition",
    "Observation",
    "Encounter",
    "MedicationStatement",
    "MedicationRequest",
    "Immunization",
    "Organization",
    "Practitioner",
    "Medication",
    "Claim",
    "delete",
)
EXAMPLES = int(os.environ.get("PALMARES_EXAMPLES", "2"))


def made(kind: str, of: str, which: int, day: int, choice: int, dated: bool) -> dict[str, Any]:
    """A version of a resource: what it says depends on `choice`, what it refers to may be there or not."""
    meta = {"meta": {"lastUpdated": f"2024-02-{day:02d}T0{choice % 10}:00:00Z"}} if dated else {}
    identity = f"{kind[:3].lower()}-{of}-{which}" if kind != "Patient" else of
    moment = f"2023-{1 + choice % 12:02d}-{day:02d}"
    encounter = {"encounter": {"reference": f"Encounter/enc-{of}-{choice % 3}"}} if choice % 3 else {}
    local = concept((f"urn:local:{choice % 2}", f"c{choice % 4}"), display=f"word {choice}")
    if kind == "Patient":
        address = {
            "address": [{"state": ("MI", "Lombardia", "Lazio")[choice % 3], "country": ("IT", "Atlantis")[choice % 2]}]
        }
        link = (
            {"link": [{"other": {"reference": f"Patient/{PATIENTS[choice % 4]}"}, "type": "replaced-by"}]}
            if choice > 7
            else {}
        )
        doctor = {"generalPractitioner": [{"reference": f"Practitioner/pra-x-{choice % 2}"}]}
        death = {"deceasedDateTime": moment} if choice == 5 else {"deceasedBoolean": True} if choice == 4 else {}
        broken = {"birthDate": "not a date"} if choice == 6 else {}
        made = patient(identity, **meta, **address, **link, **doctor, **death) | broken
        # of two files that another replaces one keeps no birth date
        return {name: value for name, value in made.items() if choice != 9 or name != "birthDate"}
    if kind == "Organization":
        return {"resourceType": kind, "id": f"org-x-{which}", "name": f"ward {choice % 2}", **meta}
    if kind == "Practitioner":
        return {"resourceType": kind, "id": f"pra-x-{which}", "gender": ("female", "male")[choice % 2], **meta}
    if kind == "Medication":
        return {"resourceType": kind, "id": f"med-x-{which}", "code": local, **meta}
    if kind == "Claim":
        return {"resourceType": kind, "id": identity, "status": "active", **meta}
    if kind == "Encounter":
        end = {"end": f"2024-0{1 + choice % 4}"} if choice % 2 else {}
        place = {"serviceProvider": {"reference": f"Organization/org-x-{choice % 2}"}}
        return resource(kind, identity, of, **meta, period={"start": moment} | end, **place)
    if kind == "Observation":
        value = (
            {"valueQuantity": {"value": choice, "unit": "g"}},
            {"valueString": "words"},
            {"valueCodeableConcept": local},
        )[choice % 3]
        focus = {"focus": [{"reference": f"Condition/con-{PATIENTS[choice % 4]}-{choice % 2}"}]} if choice > 4 else {}
        code = {"code": local} if choice % 5 == 0 else {}
        status = {"status": "entered-in-error"} if choice == 9 else {}
        return (
            resource(kind, identity, of, **meta, effectiveDateTime=moment, **value, **focus, **encounter)
            | code
            | status
        )
    if kind == "MedicationRequest":
        drug = {"medicationReference": {"reference": f"Medication/med-x-{choice % 3}"}}
        one = resource(kind, identity, of, **meta, authoredOn=moment, **drug)
        one.pop("medicationCodeableConcept", None)
        return one
    if kind == "MedicationStatement":
        period = {"effectivePeriod": {"start": moment} | ({"end": "2024-12"} if choice % 2 else {})}
        one = resource(kind, identity, of, **meta, status=("active", "completed")[choice % 2], **period)
        one.pop("effectiveDateTime", None)
        return one
    if kind == "Condition":
        return resource(kind, identity, of, **meta, onsetDateTime=("2023-13-77", moment)[choice != 3], **encounter)
    return resource(kind, identity, of, **meta, occurrenceDateTime=moment)


def deliver(folder: Path, events: list[tuple[Any, ...]], dated: bool) -> Path:
    """The events of one delivery: versions, and deletes with or without a time."""
    folder.mkdir(parents=True)
    entries: list[dict[str, Any]] = []
    for kind, of, which, day, choice in events:
        if kind == "delete":
            gone = ("Observation/obs", "Patient", "Encounter/enc", "Medication/med-x")[choice % 4]
            url = (
                f"Patient/{of}"
                if gone == "Patient"
                else f"{gone}-{which}"
                if "med-x" in gone
                else f"{gone}-{of}-{which}"
            )
            at = {"lastModified": f"2024-02-{day:02d}T00:00:00Z"} if dated else {}
            entries.append({"request": {"method": "DELETE", "url": url}, "response": {"status": "204", **at}})
        else:
            entries.append({"resource": made(kind, of, which, day, choice, dated)})
    (folder / "bundle.json").write_text(json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}))
    return folder


def differences(one: Path, other: Path) -> list[str]:
    """Files of two slices that differ, rows of Parquet whatever their order; the run's own seconds apart."""
    names = {str(path.relative_to(folder)) for folder in (one, other) for path in folder.rglob("*") if path.is_file()}
    found = []
    for name in sorted(names):
        left, right = one / name, other / name
        if not left.is_file() or not right.is_file():
            found.append(name)
        elif name.endswith(".parquet"):
            a, b = f"read_parquet('{left}')", f"read_parquet('{right}')"
            query = f"SELECT count(*) FROM ((FROM {a} EXCEPT ALL FROM {b}) UNION ALL (FROM {b} EXCEPT ALL FROM {a}))"
            row = duckdb.connect().execute(query).fetchone()
            if row is None or row[0]:
                found.append(name)
        elif name == "manifest.json":
            first, second = (json.loads(path.read_text()) for path in (left, right))
            first.pop("run"), second.pop("run")
            if first != second:
                found.append(name)
        elif left.read_bytes() != right.read_bytes():
            found.append(name)
    return found


def run(root: Path, step: int, delivery: Path, compare: bool = True) -> tuple[MapResult, list[str]]:
    """Land and validate on top of what is there, map what changed; hold it against a run over all (which the first is)."""
    landed, accepted, slice_ = root / "landed", root / "accepted", root / "slice"
    land([delivery], landed, previous=landed if step else None, jobs=1)
    validate(landed, accepted, verdicts=root / "verdicts", jobs=1)
    result = map_site(site(), accepted, slice_, previous=slice_ if step else None, jobs=1)
    if not step or not compare:
        return result, []
    map_site(site(), accepted, root / "whole", jobs=1)
    return result, differences(slice_, root / "whole")


event = st.tuples(
    st.sampled_from(KINDS), st.sampled_from(PATIENTS), st.integers(0, 2), st.integers(1, 28), st.integers(0, 9)
)
history = st.lists(st.lists(event, min_size=1, max_size=8), min_size=1, max_size=3)


@pytest.mark.requirement("f2o-061", "f2o-103")
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=EXAMPLES < 10)
@given(first=st.lists(event, min_size=6, max_size=30), later=history, dated=st.booleans())
def test_patients_mapped_again_give_the_slice_of_a_run_over_all(
    first: list[tuple[Any, ...]], later: list[list[tuple[Any, ...]]], dated: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        base = [("Patient", one, 0, 1, 0) for one in PATIENTS[:3]]
        for step, events in enumerate([base + first, *later]):
            _, different = run(root, step, deliver(root / f"delivery{step}", events, dated))
            assert different == [], (step, different)


def versions(*events: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    return [("Patient", one, 0, 1, 0) for one in PATIENTS] + list(events)


def test_as_many_patients_are_mapped_again_as_changed(tmp_path: Path) -> None:
    begin = versions(
        ("Observation", "p4", 0, 2, 0), ("Observation", "p2", 0, 2, 1), ("MedicationRequest", "p1", 0, 2, 1)
    )
    run(tmp_path, 0, deliver(tmp_path / "first", begin, True))
    steps: list[tuple[list[tuple[Any, ...]], int | None]] = [
        ([("Observation", "p2", 0, 9, 3)], 1),  # a resource of one patient
        (begin, 0),  # a delivery that had been landed
        ([("delete", "p4", 0, 10, 0), ("Condition", "p3", 0, 9, 1)], 2),
        ([("Claim", "p1", 0, 9, 0)], 0),  # no patient's rows depend on it
        ([("Patient", "p1", 0, 11, 9)], 2),  # p1 was replaced by p2: both
        ([("Medication", "p1", 0, 9, 1)], None),  # whoever takes it
    ]
    for step, (then, mapped) in enumerate(steps, 1):
        # what one step left is what the next stands on: the last but one, and the run over all, are held against it
        result, different = run(tmp_path, step, deliver(tmp_path / f"then{step}", then, True), compare=step == 5)
        assert (step, different) == (step, [])
        assert (step, result.patients) == (step, mapped)


@pytest.mark.parametrize("lost", ["side/memory.json", "places"])
def test_where_the_way_back_is_lost_all_patients_are_mapped(lost: str, tmp_path: Path) -> None:
    run(tmp_path, 0, deliver(tmp_path / "first", versions(("Observation", "p4", 0, 2, 0)), True))
    if lost == "places":
        # an accepted folder of an earlier version of this program
        land(
            [deliver(tmp_path / "then", [("Observation", "p1", 0, 3, 0)], True)],
            tmp_path / "landed",
            previous=tmp_path / "landed",
        )
        validate(tmp_path / "landed", tmp_path / "accepted")
        for path in (tmp_path / "accepted").rglob("*.places.parquet"):
            path.unlink()
    else:
        (tmp_path / "slice" / lost).unlink()
    told: list[str] = []
    if lost != "places":
        land(
            [deliver(tmp_path / "then", [("Observation", "p1", 0, 3, 0)], True)],
            tmp_path / "landed",
            previous=tmp_path / "landed",
        )
        validate(tmp_path / "landed", tmp_path / "accepted")
    result = map_site(
        site(), tmp_path / "accepted", tmp_path / "slice", previous=tmp_path / "slice", jobs=1, progress=told.append
    )
    assert result.patients is None
    assert [words for words in told if words.startswith("mapping all patients: ")]
    map_site(site(), tmp_path / "accepted", tmp_path / "whole", jobs=1)
    assert differences(tmp_path / "slice", tmp_path / "whole") == []
