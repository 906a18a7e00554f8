"""A lock that is killed while it is made: none is left, and the next one is made as if nothing had been."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from omop_etl.locks import listing, verify
from omop_etl.locks.place import remove
from tests.lock_helpers import deliver

pytestmark = pytest.mark.long

# the child kills itself, as the machine would: no handler runs
MAKE = """
import os, signal, sys
from datetime import date
from pathlib import Path
from omop_etl.locks import create

def step(name):
    if name.startswith(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

create(Path(sys.argv[1]), "lock", cut_off=date(2024, 6, 30), progress=step)
"""


def make(home: Path, until: str) -> int:
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(
        [sys.executable, "-c", MAKE, str(home), until], env=os.environ | {"PYTHONPATH": str(root)}, check=False
    ).returncode


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    deliver(home, "prova", 12, home / "first")
    return home


def test_killed_at_any_step_it_leaves_nothing_and_the_next_one_is_whole(home: Path) -> None:
    for step in ("build the warehouse", "publish lines", "seal"):
        assert make(home, step) == -signal.SIGKILL, step
        assert listing(home) == [], step
        assert not (home / "locks" / "lock").exists(), step
        assert not (home / "locks" / "register.ndjson").exists(), step
    assert make(home, "nothing is called so") == 0
    assert verify(home, "lock").sound
    assert not (home / "locks" / ".work").exists()
    assert {path.name for path in (home / "locks").iterdir()} == {".busy", ".inputs", "register.ndjson", "lock"}
    (line,) = (home / "locks" / "register.ndjson").read_text().splitlines()
    assert json.loads(line)["name"] == "lock"
    remove(home / "locks")
