"""What the gate's tests share: the vocabulary of the tiny slice, the checks that a slice breaks, and a gated slice."""

from pathlib import Path

import duckdb
import pytest

from omop_etl.gates import Verdict, gate
from omop_etl.gates.counting import Count, Counter
from omop_etl.gates.definitions import definitions
from omop_etl.gates.relations import of_slice
from omop_etl.gates.slices import open_slice
from omop_etl.vocabulary import open_vocabulary
from tests.slices import write_slice, write_vocabulary

# one of each per process, whichever folder's tests ask first
_MADE: dict[str, Path] = {}
_VERDICTS: dict[str, Verdict] = {}


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary folder that knows the concepts of the tiny slice."""
    if "vocabulary" not in _MADE:
        _MADE["vocabulary"] = write_vocabulary(tmp_path_factory.mktemp("vocabulary") / "athena")
    return _MADE["vocabulary"]


@pytest.fixture(scope="session")
def gated(tmp_path_factory: pytest.TempPathFactory, vocabulary: Path) -> tuple[Path, Path, Verdict]:
    """A clean slice and its gate folder, to be read only."""
    if "gated" not in _MADE:
        home = _MADE["gated"] = tmp_path_factory.mktemp("gated")
        write_slice(home / "slice")
        _VERDICTS["gated"] = gate(home / "slice", home / "gate", site="prova", vocabulary=vocabulary)
    home = _MADE["gated"]
    return home / "slice", home / "gate", _VERDICTS["gated"]


def counted(slice_: Path, vocabulary: Path, rejects: Path | None = None, family: str | None = None) -> dict[str, Count]:
    """Code → count of every check (or of one family) on a slice, without Great Expectations; reject files where `rejects` names a
    folder."""
    opened = open_slice(slice_)
    with duckdb.connect(config={"threads": 1}) as connection:
        defined = definitions(opened.extracted_to)
        counter = Counter(of_slice(connection, opened, open_vocabulary(vocabulary), defined), defined)
        wanted = [check for check in defined.at("site") if family in (None, check.family)]
        counts = counter.count(checks=wanted)
        for count in counts if rejects else ():
            if count.numerator and not count.check.structural:
                counter.reject(count, rejects / f"{count.check.code}.parquet")
    return {count.check.code: count for count in counts}


def broken(counts: dict[str, Count]) -> dict[str, str]:
    """Code → WARN or BLOCK of the checks that do not pass."""
    verdicts = {code: count.verdict for code, count in counts.items()}
    return {code: verdict for code, verdict in verdicts.items() if verdict != "PASS"}
