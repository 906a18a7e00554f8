"""The centre takes in what was sent, whole and unchanged, and keeps what it had when anything is wrong."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from fhir_adapters.errors import Exit, PalmaresError
from omop_etl.gates import Verdict
from omop_etl.gates.slices import file_hash
from omop_etl.submission import receive, submit
from omop_etl.submission.contents import SUBMISSION, number_of

Gated = tuple[Path, Path, Verdict]


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory, gated: Gated) -> Path:
    folder = tmp_path_factory.mktemp("sent") / "submission"
    submit(gated[0], gated[1], folder)
    return folder


@pytest.fixture
def submission(sent: Path, tmp_path: Path) -> Path:
    """A copy that a test may tamper with."""
    return Path(shutil.copytree(sent, tmp_path / "submission"))


def document(folder: Path) -> dict[str, Any]:
    return json.loads((folder / SUBMISSION).read_text())


def names(folder: Path) -> list[str]:
    return [entry["path"] for entry in document(folder)["files"]]


def content(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): file_hash(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def refused(submission: Path, intake: Path, code: str) -> PalmaresError:
    before = content(intake) if intake.exists() else None
    with pytest.raises(PalmaresError) as raised:
        receive(submission, intake)
    assert raised.value.code == code, str(raised.value)
    assert str(intake) not in str(raised.value), "the error is about what was sent"
    assert (content(intake) if intake.exists() else None) == before or not before
    return raised.value


def test_it_is_taken_in_as_it_was_sent(submission: Path, tmp_path: Path) -> None:
    receipt = receive(submission, tmp_path / "intake")
    assert (receipt.site, receipt.verdict, receipt.already) == ("prova", "PASS", False)
    assert content(tmp_path / "intake" / "prova") == content(submission)
    assert [path.name for path in (tmp_path / "intake").iterdir()] == ["prova"]


def test_receiving_twice_changes_nothing(submission: Path, tmp_path: Path) -> None:
    receive(submission, tmp_path / "intake")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "intake").rglob("*")}
    again = receive(submission, tmp_path / "intake")
    assert again.already
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "intake").rglob("*")} == times


def test_a_damaged_intake_is_mended_by_receiving_again(submission: Path, tmp_path: Path) -> None:
    receive(submission, tmp_path / "intake")
    (tmp_path / "intake" / "prova" / "slice" / "person.parquet").write_bytes(b"rot")
    assert not receive(submission, tmp_path / "intake").already
    assert content(tmp_path / "intake" / "prova") == content(submission)


def test_every_file_is_held_against_its_hash(sent: Path, tmp_path: Path) -> None:
    """Each file of a submission in turn: one bit."""
    intake = tmp_path / "intake"
    receive(sent, intake)
    submission = tmp_path / "submission"
    shutil.copytree(sent, submission)
    for name in names(sent):
        path = submission / name
        whole = path.read_bytes()
        changed = bytearray(whole)
        changed[len(whole) // 2] ^= 1
        path.write_bytes(bytes(changed))
        # told as a newer one, so that it is not simply taken for the one that is there
        assert name in str(refused_as_newer(submission, intake, "E-RECEIVE-03"))
        path.write_bytes(whole)
    assert content(intake / "prova") == content(sent)


def refused_as_newer(submission: Path, intake: Path, code: str) -> PalmaresError:
    told = document(submission)
    (submission / SUBMISSION).write_text(json.dumps(told | {"made_at": "2031-01-01T00:00:00+00:00"}))
    try:
        return refused(submission, intake, code)
    finally:
        (submission / SUBMISSION).write_text(json.dumps(told))


@pytest.mark.parametrize("name", ["verdict.json", "checks.parquet", "slice/person.parquet", "slice/unmapped.csv"])
def test_a_file_that_is_cut_short_or_missing(name: str, submission: Path, tmp_path: Path) -> None:
    path = submission / name
    path.write_bytes(path.read_bytes()[:-1])
    assert name in str(refused(submission, tmp_path / "intake", "E-RECEIVE-03"))
    path.unlink()
    assert name in str(refused(submission, tmp_path / "intake", "E-RECEIVE-02"))


def test_a_link_is_no_file(submission: Path, tmp_path: Path) -> None:
    path = submission / "slice" / "person.parquet"
    elsewhere = tmp_path / "person.parquet"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    refused(submission, tmp_path / "intake", "E-RECEIVE-02")


@pytest.mark.parametrize(
    "name", ["slice/side/trace.parquet", "slice/extra.parquet", "notes.txt", ".x", "rejects/G-X.parquet"]
)
def test_a_file_that_was_not_announced(name: str, submission: Path, tmp_path: Path) -> None:
    (submission / name).parent.mkdir(exist_ok=True)
    (submission / name).write_text("x")
    refused(submission, tmp_path / "intake", "E-RECEIVE-04")


@pytest.mark.requirement("f2o-024")
@pytest.mark.parametrize("name", ["slice/side/trace.parquet", "../../etc/passwd", "/etc/passwd", "slice/../../x"])
def test_a_file_that_no_submission_holds_is_not_taken_even_when_announced(
    name: str, submission: Path, tmp_path: Path
) -> None:
    told = document(submission)
    told["files"].append({"path": name, "bytes": 1, "sha256": "0" * 64})
    (submission / SUBMISSION).write_text(json.dumps(told))
    refused(submission, tmp_path / "intake", "E-RECEIVE-04")


Tell = Callable[[dict[str, Any]], Any]
WRONG: dict[str, tuple[Tell, str]] = {
    "another format": (lambda told: told.update(format=2), "E-RECEIVE-01"),
    "no site": (lambda told: told.pop("site"), "E-RECEIVE-01"),
    "a site that is a path": (lambda told: told.update(site="../altra"), "E-RECEIVE-01"),
    "another site": (lambda told: told.update(site="altra"), "E-RECEIVE-01"),
    "another number": (lambda told: told.update(number="0" * 16), "E-RECEIVE-01"),
    "no files": (lambda told: told.update(files=[]), "E-RECEIVE-01"),
    "files that are no list": (lambda told: told.update(files="all"), "E-RECEIVE-01"),
    "a size that is a word": (lambda told: told["files"][0].update(bytes="many"), "E-RECEIVE-01"),
    "a file twice": (lambda told: told["files"].append(told["files"][0]), "E-RECEIVE-01"),
    "without the ledger": (
        lambda told: told.update(files=[one for one in told["files"] if "ledger" not in one["path"]]),
        "E-RECEIVE-04",
    ),
    "another verdict": (lambda told: told.update(verdict="WARN"), "E-RECEIVE-05"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_document_that_does_not_fit(what: str, submission: Path, tmp_path: Path) -> None:
    change, code = WRONG[what]
    told = document(submission)
    change(told)
    (submission / SUBMISSION).write_text(json.dumps(told))
    refused(submission, tmp_path / "intake", "E-RECEIVE-01" if what == "without the ledger" else code)


@pytest.mark.parametrize("text", [None, "", "{", "[]", '"x"'])
def test_a_folder_that_is_no_submission(text: str | None, tmp_path: Path) -> None:
    (tmp_path / "submission").mkdir()
    if text is not None:
        (tmp_path / "submission" / SUBMISSION).write_text(text)
    refused(tmp_path / "submission", tmp_path / "intake", "E-RECEIVE-01")
    assert not (tmp_path / "intake").exists()


def resealed(submission: Path) -> None:
    """Hash everything anew, as one would who has the toolkit and wants a bad slice in."""
    told = document(submission)
    for entry in told["files"]:
        path = submission / entry["path"]
        entry |= {"bytes": path.stat().st_size, "sha256": file_hash(path)}
    from omop_etl.submission.contents import content_of_manifest

    hashes = {entry["path"]: entry["sha256"] for entry in told["files"]}
    manifest = json.loads((submission / "slice" / "manifest.json").read_text())
    told["number"] = number_of(hashes | {"slice/manifest.json": content_of_manifest(manifest)})
    (submission / SUBMISSION).write_text(json.dumps(told))


def rewrite(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))


def test_a_table_that_was_changed_after_the_gate(submission: Path, tmp_path: Path) -> None:
    path = submission / "slice" / "death.parquet"
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE death AS FROM '{path}' LIMIT 0")
        connection.execute(f"COPY death TO '{path}' (FORMAT parquet)")
    resealed(submission)
    error = refused(submission, tmp_path / "intake", "E-RECEIVE-05")
    assert error.exit_code == Exit.BLOCKED
    assert "another slice" in str(error)


BENT: dict[str, Tell] = {
    "a BLOCK that is called PASS": lambda told: told["checks"][0].update(numerator=5, denominator=5),
    "a verdict that is not the worst": lambda told: told["checks"][0].update(verdict="WARN"),
    "no counts": lambda told: told["checks"][0].pop("numerator"),
    "counts that are words": lambda told: told["checks"][0].update(numerator="none"),
    "another site": lambda told: told.update(site="altra"),
}


@pytest.mark.parametrize("what", BENT)
def test_a_verdict_that_was_bent(what: str, submission: Path, tmp_path: Path) -> None:
    rewrite(submission / "verdict.json", BENT[what])
    resealed(submission)
    refused(submission, tmp_path / "intake", "E-RECEIVE-05")


def test_a_block_does_not_come_in(submission: Path, tmp_path: Path) -> None:
    def block(told: dict[str, Any]) -> None:
        told["checks"][0].update(numerator=5, denominator=5, block=0, verdict="BLOCK")
        told.update(verdict="BLOCK")

    rewrite(submission / "verdict.json", block)
    rewrite(submission / SUBMISSION, lambda told: told.update(verdict="BLOCK"))
    resealed(submission)
    assert "BLOCK" in str(refused(submission, tmp_path / "intake", "E-RECEIVE-05"))


def test_a_table_with_other_columns(submission: Path, tmp_path: Path) -> None:
    path = submission / "slice" / "person.parquet"
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE person AS SELECT *, 'x' AS codice_fiscale FROM '{path}'")
        connection.execute(f"COPY person TO '{path}' (FORMAT parquet)")
    resealed(submission)
    error = refused(submission, tmp_path / "intake", "E-SLICE-03")
    assert "codice_fiscale is not of the CDM" in str(error)
    assert str(submission) in str(error)


def test_a_new_submission_replaces_the_old_one(sent: Path, tmp_path: Path, gated: Gated) -> None:
    receive(sent, tmp_path / "intake")
    newer = tmp_path / "newer"
    slice_ = Path(shutil.copytree(gated[0], tmp_path / "slice"))
    rewrite(slice_ / "manifest.json", lambda told: told.update(run={"seconds": 5}))
    submit(slice_, gated[1], newer)
    receipt = receive(newer, tmp_path / "intake")
    assert not receipt.already
    assert content(tmp_path / "intake" / "prova") == content(newer)
