"""Every kind of defect is planted, listed, and does to the record what its name says."""

import json
from collections import Counter
from datetime import date

import pytest

from omop_etl.synthetic.defects import KINDS, NOT_IN_BUNDLES
from omop_etl.synthetic.parameters import load
from tests.synthetic_helpers import Run


def _planted(run: Run, kind: str) -> list[dict]:
    return [row for row in run.truth("defects") if row["kind"] == kind]


def test_every_kind_is_listed_and_planted(run: Run) -> None:
    table = load()["defect"]
    count = Counter(row["kind"] for row in run.truth("defects"))
    assert set(count) == set(table)
    assert set(KINDS) == set(table) - {"ghost-record", "dicom-truncated", "dicom-text-file"}


def test_every_ordinary_site_has_every_kind_that_its_format_allows(run: Run) -> None:
    table = load()["defect"]
    everywhere = {kind for kind, entry in table.items() if entry["per_100"]}
    for site in run.sites("ordinary"):
        bundles = any((run.out / "hospitals" / site / "fhir").glob("Bundle-*.json"))
        found = {row["kind"] for row in run.truth("defects") if row["site"] == site}
        assert everywhere - found <= (NOT_IN_BUNDLES if bundles else set())


def test_the_clean_site_has_none(run: Run) -> None:
    assert not [row for row in run.truth("defects") if row["site"] in run.sites("clean")]


def test_reasons_are_codes_that_exist(run: Run) -> None:
    from fhir_adapters.knowledge import table

    known = {row["code"] for row in table("explanations", "reasons.csv")}
    for row in run.truth("defects"):
        if row["expected_reason"] and row["expected_outcome"] != "gate":
            assert row["expected_reason"] in known, row["kind"]


def test_only_ordinary_patients_of_one_site_bear_defects(run: Run) -> None:
    rows = {row["patient"]: row for row in run.truth("patients")}
    for defect in run.truth("defects"):
        if defect["patient"]:
            assert rows[defect["patient"]]["scenario"] == "usual"
            assert rows[defect["patient"]]["role"] == "single"


def test_positions_are_those_of_the_lines(run: Run) -> None:
    for site in run.sites():
        lines = dict(run.lines(site))
        for row in run.truth("defects"):
            if row["site"] != site or row["position"] is None or row["resource_type"] == "ImagingStudy":
                continue
            line = lines[row["position"]]
            if row["resource_type"] == "?":
                with pytest.raises(ValueError):
                    json.loads(line)
                assert row["resource_id"] in (row["position"], None)
            else:
                resource = json.loads(line)
                assert resource["resourceType"] == row["resource_type"]
                assert resource.get("id") == row["resource_id"]


def test_lists_and_records_name_the_same_resources(run: Run) -> None:
    for row in run.truth("defects"):
        if row["resource_id"] and row["resource_type"] not in ("?", "ImagingStudy"):
            found = [
                resource
                for resource in run.resources[row["site"]]
                if resource["id"] == row["resource_id"] and resource["resourceType"] == row["resource_type"]
            ]
            assert len(found) == (2 if row["kind"] in ("identical-twice", "older-version") else 1)


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("code-not-an-object", ("code",), "718-7"),
        ("invalid-status", ("status",), "validated"),
        ("date-not-fhir", ("effectiveDateTime",), "13/05/2021"),
        ("ghost-birth-date-number", ("birthDate",), 1958),
        ("ghost-invalid-gender", ("gender",), "F"),
        ("ghost-without-birth-date", ("birthDate",), None),
        ("condition-without-subject", ("subject",), None),
        ("observation-without-subject", ("subject",), None),
        ("entered-in-error-finding", ("status",), "entered-in-error"),
        ("cancelled-encounter", ("status",), "cancelled"),
        ("not-done-procedure", ("status",), "not-done"),
        ("er-out-of-range", ("valueQuantity", "value"), 140),
        ("ki67-as-fraction", ("valueQuantity", "value"), 0.2),
        ("born-1890", ("birthDate",), "1890-01"),
    ],
)
def test_defects_are_what_they_are_called(run: Run, kind: str, path: tuple[str, ...], value: object) -> None:
    rows = _planted(run, kind)
    assert rows
    for row in rows:
        found: object = _resource(run, row)
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        assert found == value


def _resource(run: Run, row: dict) -> dict:
    return next(
        resource
        for resource in run.resources[row["site"]]
        if resource["id"] == row["resource_id"] and resource["resourceType"] == row["resource_type"]
    )


def test_doses_and_overlaps_are_errors_of_the_protocol(run: Run) -> None:
    for row in _planted(run, "dose-not-made"):
        resource = _resource(run, row)
        dosage = resource["dosage"]
        dose = dosage["dose"] if isinstance(dosage, dict) else dosage[0]["doseAndRate"][0]["doseQuantity"]
        assert dose["value"] == 600
    for row in _planted(run, "two-cdk46-at-once"):
        index = next(x["index_date"] for x in run.truth("patients") if x["patient"] == row["patient"])
        assert (date.fromisoformat(_resource(run, row)["effectivePeriod"]["start"]) - index).days == 5


def test_what_comes_after_death_and_what_comes_before_the_index(run: Run) -> None:
    recorded = {row["patient"]: row for row in run.truth("deaths")}
    for row in _planted(run, "event-after-death"):
        assert _resource(run, row)["effectiveDateTime"][:10] > recorded[row["patient"]]["recorded_date"].isoformat()
    for row in _planted(run, "death-before-index"):
        patient = next(x for x in run.truth("patients") if x["patient"] == row["patient"])
        assert recorded[row["patient"]]["death_date"] is None
        assert recorded[row["patient"]]["recorded_date"] < patient["index_date"]


def test_the_older_version_is_the_wrong_one(run: Run) -> None:
    for row in _planted(run, "older-version"):
        one, two = (x for x in run.resources[row["site"]] if x["id"] == row["resource_id"])
        newer = max(one, two, key=lambda resource: resource["meta"]["lastUpdated"])
        older = min(one, two, key=lambda resource: resource["meta"]["lastUpdated"])
        assert newer["meta"]["versionId"] == "2"
        assert older["valueQuantity"]["value"] == pytest.approx(newer["valueQuantity"]["value"] * 10)


def test_what_is_missing_is_missing_in_the_truth_too(run: Run) -> None:
    codes = load()["finding"]
    patients = {row["patient"]: row for row in run.truth("patients")}
    for kind, column in (("missing-ecog", "ecog"), ("missing-ki67", "ki67"), ("missing-grade", "grade")):
        for row in _planted(run, kind):
            assert patients[row["patient"]][column] is None
            found = run.of_patient(row["site"], row["patient"], "Observation")
            assert not [
                resource
                for resource in found
                if isinstance(resource["code"], dict) and resource["code"]["coding"][0]["code"] == codes[column]
            ]


def test_the_blocked_site_is_bad_enough(run: Run) -> None:
    (site,) = run.sites("blocked")
    after = {
        row["patient"] for row in run.truth("defects") if row["site"] == site and row["expected_reason"] == "G-DEATH-02"
    }
    dead = [row for row in run.truth("deaths") if row["site"] == site]
    patients = [row for row in run.truth("patients") if row["site"] == site]
    assert len(after) / len(dead) > 0.4
    assert len(after) / len(patients) > 0.25


def test_without_dirt_there_is_no_defect_no_local_code_no_blocked_site(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    from omop_etl.synthetic import generate

    out = tmp_path_factory.mktemp("clean") / "out"
    result = generate(out, sites=3, patients=60, dirty=False, jobs=1)
    assert result.defects == 0 and result.patients == 60
    run = Run(out)
    assert run.sites("blocked") == []
    assert not list((out / "sites").glob("codes/*/*"))
    assert b"urn:palmares:site" not in b"".join(line for site in run.sites() for _, line in run.lines(site))


def test_nothing_is_after_death_but_what_is_planted(run: Run) -> None:
    planted = {row["patient"] for row in run.truth("defects") if row["expected_reason"] == "G-DEATH-02"}
    deaths = {row["patient"]: row["recorded_date"].isoformat() for row in run.truth("deaths")}
    for resources in run.resources.values():
        for resource in resources:
            patient = resource.get("subject", {}).get("reference", "").rsplit("/", 1)[-1]
            if patient not in deaths or patient in planted:
                continue
            period = resource.get("effectivePeriod") or resource.get("period") or resource.get("performedPeriod") or {}
            days = [period.get("start"), period.get("end")]
            days += [resource.get(name) for name in ("onsetDateTime", "effectiveDateTime", "performedDateTime")]
            assert max((day[:10] for day in days if day), default="") <= deaths[patient]
