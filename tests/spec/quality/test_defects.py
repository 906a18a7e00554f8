"""Each planted defect is found by its check, and by nothing unrelated; clean data raise nothing; every kind of check has a defect."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest

from omop_etl.gates.counting import Count, Counter
from omop_etl.gates.definitions import Check, Definitions, definitions
from omop_etl.gates.relations import Relations, completed, files_of
from omop_etl.gates.slices import open_slice
from omop_etl.vocabulary import open_vocabulary
from tests import slices
from tests.gate_defects import changed_files
from tests.gate_helpers import counted
from tests.slices import number, write_slice

DEFECTS = tomllib.loads(Path(__file__).with_name("defects.toml").read_text(encoding="utf-8"))["defect"]
WORDS = {f"p{one}": number("prova", "person", one) for one in range(1, 5)} | {
    name: value for name, value in vars(slices).items() if name.isupper() and isinstance(value, int)
}
TODAY = date(2026, 6, 1)
JOINED = {"birth": "person", "death": "death", "visit": "visit_occurrence"}
# what the ledger says of the rows is not what a defect is about
LEDGER = ("G-LEDGER-01", "G-ROWS")


@dataclass
class World:
    """The clean slice in a database of its own, which a defect changes and which is then rolled back."""

    folder: Path
    vocabulary: Path
    relations: Relations

    def found(self, defect: dict[str, Any]) -> dict[str, Count]:
        if "files" in defect:
            folder = self.folder.parent / defect["files"].replace(" ", "-")
            return counted(changed_files(write_slice(folder), defect["files"]), self.vocabulary)
        defined = definitions(defect.get("extracted_to", slices.EXTRACTED_TO.isoformat()), today=TODAY)
        connection = self.relations.connection
        connection.execute("BEGIN")
        try:
            for text in defect.get("do", []):
                connection.execute(text.format_map(WORDS))
            relations = completed(self.relations, defined, open_slice(self.folder))
            counts = Counter(relations, defined).count(checks=concerned(defined, defect))
            return {count.check.code: count for count in counts}
        finally:
            connection.execute("ROLLBACK")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, vocabulary: Path) -> Iterator[World]:
    folder = write_slice(tmp_path_factory.mktemp("clean") / "slice")
    with duckdb.connect(config={"threads": 1}) as connection:
        yield World(folder, vocabulary, files_of(connection, open_slice(folder), open_vocabulary(vocabulary)))


def concerned(defined: Definitions, defect: dict[str, Any]) -> list[Check]:
    """The checks that a change of these tables can reach: all others count what they count in clean data, which is tested.
    All of the study's, since they look at what is derived from several tables."""
    touched = {word for text in defect.get("do", []) for word in re.findall(r"(?:UPDATE|INTO|FROM) (\w+)", text)}
    if not touched:
        return list(defined.at("site"))
    named = re.compile(rf"\b({'|'.join(touched)})\b")

    def reached(check: Check) -> bool:
        joined = " ".join(JOINED.get(one, "") for one in (check.join, check.of_join))
        sql = (check.where, check.of, check.violated, check.numerator, check.denominator, check.grouped, joined)
        return check.level in ("STUDY", "FILE") or check.table in touched or bool(named.search(" ".join(sql)))

    return [check for check in defined.at("site") if reached(check)]


def kinds(found: dict[str, Count], ledger: bool) -> dict[str, str]:
    """Family → the worst verdict; a check that is only reported says REPORT where it found something."""
    broken: dict[str, str] = {}
    for count in found.values():
        family, verdict = count.check.family, count.verdict
        if count.check.severity == "REPORT" and count.check.level == "STUDY" and count.numerator:
            verdict = "REPORT"
        if verdict != "PASS" and (ledger or family not in LEDGER):
            broken[family] = max(broken.get(family, "REPORT"), verdict, key=("REPORT", "WARN", "BLOCK").index)
    return broken


def test_clean_data_raise_nothing(world: World) -> None:
    found = world.found({})
    assert kinds(found, ledger=True) == {}
    assert len(found) > 1000


@pytest.mark.parametrize("defect", DEFECTS, ids=[one["name"] for one in DEFECTS])
def test_a_defect_is_found_by_its_check_alone(defect: dict[str, Any], world: World) -> None:
    target = defect["target"]
    broken = kinds(world.found(defect), ledger=target.startswith(("G-LEDGER", "G-ROWS")))
    if not target:
        assert broken == {}
        return
    assert broken.get(target) == defect["verdict"]
    assert set(broken) - {target} == set(defect.get("also", []))


def test_every_kind_of_check_has_a_defect() -> None:
    """But for those that run at the centre, and those that never say more than a number."""
    planted = {defect["target"] for defect in DEFECTS}
    speaking = {check.family for check in definitions().at("site") if check.severity != "REPORT"}
    assert speaking - planted == set()
