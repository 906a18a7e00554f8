"""The main job, run once per test process: 5 hospitals, 300 patients, through the real DAGs."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PALMARES = str(Path(sys.executable).parent / "palmares")


@dataclass(frozen=True)
class Demo:
    """What `palmares demo` wrote and said."""

    out: Path
    answer: dict[str, Any]
    errors: str

    @property
    def home(self) -> Path:
        return self.out / "workspace"

    @property
    def truth(self) -> Path:
        return self.out / "hospitals" / "truth"

    @property
    def sites(self) -> list[str]:
        return [line["site"] for line in self.answer["sites"]]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    out = tmp_path_factory.mktemp("demo")
    done = subprocess.run([PALMARES, "demo", "--out", str(out), "--json"], capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-2000:]
    return Demo(out, json.loads(done.stdout), done.stderr)
