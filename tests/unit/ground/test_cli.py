"""The command line as people and machines meet it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from omop_etl.stages import CENTRAL_STAGES, SITE_STAGES

PALMARES = str(Path(sys.executable).parent / "palmares")


def palmares(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PALMARES, *words], capture_output=True, text=True, timeout=60)


def commands() -> list[list[str]]:
    from typer.main import get_command

    from omop_etl.cli import app

    found: list[list[str]] = []
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found += [[name, one] for one in inner] if inner else [[name]]
    return found


def test_help_answers_in_under_half_a_second() -> None:
    seconds = []
    for _ in range(3):
        # processor time: the clock on the wall also counts what other tests do meanwhile
        before = os.times()
        assert palmares("--help").returncode == 0
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(seconds) < 0.5


def test_nothing_heavy_is_imported_before_a_command_needs_it() -> None:
    code = "import sys, omop_etl.cli; print(','.join(sorted({name.split('.')[0] for name in sys.modules})))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split(",")
    heavy = {"duckdb", "pandas", "numpy", "pyarrow", "airflow", "great_expectations", "fhir", "pydicom", "sqlalchemy"}
    assert not heavy & set(loaded)


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_has_help_with_an_example(words: list[str]) -> None:
    answer = palmares(*words, "--help")
    assert answer.returncode == 0
    assert re.search(rf"Example:\s+palmares {' '.join(words)}", re.sub(r"\s+", " ", answer.stdout))


def test_every_stage_is_a_verb() -> None:
    verbs = {words[0] for words in commands()}
    assert {stage.name for stage in (*SITE_STAGES, *CENTRAL_STAGES)} <= verbs


def test_an_unknown_site_is_a_numbered_error_with_the_next_command(tmp_path: Path) -> None:
    answer = palmares("map", "--site", "nosuch", "--fhir", str(tmp_path), "--out", str(tmp_path / "slice"))
    assert answer.returncode == 2
    assert answer.stderr.startswith("E-SITE-01 nosuch: no such site.")
    assert "palmares site list" in answer.stderr
    assert not (tmp_path / "slice").exists()


def test_explain_knows_numbers_and_says_when_it_does_not() -> None:
    assert "No space was left" in re.sub(r"\s+", " ", palmares("explain", "E-DISK-01").stdout)
    answer = palmares("explain", "E-NONE-99")
    assert (answer.returncode, answer.stderr[:13]) == (2, "E-EXPLAIN-01 ")
