"""What the machine does to a landing: a kill, a full disk, a folder that cannot be written, a dead worker."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

from fhir_adapters.errors import PalmaresError
from fhir_adapters.landing import land
from fhir_adapters.processes import in_order
from tests.landing_helpers import contents, ndjson

ROOT = Path(__file__).resolve().parents[3]
_PATIENT = b'{"resourceType":"Patient","id":"%d","x":"' + b"y" * 1000 + b'"}'


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 MB, so that a pool works on it."""
    folder = tmp_path_factory.mktemp("large")
    ndjson(folder / "in" / "Patient.ndjson", (_PATIENT % n for n in range(40_000)))
    return folder / "in"


def _start(source: Path, out: Path) -> subprocess.Popen:
    script = (
        "import sys; from pathlib import Path; from fhir_adapters.landing import land\n"
        "if __name__ == '__main__':\n"
        "    land([Path(sys.argv[1])], Path(sys.argv[2]), jobs=2)\n"
        "    print('landed')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", script, str(source), str(out)], env=environment, stdout=subprocess.PIPE
    )


def _descendants(process: int) -> set[int]:
    children = Path(f"/proc/{process}/task/{process}/children")
    try:
        found = {int(word) for word in children.read_text().split()}
    except OSError:
        return set()
    return found | {pid for child in found for pid in _descendants(child)}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to see the workers")
@pytest.mark.parametrize("moment", [0.0, 0.15])
def test_killed_in_the_middle_it_leaves_the_former_folder(tmp_path: Path, large: Path, moment: float) -> None:
    out = tmp_path / "landed"
    ndjson(tmp_path / "in" / "Patient.ndjson", [{"resourceType": "Patient", "id": "former"}])
    land([tmp_path / "in"], out)
    former = contents(out)
    process = _start(large, out)
    partial = tmp_path / ".landed.partial"
    until = time.monotonic() + 30
    while not any(partial.glob(".parts/*/*")) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(moment)
    workers = _descendants(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    if process.returncode == -signal.SIGKILL:
        assert contents(out) == former or b'"files": 1' in contents(out)["manifest.json"]
        assert len(orjson.loads((out / "manifest.json").read_bytes())["shards"]) >= 1
    until = time.monotonic() + 10
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < until:
        time.sleep(0.02)
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()], "a worker outlives its parent"
    # run again, it ends as if nothing had happened
    result = land([large], out, jobs=2)
    assert result.resources == {"Patient": 40_000}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "landed"]


def _mounted(folder: Path, options: str) -> bool:
    folder.mkdir()
    if os.geteuid() != 0:
        return False
    return (
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True).returncode
        == 0
    )


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_full_disk(tmp_path: Path, large: Path, jobs: int) -> None:
    disk = tmp_path / "disk"
    if not _mounted(disk, "size=8m"):
        pytest.skip("a small disk can only be mounted by root with the right to mount")
    try:
        out = disk / "landed"
        ndjson(tmp_path / "in" / "Patient.ndjson", [{"resourceType": "Patient", "id": "former"}])
        land([tmp_path / "in"], out)
        former = contents(out)
        with pytest.raises(PalmaresError) as caught:
            land([large], out, jobs=jobs)
        assert caught.value.code == "E-DISK-01"
        assert contents(out) == former
        assert [path.name for path in disk.iterdir()] == ["landed"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    ndjson(tmp_path / "in" / "Patient.ndjson", [{"resourceType": "Patient", "id": "1"}])
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "landed"):
        with pytest.raises(PalmaresError) as caught:
            land([tmp_path / "in"], out)
        assert caught.value.code == "E-DISK-02"
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_read_only_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    if not _mounted(disk, "size=1m,ro"):
        pytest.skip("a read-only disk can only be mounted by root with the right to mount")
    try:
        ndjson(tmp_path / "in" / "Patient.ndjson", [{"resourceType": "Patient", "id": "1"}])
        with pytest.raises(PalmaresError) as caught:
            land([tmp_path / "in"], disk / "landed")
        assert caught.value.code == "E-DISK-02"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _die(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def _double(number: int) -> int:
    return 2 * number


def test_a_killed_worker_is_a_numbered_error() -> None:
    with pytest.raises(PalmaresError) as caught:
        list(in_order(_die, range(6), jobs=2, subject="source"))
    assert caught.value.code == "E-LAND-06"


def test_results_come_in_the_order_of_the_tasks() -> None:
    assert list(in_order(_double, range(30), jobs=2, subject="source")) == [2 * n for n in range(30)]
