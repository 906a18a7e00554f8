"""A short run of the fuzzer; `tests/benchmarks/fuzz.py` is the long one."""

import csv
import io
import logging
from pathlib import Path

import pytest

from tests.fuzzing import MARK, broken, hold


@pytest.mark.long
@pytest.mark.parametrize("seed", [1])
def test_broken_resources_lose_nothing_and_say_nothing(
    seed: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said: list[str] = []
    with caplog.at_level(logging.DEBUG):
        outcomes = hold(tmp_path, broken(seed, 300), said)
    assert outcomes["quarantined"] > 50
    assert outcomes["written"] > 50
    assert [text for text in [*said, caplog.text] if MARK in told(text)] == []


def told(text: str) -> str:
    """What is said, without the codes of the worklist, which it is there to show."""
    if not text.startswith("site,vocabulary_id"):
        return text
    return " ".join(
        f"{row['source_name']} {row['source_code']}"
        for row in csv.DictReader(io.StringIO(text))
        if len(row["source_code"]) > 50
    )
