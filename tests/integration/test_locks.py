"""Locks: sealed, verified to the byte, made again, compared."""

import hashlib
import json
import shutil
import stat
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import duckdb
import pytest

from fhir_adapters.errors import PalmaresError
from omop_etl.locks import Lock, create, listing, rebuild, verify
from omop_etl.locks.create import _nothing_later
from omop_etl.locks.place import at_work, lock_folder
from tests.lock_helpers import deliver

pytestmark = pytest.mark.long

CUT_OFF = date(2024, 6, 30)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    deliver(home, "prova", 14, home / "first")
    deliver(home, "altra", 12, home / "second", extracted_to="2024-05-31")
    return home


@pytest.fixture(scope="module")
def lock(home: Path) -> Lock:
    return create(home, "lock-1", cut_off=CUT_OFF)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_a_lock_holds(home: Path, lock: Lock) -> None:
    folder = home / "locks" / "lock-1"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {path.name for path in folder.iterdir()} == {
        "manifest.json",
        "CITATION.txt",
        "datasets",
        "cohort",
        "derived",
    }
    assert lock.datasets["baseline"] == 26
    assert [(site["site"], site["extracted_to"]) for site in manifest["sites"]] == [
        ("altra", "2024-05-31"), ("prova", "2024-12-31"),
    ]  # fmt: skip
    assert lock.extracted_before_cut_off == {"altra": "2024-05-31"}
    for part in ("mappings", "code", "environment", "vocabulary"):
        assert len(manifest[part]["sha256"]) == 64
    assert manifest["environment"]["packages"]["duckdb"] == duckdb.__version__
    assert "omop_etl/locks/create.py" in manifest["code"]["files"]
    assert "studies/palmares2/study.toml" in manifest["mappings"]["files"]
    assert any(path.startswith("prova/slice/person.parquet") for path in manifest["inputs"])
    for path, about in manifest["files"].items():
        assert hashlib.sha256((folder / path).read_bytes()).hexdigest() == about["sha256"]
    assert manifest["cut_off"] == "2024-06-30"
    assert not any(str(home) in path.read_text(errors="replace") for path in files(folder))


def test_how_it_is_cited(home: Path, lock: Lock) -> None:
    text = (home / "locks" / "lock-1" / "CITATION.txt").read_text()
    assert lock.sha256 in text
    assert lock.sha256 == hashlib.sha256((home / "locks" / "lock-1" / "manifest.json").read_bytes()).hexdigest()
    for words in ("NCT06805812", "Data lock lock-1", "cut-off 2024-06-30", "2 sites", "2024-05-31 to 2024-12-31"):
        assert words in text


def test_it_is_sealed(home: Path, lock: Lock) -> None:
    folder = home / "locks" / "lock-1"
    for path in [folder, *folder.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert not mode & 0o222, path
        if path != folder and path.relative_to(folder).parts[0] in ("cohort", "derived"):
            assert not mode & 0o007, path
    assert not (home / "locks" / ".work").exists()


def test_it_is_in_the_list(home: Path, lock: Lock) -> None:
    (one,) = [one for one in listing(home) if one["name"] == "lock-1"]
    assert (one["cut_off"], one["study"], one["sites"]) == ("2024-06-30", "palmares2", 2)
    assert one["manifest_sha256"] == lock.sha256


def test_it_verifies(home: Path, lock: Lock) -> None:
    assert verify(home, "lock-1").sound
    assert verify(home, "lock-1").files == lock.files


@pytest.fixture
def copy(home: Path, lock: Lock, tmp_path: Path) -> Iterator[Path]:
    """A copy of the workspace's locks that a test may harm."""
    shutil.copytree(home / "locks", tmp_path / "locks")
    for path in [tmp_path / "locks", *(tmp_path / "locks").rglob("*")]:
        path.chmod(0o700)
    yield tmp_path
    shutil.rmtree(tmp_path / "locks")


def test_any_byte_that_changes_is_found(copy: Path) -> None:
    """In every file: those of the lock, the manifest, the citation, the register, the kept inputs; first, middle, last byte."""
    places = [copy / "locks" / "lock-1", copy / "locks" / ".inputs"]
    every = [copy / "locks" / "register.ndjson", *(path for place in places for path in files(place))]
    assert len(every) > 60
    assert verify(copy, "lock-1").sound
    for path in every:
        raw = path.read_bytes()
        for at in {0, len(raw) // 2, len(raw) - 1} if raw else set():
            path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
            assert not verify(copy, "lock-1").sound, (path.name, at)
        path.write_bytes(raw + b"\n")
        assert not verify(copy, "lock-1").sound, path.name
        path.write_bytes(raw)
    register = copy / "locks" / "register.ndjson"
    raw = register.read_bytes()
    for at in range(len(raw)):  # also of its last line, after which there is none
        register.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        assert verify(copy, "lock-1").problems, at
    register.write_bytes(raw.replace(b": ", b":  ", 1))
    assert verify(copy, "lock-1").problems
    register.write_bytes(raw)
    manifest = copy / "locks" / "lock-1" / "manifest.json"
    raw = manifest.read_bytes()
    for at in range(0, len(raw), 499):  # what is JSON still may be no manifest
        manifest.write_bytes(raw[:at] + bytes([raw[at] ^ 2]) + raw[at + 1 :])
        assert not verify(copy, "lock-1").sound, at
    manifest.write_bytes(raw)
    assert verify(copy, "lock-1").sound


@pytest.mark.parametrize("what", ["added", "added folder", "gone", "link", "linked folder", "manifest and citation"])
def test_what_was_added_removed_or_swapped_is_found(what: str, copy: Path) -> None:
    folder = copy / "locks" / "lock-1"
    target = folder / "datasets" / "baseline.csv"
    if what == "added":
        (folder / "datasets" / "more.csv").write_text("a\n")
    elif what == "added folder":
        (folder / "more").mkdir()
    elif what == "gone":
        target.unlink()
    elif what == "link":
        target.rename(copy / "aside.csv")
        target.symlink_to(copy / "aside.csv")
    elif what == "linked folder":
        (folder / "datasets").rename(copy / "aside")
        (folder / "datasets").symlink_to(copy / "aside")
    else:  # a forger who also makes the citation fit: the register tells
        from omop_etl.locks.citation import citation

        text = (folder / "manifest.json").read_text().replace("2024-12-31", "2024-12-30")
        (folder / "manifest.json").write_text(text)
        (folder / "CITATION.txt").write_text(citation(text))
    assert verify(copy, "lock-1").problems


def test_a_register_line_that_was_dropped_is_found(copy: Path) -> None:
    (copy / "locks" / "register.ndjson").write_text("")
    assert verify(copy, "lock-1").problems == ["not in register.ndjson"]


def test_a_name_is_used_once(home: Path, lock: Lock) -> None:
    before = {path: path.stat().st_mtime_ns for path in files(home / "locks" / "lock-1")}
    with pytest.raises(PalmaresError) as raised:
        create(home, "lock-1", cut_off=CUT_OFF)
    assert raised.value.code == "E-LOCK-01"
    assert {path: path.stat().st_mtime_ns for path in files(home / "locks" / "lock-1")} == before


@pytest.mark.parametrize("name", ["", ".", "..", "../escape", "a/b", ".hidden", "-x", "a b", "a\n", "x" * 65, "lück"])
def test_a_name_that_is_none(name: str, tmp_path: Path) -> None:
    with pytest.raises(PalmaresError) as raised:
        lock_folder(tmp_path, name)
    assert raised.value.code == "E-LOCK-02"


def test_what_is_asked_of_no_lock(home: Path, lock: Lock, tmp_path: Path) -> None:
    for work in (lambda: verify(home, "none"), lambda: rebuild(home, "none")):
        with pytest.raises(PalmaresError) as raised:
            work()
        assert raised.value.code == "E-LOCK-03"
        assert "lock-1" in str(raised.value)
    with pytest.raises(PalmaresError) as raised:
        create(tmp_path, "lock-1", cut_off=CUT_OFF)
    assert raised.value.code == "E-BUILD-03"
    assert not (tmp_path / "locks" / "lock-1").exists()
    assert listing(tmp_path) == []


def test_a_cut_off_that_nobody_saw(home: Path, lock: Lock) -> None:
    with pytest.raises(PalmaresError) as raised:
        create(home, "late", cut_off=date(2025, 6, 1))
    assert raised.value.code == "E-LOCK-08"
    assert not (home / "locks" / "late").exists()
    assert len((home / "locks" / "register.ndjson").read_text().splitlines()) == 1


def test_one_is_made_at_a_time(home: Path, lock: Lock) -> None:
    with at_work(home), pytest.raises(PalmaresError) as raised:
        create(home, "lock-2", cut_off=CUT_OFF)
    assert raised.value.code == "E-LOCK-09"


def test_nothing_is_dated_after_the_cut_off(home: Path, lock: Lock) -> None:
    folder = home / "locks" / "lock-1"
    ends = duckdb.sql(f"SELECT max(end_date) FROM '{folder}/derived/endpoint.parquet'").fetchall()[0][0]
    assert ends <= CUT_OFF  # visits of November and a death of December 2024 stand in the records
    deaths = duckdb.sql(f"SELECT count(death_date) FROM '{folder}/cohort/persons.parquet'").fetchall()[0][0]
    assert deaths == 0
    _nothing_later(folder, CUT_OFF)
    with pytest.raises(PalmaresError) as raised:
        _nothing_later(folder, date(2019, 5, 15))
    assert raised.value.code == "E-LOCK-04"
    assert raised.value.count


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("lines", "next_line_day"), ("lines", "os_days"), ("lines", "entry_day"), ("baseline", "sample_day"),
        ("baseline", "days_to_death_or_last_contact"), ("analyses", "start_day"), ("time_to_event", "entry_day"), ("meds", "time"),
    ],
)  # fmt: skip
def test_every_released_day_is_held_against_the_cut_off(name: str, column: str, copy: Path) -> None:
    folder = copy / "locks" / "lock-1"
    path = folder / "datasets" / ("meds/data/0.parquet" if name == "meds" else f"{name}.parquet")
    late = "TIMESTAMP '2090-01-01'" if name == "meds" else "9999"
    where = "code <> 'PALMARES//INDEX' AND time IS NOT NULL" if name == "meds" else "TRUE"
    changed = f"SELECT * REPLACE (CASE WHEN {where} THEN {late} END AS {column}) FROM '{path}'"
    if name == "meds":
        changed = f"SELECT * REPLACE (CASE WHEN {where} THEN {late} ELSE time END AS time) FROM '{path}'"
    duckdb.sql(f"COPY ({changed}) TO '{copy}/changed.parquet'")
    shutil.copyfile(copy / "changed.parquet", path)
    with pytest.raises(PalmaresError) as raised:
        _nothing_later(folder, CUT_OFF)
    assert (raised.value.code, raised.value.subject) == ("E-LOCK-04", f"{name}/{column}")


def test_it_is_made_again_to_the_byte_whatever_the_intake_holds_by_then(home: Path, lock: Lock, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(home, other)
    deliver(other, "prova", 3, tmp_path / "third")
    shutil.rmtree(other / "centre" / "intake" / "altra")
    found = rebuild(other, "lock-1")
    assert (found.identical, found.different) == (True, [])
    assert not (other / "locks" / ".work").exists()


def test_made_again_with_other_rules_it_says_what_differs(
    home: Path, lock: Lock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fhir_adapters.knowledge import mappings_folder

    shutil.copytree(mappings_folder(), tmp_path / "mappings")
    study = tmp_path / "mappings" / "studies" / "palmares2" / "study.toml"
    study.write_text(study.read_text().replace("ecog_days = { value = 30", "ecog_days = { value = 2"))
    monkeypatch.setenv("PALMARES_MAPPINGS", str(tmp_path / "mappings"))
    found = rebuild(home, "lock-1")
    assert not found.identical
    assert "datasets/baseline.parquet" in found.different
    assert "mappings: studies/palmares2/study.toml" in found.changed_since
    assert verify(home, "lock-1").sound


@pytest.mark.parametrize("key", ["inputs", "sites", "code", "vocabulary", "files"])
def test_a_manifest_that_lacks_a_part_is_found(key: str, copy: Path) -> None:
    manifest = copy / "locks" / "lock-1" / "manifest.json"
    for value in (None, {}, {"a": {}}, [1]):
        about = json.loads(manifest.read_text())
        manifest.write_text(json.dumps(about | {key: value}))
        assert verify(copy, "lock-1").problems


def test_an_input_that_is_gone(copy: Path) -> None:
    files(copy / "locks" / ".inputs")[0].unlink()
    with pytest.raises(PalmaresError) as raised:
        rebuild(copy, "lock-1")
    assert raised.value.code == "E-LOCK-06"
    assert any(problem.startswith("input gone") for problem in verify(copy, "lock-1").problems)


def test_a_disk_that_cannot_be_written(home: Path, lock: Lock, tmp_path: Path) -> None:
    shutil.copytree(home / "centre", tmp_path / "centre")
    (tmp_path / "locks").write_text("a file stands where the folder is to be")
    with pytest.raises(PalmaresError) as raised:
        create(tmp_path, "lock-1", cut_off=CUT_OFF)
    assert raised.value.code == "E-DISK-02"
    assert {path.name for path in tmp_path.iterdir()} == {"centre", "locks"}


def test_the_verbs(home: Path, lock: Lock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from omop_etl.cli import app

    def run(*words: str) -> tuple[int, str, BaseException | None]:
        result = CliRunner().invoke(app, ["lock", *words])
        return result.exit_code, result.output, result.exception

    code, text, _ = run("list", "--home", str(home), "--json")
    assert code == 0
    assert [one["name"] for one in json.loads(text)["locks"]] == ["lock-1"]
    monkeypatch.setenv("PALMARES_HOME", str(home))
    code, text, _ = run("verify", "lock-1")
    assert code == 0
    assert "problems: 0" in text
    assert "lock-1" in run("list")[1]
    code, text, _ = run("diff", "lock-1", "lock-1", "--json")
    assert json.loads(text)["patients"]["stayed"] == 26
    for words, number in (
        (("verify", "none"), "E-LOCK-03"),
        (("create", "a b", "--cut-off", "2024-06-30"), "E-LOCK-02"),
        (("create", "lock-1", "--cut-off", "2024-06-30"), "E-LOCK-01"),
        (("diff", "lock-1", "none"), "E-LOCK-03"),
        (("rebuild", "none"), "E-LOCK-03"),
        (("create", "x", "--cut-off", "2024-06-30", "--study", "none"), "E-STUDY-01"),
    ):
        error = run(*words)[2]
        assert isinstance(error, PalmaresError), words
        assert error.code == number
    assert run("create", "x", "--cut-off", "soon")[0] == 2
    monkeypatch.delenv("PALMARES_HOME")
    error = run("list")[2]
    assert isinstance(error, PalmaresError)
    assert error.code == "E-HOME-01"
    assert not (home / "locks" / "x").exists()
