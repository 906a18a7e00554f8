"""The datasets against what deriving says, against the plain-Python rules, and against those who take them as they are."""

import os
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omop_etl.cohorts.eligibility import evaluate
from omop_etl.derive import reference
from omop_etl.derive.rules import Rules, apply, load_rules
from omop_etl.publish.datasets import lay_out
from tests.cohort_helpers import INDEX, patient
from tests.derive_helpers import fill, patients
from tests.publish_helpers import FRESH, connect, frame, laid_out
from tests.unit.derive.test_two_implementations import CUT_OFF, population
from tests.warehouses import Event, words

EXAMPLES = int(os.environ.get("PALMARES_EXAMPLES", "2"))  # many more by hand: PALMARES_EXAMPLES=300


def on(days: int) -> str:
    return (INDEX + timedelta(days=days)).isoformat()


@pytest.fixture(scope="module")
def memory() -> Iterator[duckdb.DuckDBPyConnection]:
    with connect() as connection:
        yield connection


@pytest.fixture(scope="module")
def rules() -> Rules:
    return load_rules("palmares2")


# ---- lines -----------------------------------------------------------------------------------------------------------


@settings(
    max_examples=EXAMPLES, deadline=None, derandomize="PALMARES_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
@given(what=population())
def test_the_outcome_of_every_line_is_the_rule_counted_from_its_first_day(
    memory: duckdb.DuckDBPyConnection, what: list[Event]
) -> None:
    rules = load_rules("palmares2", cut_off=CUT_OFF)
    fill(memory, what)
    apply(memory, rules)
    evaluate(memory, rules.study)
    memory.execute("UPDATE verdict SET eligible = person_id IN (SELECT person_id FROM index_start)")
    lay_out(memory, rules, FRESH, salt="salt")
    lines = frame(memory, rules, "lines")
    ids = dict(memory.execute("SELECT patient, person_id FROM released").fetchall())
    main = next(rule for rule in rules.endpoints if rule.paramcd == "RWPFS")
    expected = {}
    for person, whole in patients(what, rules).items():
        one = whole.believed()
        if person not in ids.values() or one.index is None:
            continue
        of_patient = reference.lines(one, rules)
        known = one.last_contact is not None and not one.in_doubt
        for line, after in zip(of_patient, [*of_patient[1:], None], strict=True):
            progressed = next((day for day in reference.progressions(one) if day > line.start), None)
            pfs = reference.rwpfs(replace(one, index=line.start), line.start, progressed, None, main, rules)
            ttnt = min(filter(None, (after.start if after else None, one.death)), default=one.last_contact)
            expected[person, line.number] = (
                (line.start - one.index).days,
                (pfs.end - line.start).days if known else None,
                int(pfs.event is not None) if known else None,
                (ttnt - line.start).days if known and ttnt else None,
                int(bool(after or one.death)) if known else None,
                (after.start - one.index).days if after else None,
                "+".join(sorted(line.regimen.split("+"))) if line.regimen else "",
            )
    columns = ["start_day", "pfs_days", "pfs_event", "ttnt_days", "ttnt_event", "next_line_day", "regimen"]
    found = {
        (ids[row["patient"]], row["line_number"]): tuple(None if pd.isna(row[name]) else row[name] for name in columns)
        for row in lines.to_dict("records")
    }
    assert found == expected


def test_the_index_line_from_day_0_is_rwpfs(memory: duckdb.DuckDBPyConnection, rules: Rules) -> None:
    chance = random.Random(7)
    what = []
    for person in range(1, 31):
        what += patient(person)
        what += [
            Event(person, "SD", on(day)) for day in range(80, chance.randrange(90, 900), chance.choice([80, 85, 120]))
        ]
        if chance.random() < 0.7:
            what.append(Event(person, "PD", on(chance.randrange(20, 900))))
        if chance.random() < 0.5:
            what.append(Event(person, "death", on(chance.randrange(100, 1200))))
    laid_out(memory, what, rules)
    lines, times = frame(memory, rules, "lines"), frame(memory, rules, "time_to_event")
    index = lines[lines["is_index"] & (lines["start_day"] == 0)].set_index("patient").sort_index()
    for code, day, event in (
        ("RWPFS", "pfs_days", "pfs_event"),
        ("TTNT", "ttnt_days", "ttnt_event"),
        ("RWOS", "os_days", "os_event"),
    ):
        one = times[times["PARAMCD"] == code].set_index("patient").sort_index()
        assert len(index) == 30
        assert list(index[day]) == list(one["AVAL"]), code
        assert list(index[event]) == list(one["event"]), code
    assert (times["AVAL"] == times["ADT"] - times["STARTDT"]).all()
    assert (times["event"] == 1 - times["CNSR"]).all()
    assert (times["EVNTDESC"].notna() == (times["CNSR"] == 0)).all()
    assert (times["CNSDTDSC"].notna() == (times["CNSR"] == 1)).all()
    assert set(times["PARAMCD"].cat.categories) == {rule.paramcd for rule in rules.endpoints}
    assert np.allclose(times["months"], times["AVAL"] / 30.4375, atol=0.005)


def test_what_is_known_at_the_decision(memory: duckdb.DuckDBPyConnection, rules: Rules) -> None:
    what = [
        *patient(1),
        Event(1, "PD", on(300)),
        Event(1, "liver metastasis", on(300)),
        Event(1, "ER of metastasis", on(305), value="20"),
        Event(1, "ECOG", on(303), value="2"),
        Event(1, "capecitabine", on(310), on(380), "progression"),
        Event(1, "ECOG", on(311), value="3"),  # the day after the decision
        Event(1, "lung metastasis", on(311)),
        Event(1, "PD", on(370)),
        Event(1, "death", on(500)),
    ]
    laid_out(memory, what, rules)
    first, second = frame(memory, rules, "lines").to_dict("records")
    assert (first["ecog"], first["er_percent"], first["metastatic_sites"]) == ("1", 90.0, 1)
    assert (second["ecog"], second["er_percent"]) == ("2", 20.0)
    assert (second["met_bone"], second["met_liver"], second["met_lung"], second["metastatic_sites"]) == (
        True,
        True,
        False,
        2,
    )
    assert (second["previous_regimen"], second["previous_progressed"], second["prior_cdk46"]) == (
        "letrozole+palbociclib",
        True,
        True,
    )
    assert (second["start_day"], second["previous_days"], second["progressions"]) == (310, 310, 1)
    assert (second["pfs_days"], second["pfs_event"], second["os_days"]) == (60, 1, 190)
    assert first["next_regimen"] == second["regimen"] == "capecitabine"


# ---- features --------------------------------------------------------------------------------------------------------

LATER = st.lists(
    st.tuples(
        st.sampled_from(
            [
                ("ECOG", "3"), ("weight", "80"), ("menopause", "pre"), ("liver metastasis", ""), ("ER of primary", "5"),
                ("HER2 IHC of primary", "3+"), ("PD", ""), ("capecitabine", ""), ("death", ""), ("grade of primary", "3"),
                ("visit", ""),
            ]
        ),
        st.integers(1, 400),
    ),
    max_size=6,
)  # fmt: skip


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="PALMARES_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(later=LATER, landmark=st.sampled_from([0, 91, 183]))
def test_nothing_after_the_landmark_gets_in(
    memory: duckdb.DuckDBPyConnection, later: list[tuple[tuple[str, str], int]], landmark: int
) -> None:
    rules = load_rules("palmares2")
    before = [*patient(1), Event(1, "grade of primary", on(-30), value="2")]

    def features(what: list[Event]) -> pd.DataFrame:
        laid_out(memory, what, rules)
        memory.execute(
            "UPDATE verdict SET eligible = TRUE"
        )  # HER2 3+ weeks later changes who is eligible, not what was known
        lay_out(memory, rules, FRESH, salt="salt")
        rows = frame(memory, rules, "features")
        assert (rows["day"] <= rows["landmark_day"]).all()
        return rows[rows["landmark_day"] == landmark].astype(str).reset_index(drop=True)

    known = features(before)
    more = features(before + [Event(1, event, on(landmark + days), value=value) for (event, value), days in later])
    assert len(known) > 10
    pd.testing.assert_frame_equal(known, more)


def test_a_value_that_is_too_old_is_none(memory: duckdb.DuckDBPyConnection, rules: Rules) -> None:
    laid_out(memory, patient(1), rules)
    rows = frame(memory, rules, "features").set_index(["landmark", "feature"])
    assert rows.loc[("day-0", "ecog"), "word"] == "1"
    assert rows.loc[("day-0", "ecog"), "day"] == -3
    assert ("month-3", "ecog") not in rows.index  # measured 94 days before; 30 is the most
    assert rows.loc[("month-6", "er_percent"), "value"] == 90  # a receptor does not age


def test_radiomic_and_pathology_features_come_from_what_was_measured_on_images(
    memory: duckdb.DuckDBPyConnection, rules: Rules
) -> None:
    laid_out(memory, patient(1), rules)
    link = words()["linked-row:measurement"][1]
    for number, (modality, day, name, value) in enumerate(
        [
            ("CT", -10, "IBSI.3NSA", 1.5),
            ("CT", 5, "IBSI.3NSA", 9.9),
            ("SM", -20, "TIL", 0.3),
            ("CT", -9, "Rossi Maria", 1.0),
        ],
        900,
    ):
        moment = INDEX + timedelta(days=day)
        memory.execute(
            "INSERT INTO procedure_occurrence (procedure_occurrence_id, person_id, procedure_concept_id, procedure_date, "
            "procedure_source_value) VALUES (?, 1, 0, ?, ?)",
            [number, moment, modality],
        )
        memory.execute(
            "INSERT INTO image_occurrence (image_occurrence_id, person_id, procedure_occurrence_id, image_occurrence_date) "
            "VALUES (?, 1, ?, ?)",
            [number, number, moment],
        )
        memory.execute(
            "INSERT INTO measurement (measurement_id, person_id, measurement_concept_id, measurement_date, value_as_number, "
            "measurement_source_value) VALUES (?, 1, 0, ?, ?, ?)",
            [number, moment, value, name],
        )
        memory.execute(
            "INSERT INTO image_feature (image_feature_id, person_id, image_occurrence_id, image_feature_event_field_concept_id, "
            "image_feature_event_id) VALUES (?, 1, ?, ?, ?)",
            [number, number, link, number],
        )
    lay_out(memory, rules, FRESH, salt="salt")
    rows = frame(memory, rules, "features")
    day_0 = rows[rows["landmark"] == "day-0"].set_index("feature")
    assert (day_0.loc["ct//IBSI.3NSA", "family"], day_0.loc["ct//IBSI.3NSA", "value"]) == ("radiomic", 1.5)
    assert (day_0.loc["sm//TIL", "family"], day_0.loc["sm//TIL", "day"]) == ("pathology", -20)
    assert day_0.loc["image-ct", "value"] == 2
    assert not rows["feature"].str.contains("Rossi").any()  # free text never leaves
    later = rows[rows["landmark"] == "month-3"].set_index("feature")
    assert later.loc["ct//IBSI.3NSA", "value"] == 9.9


# ---- sequences -------------------------------------------------------------------------------------------------------


def test_a_sequence_reads_as_it_happened(memory: duckdb.DuckDBPyConnection, rules: Rules) -> None:
    what = [
        *patient(1),
        Event(1, "PD", on(300)),
        Event(1, "capecitabine", on(310), on(380), "toxicity"),
        Event(1, "PD", on(600)),  # after death: an error that the gate reports
        Event(1, "death", on(500)),
    ]
    laid_out(memory, what, rules)
    rows = frame(memory, rules, "sequences")
    tokens = rows[rows["kind"].isin(["diagnosis", "metastasis", "drug", "line", "assessment", "death", "end"])]
    assert list(zip(tokens["day"], tokens["token"], strict=True)) == [
        (-1800, "DIAGNOSIS//primary//NST"),
        (-40, "DIAGNOSIS//advanced"),
        (-40, "METASTASIS//bone"),
        (0, "DRUG//letrozole//START"),
        (0, "DRUG//palbociclib//START"),
        (0, "LINE//1"),
        (300, "ASSESSMENT//PD"),
        (310, "DRUG//capecitabine//START"),
        (310, "LINE//2"),
        (380, "DRUG//capecitabine//STOP//toxicity"),
        (500, "DEATH"),
    ]
    assert list(rows["position"]) == list(range(1, len(rows) + 1))
    assert rows["day"].is_monotonic_increasing
    assert list(rows["days_since_previous"]) == [0, *rows["day"].diff()[1:].astype(int)]
    assert set(rows.loc[rows["token"] == "MARKER//er", "value"]) == {90.0}
