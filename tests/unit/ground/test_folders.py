"""A folder is written whole or not at all."""

from pathlib import Path

import pytest

from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import whole_file, whole_folder


def write(folder: Path, text: str) -> None:
    with whole_folder(folder) as partial:
        (partial / "a").write_text(text)


def test_a_new_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    write(out, "1")
    (out / "stale").touch()
    write(out, "2")
    assert (out / "a").read_text() == "2"
    assert not (out / "stale").exists()
    assert [path.name for path in out.parent.iterdir()] == ["out"], "nothing is left beside it"


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "1")
    with pytest.raises(RuntimeError), whole_folder(out) as partial:
        (partial / "a").write_text("half")
        raise RuntimeError
    assert (out / "a").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_run_killed_between_its_two_renames_is_mended_by_the_next(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "1")
    out.rename(tmp_path / ".out.previous")
    (tmp_path / ".out.partial").mkdir()
    with pytest.raises(RuntimeError), whole_folder(out):
        assert (out / "a").read_text() == "1", "the old state is back before new work begins"
        raise RuntimeError
    assert (out / "a").read_text() == "1"


def test_a_file_in_the_way_is_a_numbered_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(PalmaresError, match="E-DISK-02"), whole_folder(tmp_path / "out"):
        pass
    (tmp_path / "file").write_text("mine")
    with pytest.raises(PalmaresError, match="E-DISK-02"), whole_folder(tmp_path / "file" / "out"):
        pass
    assert (tmp_path / "out").read_text() == "mine"


def test_a_file_is_replaced_only_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "w.duckdb"
    out.write_text("old")
    with pytest.raises(RuntimeError), whole_file(out) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert out.read_text() == "old"
    with whole_file(out) as partial:
        partial.write_text("new")
        assert out.read_text() == "old"
    assert out.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["w.duckdb"]
