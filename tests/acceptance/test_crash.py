"""Killed (SIGKILL) at any stage and run again, the way ends in the same state, and what stood before stayed readable."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

from omop_etl.stages import CENTRAL_STAGES, SITE_STAGES
from omop_etl.synthetic import generate

pytestmark = pytest.mark.long

WAY = """
import sys
from pathlib import Path
from omop_etl import stages
from omop_etl.config import load_site

home, wanted = Path(sys.argv[1]), sys.argv[2].split(",")
place = stages.SitePlace(home, load_site("site01"))
centre = stages.CentrePlace(home)
steps = {
    "extract": lambda: [stages.extract(place, n) for n in range(len(place.site.sources))],
    "land": lambda: stages.land(place, sorted(place.extracted.iterdir()), full=True),
    "validate": lambda: stages.validate(place),
    "map": lambda: stages.map_(place),
    "gate": lambda: stages.gate(place),
    "submit": lambda: stages.submit(place),
    "receive": lambda: stages.receive(centre, place.submission),
    "build": lambda: stages.build(centre),
    "derive": lambda: stages.derive(centre, "palmares2"),
    "cohort": lambda: stages.cohort(centre, "palmares2"),
    "publish": lambda: stages.publish(centre, "palmares2"),
    "report": lambda: stages.report(centre, "palmares2"),
}
for name in wanted:
    steps[name]()
"""
NAMES = [stage.name for stage in (*SITE_STAGES, *CENTRAL_STAGES)]


def start(home: Path, sites: Path, *names: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", WAY, str(home), ",".join(names)],
        env=os.environ | {"PALMARES_SITES": str(sites)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def content(home: Path) -> dict[str, object]:
    """What the workspace holds, without times of execution: rows of each table, text of each other file."""
    found: dict[str, object] = {}
    for path in sorted(path for path in home.rglob("*") if path.is_file()):
        name = str(path.relative_to(home))
        if "data_docs" in name or name.endswith(("manifest.json", "events.ndjson", ".png", ".svg", "submission.json")):
            continue
        if path.suffix == ".parquet":
            found[name] = sorted(map(str, duckdb.sql(f"SELECT * FROM '{path}'").fetchall()))
        elif path.suffix == ".duckdb":
            with duckdb.connect(str(path), read_only=True) as warehouse:
                tables = warehouse.sql(
                    "SELECT table_schema || '.' || table_name FROM information_schema.tables"
                ).fetchall()
                found[name] = {t: sorted(map(str, warehouse.sql(f"FROM {t}").fetchall())) for (t,) in sorted(tables)}
        elif path.suffix in (".csv", ".ndjson"):
            found[name] = path.read_text(encoding="utf-8")
    return found


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("crash")
    generate(root / "hospitals", sites=1, patients=24, seed=7, dirty=False, jobs=1)
    home = root / "home"
    child = start(home, root / "hospitals" / "sites", *NAMES)
    _, errors = child.communicate(timeout=300)
    assert child.returncode == 0, errors.decode()[-2000:]
    return home, root / "hospitals" / "sites"


@pytest.mark.parametrize("name", NAMES)
def test_killed_and_run_again(reference: tuple[Path, Path], name: str, tmp_path: Path) -> None:
    whole, sites = reference
    home = tmp_path / "home"
    shutil.copytree(whole, home)
    log = home / "events.ndjson"
    before = content(home)
    log.unlink()
    child = start(home, sites, name)
    while not (log.exists() and b'"begun"' in log.read_bytes()):
        assert child.poll() is None, child.stderr.read().decode()[-2000:] if child.stderr else ""
        time.sleep(0.005)
    # in the middle of the work, not before it: a share of the stage's time in the whole run
    time.sleep(0.6 * usual_seconds(whole, name))
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
    warehouse = home / "centre" / "warehouse.duckdb"
    with duckdb.connect(str(warehouse), read_only=True) as reader:
        assert reader.sql("SELECT count(*) FROM person").fetchone() == (24,), "the warehouse stays readable"
    # derive puts eras and episodes into what build made: the centre's way goes on from where it was killed
    central = [stage.name for stage in CENTRAL_STAGES]
    again = start(home, sites, *(central[central.index(name) :] if name in central else [name]))
    _, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors.decode()[-2000:]
    assert content(home) == before
    leftovers = [path for path in home.rglob(".*") if path.name.endswith((".partial", ".previous"))]
    assert not leftovers


def usual_seconds(home: Path, name: str) -> float:
    events = [json.loads(line) for line in (home / "events.ndjson").read_text().splitlines()]
    return sum(event["seconds"] for event in events if event["stage"] == name and event["state"] == "done")
