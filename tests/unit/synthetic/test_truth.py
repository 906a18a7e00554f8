"""The truth agrees with itself, names every reason, and stands on what the records hold."""

import itertools
from collections import Counter
from datetime import date

import pyarrow.parquet as pq

from omop_etl.synthetic.dates import add_months
from omop_etl.synthetic.parameters import CRITERIA, load
from tests.synthetic_helpers import Run

# every reason of the contract; PASS reasons included
REASONS = {
    "advanced-disease": {"advanced-dated", "no-advanced-disease"},
    "index": {"cdk46-started", "not-started"},
    "receptor-sample": {"sample-metastatic", "sample-primary", "no-sample", "sample-late", "no-index"},
    "hr-positive": {"hr-positive", "hr-low", "hr-negative", "hr-unknown", "no-index"},
    "her2-negative": {
        "ihc-0", "ihc-1", "ihc-2-not-amplified", "ihc-low-amplified", "ihc-3", "ihc-2-amplified", "ish-missing",
        "her2-unknown", "no-index",
    },
    "first-line": {
        "first-line", "et-lead-in", "prior-line", "induction-chemotherapy", "lead-in-too-long", "progression-in-lead-in",
        "no-index",
    },
    "with-et": {"with-et", "no-et", "no-index"},
    "no-adjuvant-cdk46": {"no-adjuvant-cdk46", "adjuvant-cdk46", "no-index"},
    "follow-up": {"potential-follow-up", "cut-off-too-early", "no-index"},
    "one-person": {"single-site", "initiating-site", "duplicate-of-other-site", "link-review", "deaths-conflict"},
}  # fmt: skip


def test_every_reason_occurs_outside_the_site_that_is_blocked(run: Run) -> None:
    blocked = set(run.sites("blocked"))
    found: dict[str, set[str]] = {}
    for row in run.truth("eligibility"):
        if row["site"] not in blocked:
            found.setdefault(row["criterion"], set()).add(row["reason"])
    assert found == REASONS


def test_three_to_four_fifths_are_eligible(run: Run) -> None:
    rows = run.truth("patients")
    assert len(rows) == 300
    assert 0.73 <= sum(row["eligible"] for row in rows) / len(rows) <= 0.82


def test_each_patient_has_ten_answers_and_is_eligible_when_all_pass(run: Run) -> None:
    answers: dict[tuple[str, str], dict[str, str]] = {}
    eligible = {(row["site"], row["patient"]): row["eligible"] for row in run.truth("patients")}
    for row in run.truth("eligibility"):
        answers.setdefault((row["site"], row["patient"]), {})[row["criterion"]] = row["answer"]
        assert row["eligible"] == eligible[row["site"], row["patient"]]
    assert answers.keys() == eligible.keys()
    for key, found in answers.items():
        assert tuple(found) == CRITERIA
        assert eligible[key] == (set(found.values()) == {"PASS"})


def test_dates_of_a_patient_are_in_order(run: Run) -> None:
    for row in run.truth("patients"):
        order = [
            date.fromisoformat(row["birth_month"] + "-01"),
            row["primary_date"],
            row["advanced_date"],
            row["index_date"],
            row["first_progression"],
            row["death_date"],
        ]
        known = [day for day in order if day is not None]
        assert known == sorted(known)
        assert row["last_contact"] <= row["extracted"]
        if row["death_date"]:
            assert row["last_contact"] <= row["death_date"]


def test_no_index_means_no_answer_to_criteria_three_to_nine(run: Run) -> None:
    index = {(row["site"], row["patient"]): row["index_date"] for row in run.truth("patients")}
    for row in run.truth("eligibility"):
        if row["criterion"] in CRITERIA[2:9]:
            assert (row["reason"] == "no-index") == (index[row["site"], row["patient"]] is None)


def test_follow_up_is_potential_and_ends_at_the_cut_off(run: Run) -> None:
    study = load()["study"]
    answers = {
        (r["site"], r["patient"]): r["answer"] for r in run.truth("eligibility") if r["criterion"] == "follow-up"
    }
    on_the_day = set()
    for row in run.truth("patients"):
        if row["index_date"] is None:
            continue
        end = add_months(row["index_date"], study["follow_up_months"])
        if row["role"] != "second":
            assert row["follow_up_day"] == end
        assert (answers[row["site"], row["patient"]] == "PASS") == (end <= study["cut_off"])
        on_the_day.add((end - study["cut_off"]).days)
    assert {0, 1} <= on_the_day


def test_the_edges_stand_where_they_should(run: Run) -> None:
    rows = {row["scenario"]: row for row in run.truth("patients")}

    def days(name: str, column: str) -> int:
        return (rows[name][column] - rows[name]["index_date"]).days

    assert days("sample exactly 30 days after index", "sample_date") == 30
    assert days("death on day 40", "death_date") == 40
    assert rows["death on day 40"]["eligible"]
    assert rows["ER exactly 1 %"]["er"] == 1 and rows["ER exactly 1 %"]["pgr"] == 0
    late = rows["sample 31 days after index"]
    samples = [row for row in run.truth("samples") if row["patient"] == late["patient"]]
    assert next((row["sample_date"] - late["index_date"]).days for row in samples) == 31
    november = rows["index on 30 November before a leap year"]
    assert november["follow_up_day"] == date(2024, 2, 29)
    assert rows["index on 30 November before a common year"]["follow_up_day"] == date(2023, 2, 28)


def test_the_lead_ins_begin_where_the_window_says(run: Run) -> None:
    rows = {row["scenario"]: row for row in run.truth("patients")}
    for name, days in (("lead-in of 90 days", 90), ("lead-in of 91 days", 91)):
        row = rows[name]
        lines = [line for line in run.truth("lines") if line["patient"] == row["patient"]]
        assert (row["index_date"] - min(line["start_date"] for line in lines)).days == days


def test_a_scenario_says_what_differs_and_the_answers_follow_it(run: Run) -> None:
    scenarios = {scenario.name: scenario for scenario in load().scenarios}
    names = {(row["site"], row["patient"]): row["scenario"] for row in run.truth("patients")}
    for row in run.truth("eligibility"):
        scenario = scenarios.get(names[row["site"], row["patient"]])
        if scenario and row["criterion"] in scenario.expect:
            assert f"{row['answer']} {row['reason']}" == scenario.expect[row["criterion"]]


def test_every_scenario_is_there(run: Run) -> None:
    count = Counter(row["scenario"] for row in run.truth("patients"))
    for scenario in load().scenarios:
        assert count[scenario.name] == scenario.per_300


def test_lines_follow_one_another(run: Run) -> None:
    lines: dict[str, list[dict]] = {}
    for row in run.truth("lines"):
        lines.setdefault(row["patient"], []).append(row)
    assert max(len(found) for found in lines.values()) == 4
    for found in lines.values():
        assert [row["line"] for row in found] == list(range(1, len(found) + 1))
        for earlier, later in itertools.pairwise(found):
            assert earlier["end_date"] is not None and earlier["end_date"] < later["start_date"]


def test_some_go_on_beyond_progression_with_local_therapy(run: Run) -> None:
    beyond = [row for row in run.truth("progressions") if row["continued"]]
    assert {row["local_therapy"] for row in beyond} >= {"radiotherapy", "none"}


def test_a_human_of_two_sites_has_one_token_and_two_pseudonyms(run: Run) -> None:
    pairs: dict[int, list[dict]] = {}
    for row in run.truth("links"):
        pairs.setdefault(row["pair"], []).append(row)
    assert Counter(rows[0]["kind"] for rows in pairs.values()) == {"linked": 3, "deaths-conflict": 1, "link-review": 1}
    patients = {(row["site"], row["patient"]): row for row in run.truth("patients")}
    for rows in pairs.values():
        first, second = sorted(rows, key=lambda row: row["role"])
        assert first["site"] != second["site"] and first["patient"] != second["patient"]
        tokens = [_token(run, row) for row in (first, second)]
        one, two = (patients[row["site"], row["patient"]] for row in (first, second))
        assert one["birth_month"] == two["birth_month"] and one["index_drug"] == two["index_drug"]
        assert one["index_date"] < two["index_date"]
        if first["kind"] == "link-review":
            assert tokens[0] is not None and tokens[1] is None
            assert (two["index_date"] - one["index_date"]).days <= 14
        else:
            assert tokens[0] == tokens[1] and len(tokens[0]) == 64
    tokens = [_token(run, row) for row in patients.values()]
    assert tokens.count(None) == 1
    assert len(set(tokens)) == len(patients) - 4  # four pairs share a token; the missing one counts as a value


def test_the_fallback_key_of_a_pair_without_token_meets_nobody_else(run: Run) -> None:
    review = {row["patient"] for row in run.truth("links") if row["kind"] == "link-review"}
    patients = run.truth("patients")
    months = {row["birth_month"] for row in patients if row["patient"] in review}
    assert {row["patient"] for row in patients if row["birth_month"] in months} == review


def test_conflicting_deaths_both_lie_before_the_cut_off(run: Run) -> None:
    conflict = {row["patient"] for row in run.truth("links") if row["kind"] == "deaths-conflict"}
    days = [row["recorded_date"] for row in run.truth("deaths") if row["patient"] in conflict]
    assert len(set(days)) == 2
    assert max(days) < load()["study"]["cut_off"]


def _token(run: Run, row: dict) -> str | None:
    for resource in run.resources[row["site"]]:
        if resource["resourceType"] == "Patient" and resource["id"] == row["patient"]:
            return next((entry["value"] for entry in resource.get("identifier", [])), None)
    raise AssertionError("the patient is not there")


def test_index_drug_and_dates_stand_in_the_records(run: Run) -> None:
    atc = {entry[key] for entry in load()["drug"].values() if entry["class"] == "cdk46" for key in ("atc", "atc_old")}
    site = next(site["site"] for site in run.manifest["sites"] if site["profile"].startswith("discharge"))
    for row in run.truth("patients"):
        if row["site"] != site or row["index_date"] is None or row["scenario"] != "usual":
            continue
        starts = [
            resource["effectivePeriod"]["start"]
            for resource in run.of_patient(site, row["patient"], "MedicationAdministration")
            if resource["medicationCodeableConcept"]["coding"][0]["code"] in atc and resource["status"] != "not-done"
        ]
        assert min(starts) == row["index_date"].isoformat()


def test_the_manifest_counts_what_was_written(run: Run) -> None:
    for name, count in run.manifest["rows"].items():
        assert pq.read_metadata(run.out / "truth" / f"{name}.parquet").num_rows == count
    for site in run.sites():
        no_json = [row for row in run.truth("defects") if row["site"] == site and row["resource_type"] == "?"]
        assert sum(1 for _ in run.lines(site)) == sum(run.manifest["resources"][site].values()) + len(no_json)
