"""Two locks side by side: every move and every change has its reason; what is shown gives no small number away."""

import csv
import stat
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import pytest

from omop_etl.cohorts.small_cells import HIDDEN, first_exposed
from omop_etl.locks import Difference, create, diff
from tests.lock_helpers import deliver
from tests.slices import HER2_IHC, PALBOCICLIB, PROGRESSION, THREE_PLUS, Rows, number

pytestmark = pytest.mark.long

FIRST, SECOND = date(2021, 5, 1), date(2024, 6, 30)
RESPONSE = 1634680  # RECIST 1.1: stable disease


def assessed(rows: Rows) -> None:
    """Everyone is assessed every 80 days for two years."""
    for row in [row for row in rows["measurement"] if row["measurement_concept_id"] == PROGRESSION]:
        for step in range(1, 10):
            more = dict(row) | {
                "measurement_id": row["measurement_id"] % 2**40 + 2**41 * step,
                "measurement_concept_id": RESPONSE,
                "measurement_date": date(2019, 5, 14) + timedelta(days=80 * step),
                "measurement_source_value": "SD",
            }
            rows["measurement"].append(more)


def person(site: str, one: int) -> int:
    return number(site, "person", one)


def later(rows: Rows) -> None:
    """What the second delivery of `prova` says otherwise."""
    assessed(rows)
    for row in rows["measurement"]:
        # 1 turns out to be HER2 positive: no longer eligible
        if row["person_id"] == person("prova", 1) and row["measurement_concept_id"] == HER2_IHC:
            row["value_as_concept_id"] = THREE_PLUS
        # 2 progressed a year earlier than was known: dated before the first cut-off
        if row["person_id"] == person("prova", 2) and row["measurement_concept_id"] == PROGRESSION:
            row["measurement_date"] = date(2020, 3, 1)
    # 4's progression was none
    rows["measurement"] = [
        row
        for row in rows["measurement"]
        if not (row["person_id"] == person("prova", 4) and row["measurement_concept_id"] == PROGRESSION)
    ]
    for row in rows["drug_exposure"]:
        # 3 began ten days earlier
        if row["person_id"] == person("prova", 3) and row["drug_concept_id"] == PALBOCICLIB:
            row["drug_exposure_start_date"] = date(2019, 5, 4)
    # 5 is gone
    for table, found in rows.items():
        rows[table] = [row for row in found if row.get("person_id") != person("prova", 5)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    deliver(home, "prova", 30, home / "first", change=assessed)
    deliver(home, "resta", 16, home / "other", change=assessed)
    create(home, "one", cut_off=FIRST)
    deliver(home, "prova", 32, home / "second", change=later)
    deliver(home, "nuova", 12, home / "third", change=assessed)
    create(home, "two", cut_off=SECOND)
    return home


@pytest.fixture(scope="module")
def found(home: Path) -> Difference:
    return diff(home, "one", "two", persons=home / "persons.csv")


@pytest.fixture(scope="module")
def persons(home: Path, found: Difference) -> list[dict[str, str]]:
    with (home / "persons.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def why(persons: list[dict[str, str]], one: int, what: str) -> list[str]:
    return [row["why"] for row in persons if row["person_id"] == str(one) and row["what"] == what]


def test_who_came_and_went_and_why(persons: list[dict[str, str]]) -> None:
    assert why(persons, person("prova", 1), "went") == ["is ihc-3"]
    assert why(persons, person("prova", 5), "went") == ["record-withdrawn"]
    assert why(persons, person("prova", 31), "came") == ["recorded-since"]
    assert why(persons, person("nuova", 7), "came") == ["new-site"]
    assert Counter(row["what"] for row in persons if row["what"] in ("came", "went")) == {"came": 14, "went": 2}


def test_whose_endpoint_changed_and_why(persons: list[dict[str, str]]) -> None:
    assert why(persons, person("prova", 2), "RWPFS") == ["event-recorded-since"]
    assert why(persons, person("prova", 3), "RWPFS") == ["day-0-moved"]
    assert why(persons, person("prova", 6), "RWPFS") == ["event-after-the-first-cut-off"]
    assert why(persons, person("prova", 6), "RWOS") == ["followed-longer"]
    assert why(persons, person("resta", 4), "RWPFS") == ["event-after-the-first-cut-off"]
    # those who came or went have no endpoint to compare
    assert why(persons, person("prova", 1), "RWOS") == []
    assert why(persons, person("nuova", 7), "RWOS") == []


def test_looked_at_the_other_way_round(home: Path, tmp_path: Path) -> None:
    diff(home, "two", "one", persons=tmp_path / "back.csv")
    with (tmp_path / "back.csv").open(newline="") as lines:
        back = list(csv.DictReader(lines))
    assert why(back, person("prova", 1), "came") == ["was ihc-3"]
    assert why(back, person("nuova", 7), "went") == ["site-left"]
    assert why(back, person("prova", 2), "RWPFS") == ["event-withdrawn"]
    assert why(back, person("prova", 6), "RWPFS") == ["event-after-the-second-cut-off"]
    assert why(back, person("prova", 6), "RWOS") == ["cut-off-earlier"]


def test_what_is_shown(found: Difference) -> None:
    assert (found.first, found.second, found.cut_offs) == ("one", "two", ["2021-05-01", "2024-06-30"])
    assert found.patients["one"] == 46
    assert found.patients["two"] == 58
    assert found.endpoints["RWOS"]["followed-longer"] == HIDDEN or int(found.endpoints["RWOS"]["followed-longer"]) >= 10
    assert "site came: nuova" in found.made_of
    assert any(line.startswith("submission: prova") for line in found.made_of)


def test_no_small_number_follows_from_what_is_shown(found: Difference, persons: list[dict[str, str]]) -> None:
    came = Counter(row["why"] for row in persons if row["what"] == "came")
    went = Counter(row["why"] for row in persons if row["what"] == "went")
    gone, new = sum(went.values()), sum(came.values())
    for code, shown in found.endpoints.items():
        changes = Counter(row["why"] for row in persons if row["what"] == code)
        stayed = 46 - gone
        leaves = [stayed - sum(changes.values()), *(changes[reason] for reason in shown if reason != "unchanged")]
        cells = list(range(len(leaves)))
        leaves += [*went.values(), *came.values()]
        left = list(range(len(cells), len(cells) + len(went)))
        joined = list(range(len(cells) + len(went), len(leaves)))
        sums: list[list[int]] = [[cell] for cell in cells] + [[leaf] for leaf in (*left, *joined)]
        hidden = [value == HIDDEN for value in shown.values()]
        hidden += [found.went[reason] == HIDDEN for reason in went] + [found.came[reason] == HIDDEN for reason in came]
        for members, word in (
            ([*cells, *left], "one"), (left, "went"), (cells, "stayed"), (joined, "came"), ([*cells, *joined], "two"),
        ):  # fmt: skip
            sums.append(members)
            hidden.append(found.patients[word] == HIDDEN)
        assert first_exposed(leaves, sums, hidden, threshold=10, zeros=True) is None, code
    assert new == 14


def test_persons_stay_inside(home: Path, found: Difference) -> None:
    assert stat.S_IMODE((home / "persons.csv").stat().st_mode) == 0o600
    said = str(found)
    assert not any(str(person(site, one)) in said for site in ("prova", "resta", "nuova") for one in range(1, 33))


def test_a_lock_does_not_differ_from_itself(home: Path) -> None:
    same = diff(home, "one", "one")
    assert same.patients["stayed"] == 46
    assert (same.came, same.went) == ({}, {})
    assert all(set(counts) == {"unchanged"} for counts in same.endpoints.values())
