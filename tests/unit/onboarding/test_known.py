"""The hospital's own list of identifiers, as it is read."""

import csv
from pathlib import Path

from omop_etl.onboarding import read_known


def test_a_list_of_long_values_changes_nothing_for_other_readers(tmp_path: Path) -> None:
    path = tmp_path / "known.csv"
    path.write_text("kind,value\nname," + "x" * 200_000 + "\n")
    path.chmod(0o600)
    before = csv.field_size_limit()
    assert len(read_known(path)) == 1
    assert csv.field_size_limit() == before
