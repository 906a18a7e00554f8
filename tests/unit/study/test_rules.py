"""The study as data: it loads, names no concept that no one has seen, and says who stands behind each value."""

import csv
import re
import shutil
import tomllib
from datetime import date
from pathlib import Path

import pytest

from fhir_adapters.errors import PalmaresError
from fhir_adapters.knowledge import mappings_folder
from omop_etl.derive.rules import load_rules
from omop_etl.publish.dictionary import read_dictionary
from omop_etl.study.rules import load_study, studies
from tests.shared import SHARED, needs_shared

STUDY = load_study("palmares2")


def test_palmares2_is_there() -> None:
    assert "palmares2" in studies()
    assert (STUDY.registry, STUDY.cut_off) == ("NCT06805812", date(2025, 1, 1))


def test_criteria_stand_in_the_order_of_the_attrition_table() -> None:
    assert [criterion.number for criterion in STUDY.criteria] == list(range(1, 11))
    assert [criterion.name for criterion in STUDY.criteria] == [
        "advanced-disease", "index", "receptor-sample", "hr-positive", "her2-negative", "first-line", "with-et",
        "no-adjuvant-cdk46", "follow-up", "one-person",
    ]  # fmt: skip


def test_sentences_state_the_windows_in_force() -> None:
    variant = load_study("palmares2", variant="partner-window-28")
    assert "index - 90 to + 28 days" in STUDY.criteria[6].sentence
    assert "index - 28 to + 28 days" in variant.criteria[6].sentence


def test_each_value_says_who_stands_behind_it() -> None:
    settings = tomllib.loads((STUDY.folder / "study.toml").read_text(encoding="utf-8"))
    for one in [*settings["parameters"].values(), *settings["small_cells"].values()]:
        assert one["status"] in ("protocol", "to-confirm", "decision")
        assert one["note"]


def test_no_window_stands_in_the_sql() -> None:
    for name, sql in [*STUDY.history, *((one.name, one.sql) for one in STUDY.criteria)]:
        code = re.sub(r"--.*|'[^']*'", "", sql)
        numbers = set(re.findall(r"(?<![\w'.])\d+(?![\w'+])", code)) - {"0", "1", "2", "100"}
        assert not numbers, f"{name}: {numbers}"


def test_reasons_have_an_explanation_and_those_to_act_on_a_remedy() -> None:
    for one in STUDY.reasons:
        assert one.explanation
        assert one.action in ("none", "query", "adjudication")
        assert one.remedy or one.action == "none"
        assert (one.answer in ("PASS", "FAIL", "UNKNOWN")) == (one.kind == "reason")


@needs_shared("concepts/concepts.csv")
def test_every_concept_was_seen_in_a_public_source() -> None:
    with (SHARED / "data/concepts/concepts.csv").open(encoding="utf-8", newline="") as lines:
        seen = {row["concept_id"]: row["tier"] for row in csv.DictReader(lines) if row["tier"] != "MISS"}
    for row in STUDY.concepts:
        # comparators are OMOP's own; the row cites where they were seen
        assert row["concept_id"] in seen or row["concept_set"] == "comparator", row["concept_name"]
        assert row["evidence"]


def test_one_concept_means_one_thing_in_a_set() -> None:
    keys = [(row["concept_set"], row["concept_id"], row["source_value"]) for row in STUDY.concepts]
    assert len(keys) == len(set(keys))


def test_a_drug_has_one_class() -> None:
    classes: dict[str, set[str]] = {}
    for row in STUDY.concepts:
        if row["vocabulary_id"].startswith("RxNorm"):
            classes.setdefault(row["concept_id"], set()).add(row["concept_set"])
    assert all(len(one) == 1 for one in classes.values())


def test_every_dataset_has_its_dictionary() -> None:
    for path in (STUDY.folder / "datasets").glob("*.sql"):
        if path.stem == "meds":  # its columns are those of MEDS
            continue
        variables = read_dictionary(path.with_suffix(".csv"), load_rules("palmares2").parameters)
        assert variables[0].type == "id"
        assert all(one.label for one in variables)
        # what a clinician may ask the source of; the others are counted or named from these
        assert path.stem != "baseline" or all(one.omop or one.type == "id" for one in variables)


@pytest.mark.parametrize(
    ("name", "variant", "code"), [("nowhere", None, "E-STUDY-01"), ("palmares2", "other", "E-STUDY-02")]
)
def test_a_study_or_variant_that_is_not_there(name: str, variant: str | None, code: str) -> None:
    with pytest.raises(PalmaresError) as raised:
        load_study(name, variant=variant)
    assert raised.value.code == code


def test_the_hash_follows_the_rules() -> None:
    assert STUDY.sha256() == load_study("palmares2", variant="partner-window-28").sha256()
    assert len(STUDY.sha256()) == 64


def test_a_report_that_compares_something_else_leaves_cohorts_and_locks_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(mappings_folder(), tmp_path / "mappings")
    monkeypatch.setenv("PALMARES_MAPPINGS", str(tmp_path / "mappings"))
    folder = tmp_path / "mappings" / "studies" / "palmares2"
    before = load_study("palmares2").sha256()
    for name in ("reports/survival.toml", "ecrf/registry.toml", "synthetic.toml"):
        (folder / name).write_text((folder / name).read_text() + "\n# another word\n")
        assert load_study("palmares2").sha256() == before, name
    for name in ("study.toml", "concept_sets.csv", "derive/05_lines.sql", "datasets/baseline.csv", "lines.toml"):
        (folder / name).write_text((folder / name).read_text() + "\n")
        after = load_study("palmares2").sha256()
        assert after != before, name
        before = after
