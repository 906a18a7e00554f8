"""The definitions are data: what does not fit is a numbered error, thresholds can be overridden, each check explains itself."""

import csv
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_adapters.errors import PalmaresError
from fhir_adapters.knowledge import mappings_folder
from omop_etl.cdm import tables
from omop_etl.gates import VERDICTS, explain, verdict_of
from omop_etl.gates.definitions import Check, definitions
from tests.gate_helpers import counted
from tests.shared import SHARED, needs_shared
from tests.slices import write_slice

KAHN = {"Conformance", "Completeness", "Plausibility"}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A copy of mappings/quality that a test may change."""
    yield Path(shutil.copytree(mappings_folder() / "quality", tmp_path / "quality"))


def by_code(folder: Path | None = None) -> dict[str, Check]:
    return {check.code: check for check in definitions("2024-12-31", folder).checks}


def test_each_check_is_whole() -> None:
    checks = definitions("2024-12-31").checks
    assert len(checks) > 2_700
    for check in checks:
        assert check.category in KAHN
        assert check.table in {*tables(), "ledger", "person_link"}
        assert "{" not in "".join(
            (check.title, check.finding, check.where, check.violated, check.explanation, check.remedy)
        )
        assert check.explanation.endswith(".")
        assert check.remedy.endswith(".")
        assert re.fullmatch(r"G-[A-Z0-9]+-[a-z0-9_.]+|[GC]-[A-Z0-9]+-\d\d", check.code), check.code
        assert check.code.startswith("C-") == bool(check.central)
        assert check.code == check.family or check.code.startswith(f"{check.family}-{check.table}")
        assert check.warn is None or check.block is None or check.warn <= check.block


def test_explain() -> None:
    answer = explain("G-DEATH-02")
    assert answer is not None
    assert answer["bears"] == "WARN above 1 %, BLOCK above 20 % (from 3 persons on)"
    assert answer["place"] == "runs at the site"
    generated = explain("G-REQUIRED-death.death_date")
    assert generated is not None
    assert (generated["title"], generated["dqd"]) == ("death.death_date is filled", "isRequired")
    family = explain("G-REQUIRED")
    assert family is not None
    assert family["bears"] == "BLOCK above 0 %"
    reported = explain("G-COMPLETE-11")
    assert reported is not None
    assert reported["bears"] == "reported only"
    assert explain("G-NOTHING-01") is None


def test_thresholds_are_overridden_by_code_and_by_family(folder: Path) -> None:
    path = folder / "thresholds.toml"
    more = '"G-UNMAPPED" = { warn = 50 }\n"G-UNMAPPED-device_exposure.device_concept_id" = { block = 1 }\n"G-DEATH" = { warn = 7 }\n'
    path.write_text(path.read_text().replace("[checks]\n", f"[checks]\n{more}"))
    checks = by_code(folder)
    mapped = checks["G-UNMAPPED-measurement.measurement_concept_id"]
    assert (mapped.warn, mapped.block) == (50, None)
    device = checks["G-UNMAPPED-device_exposure.device_concept_id"]
    assert (device.warn, device.block) == (None, 1)
    assert (checks["G-DEATH-02"].warn, checks["G-DEATH-02"].block) == (7, None)
    assert checks["G-BIRTH-01"].warn == by_code()["G-BIRTH-01"].warn


@pytest.mark.parametrize(
    ("file", "old", "new", "word"),
    [
        ("checks.toml", 'level = "structure"', 'level = "strictest"', "strictest"),
        ("checks.toml", "{er}", "{estrogen}", "estrogen"),
        ("dqd.toml", 'rule = "required"', 'rule = "wanted"', "wanted"),
        ("dqd.toml", 'level = "ohdsi_fatal"', 'level = "deadly"', "deadly"),
        ("checks.toml", '"estrogen-receptor"', '"oestrogen-receptor"', "oestrogen-receptor"),
        ("checks.toml", '"visit_occurrence.visit_concept_id"', '"visit.visit_concept_id"', "visit"),
        ("dqd.csv", "argument,threshold", "argument,percent", "do not read"),
        ("dqd.csv", "isRequired,person,person_id,,,0", "isRequired,person,person_id,,,none", "do not read"),
        ("thresholds.toml", "otherwise = 0", "instead = 0", "otherwise"),
        ("thresholds.toml", "[small]", "[tiny]", "small"),
        ("checks.toml", 'code = "G-DEATH-02"', 'code = "G-DEATH-01"', "stands twice"),
        ("checks.toml", 'code = "G-DEATH-02"', "", "code"),
        ("checks.toml", "[[generated]]\n", "[[generated\n", "no TOML"),
        ("thresholds.toml", "[rejects]", "[reject]", "rejects"),
        ("thresholds.toml", "[levels]", "levels]", "no TOML"),
    ],
)
def test_what_does_not_fit_is_named(file: str, old: str, new: str, word: str, folder: Path) -> None:
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1))
    with pytest.raises(PalmaresError, match=word) as raised:
        definitions("2024-12-31", folder)
    assert "/" not in str(raised.value)
    assert raised.value.code == "E-GATE-03"


def test_a_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(PalmaresError, match="the file is missing"):
        definitions(None, tmp_path)


def test_sql_that_does_not_fit_the_tables_is_named(
    vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mappings = shutil.copytree(mappings_folder(), tmp_path / "mappings")
    path = mappings / "quality" / "checks.toml"
    path.write_text(path.read_text().replace('where = "day(drug_exposure_start_date) = 1"', 'where = "day(begun) = 1"'))
    monkeypatch.setenv("PALMARES_MAPPINGS", str(mappings))
    definitions.cache_clear()
    try:
        with pytest.raises(PalmaresError, match="E-GATE-03 G-HEAP-01"):
            counted(write_slice(tmp_path / "slice"), vocabulary)
    finally:
        definitions.cache_clear()


@needs_shared("concepts")
def test_every_concept_id_has_a_public_source() -> None:
    with (SHARED / "data" / "concepts" / "concepts.csv").open(encoding="utf-8", newline="") as lines:
        known = {int(row["concept_id"]) for row in csv.DictReader(lines) if row["tier"] in "ABC" and row["concept_id"]}
    words = definitions("2024-12-31").words
    for name in ("blood_count", "cdk46", "advanced", "er", "progression"):
        assert {int(one) for one in words[name].split(", ")} <= known, name


counts = st.integers(0, 10**9)
shares = st.none() | st.floats(0, 100)


@given(numerator=counts, denominator=counts, warn=shares, block=shares, least=st.integers(1, 20))
def test_a_verdict_follows_its_counts(
    numerator: int, denominator: int, warn: float | None, block: float | None, least: int
) -> None:
    verdict = verdict_of(numerator, denominator, warn, block, least)
    worse = verdict_of(numerator + 1, denominator, warn, block, least)
    assert VERDICTS.index(worse) >= VERDICTS.index(verdict), "more violations are never better"
    if numerator == 0:
        assert verdict == "PASS"
    if warn is None and block is None:
        assert verdict == "PASS"
    if block is None or numerator < least:
        assert verdict != "BLOCK"
    if block is not None and denominator and 100 * numerator / denominator > block:
        assert verdict != "PASS", "what would block is never silent"


def test_one_of_one_does_not_block_by_a_percentage_alone() -> None:
    checks = by_code()
    death, key = checks["G-DEATH-02"], checks["G-KEY-person.person_id"]
    assert [death.verdict(n, n) for n in (0, 1, 2, 3)] == ["PASS", "WARN", "WARN", "BLOCK"]
    assert [key.verdict(n, 100) for n in (0, 1)] == ["PASS", "BLOCK"], "what bears nothing blocks at the first"
