"""`palmares demo`: hospitals that do not exist, through the real Airflow DAGs, to a released cohort, and what to open then.

The DAGs run in one child process (`dag.test()`, SQLite), so that Airflow's log goes to a file and its settings to nobody
else. The parent shows how far it is by reading the workspace's event log.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fhir_adapters.errors import Exit, PalmaresError
from omop_etl.orchestration import site_lines
from omop_etl.stages import CENTRAL_STAGES, SITE_STAGES, CentrePlace


def run(out: Path, *, sites: int, patients: int, seed: int, as_json: bool = False) -> int:
    """Generate, run both DAGs, print the tables. Returns the exit code: 0, or 1 when a stage failed that should not have."""
    from rich.console import Console

    from omop_etl.synthetic import generate

    console = Console(stderr=True)
    started = time.monotonic()
    out = out.resolve()
    hospitals, home = out / "hospitals", out / "workspace"
    console.print(f"[bold]1/3[/] {sites} synthetic hospitals with {patients} patients → {hospitals}")
    generate(hospitals, sites=sites, patients=patients, seed=seed, formats="mixed")
    names = sorted(path.stem for path in (hospitals / "sites").glob("*.toml"))
    seconds = {"generate": time.monotonic() - started}

    for number, (dag, stages) in enumerate((("site_submission", SITE_STAGES), ("central_release", CENTRAL_STAGES)), 2):
        console.print(f"[bold]{number}/3[/] Airflow DAG {dag}: {' → '.join(stage.name for stage in stages)}")
        begun = time.monotonic()
        state = _run_dag(dag, out, home, names, console)
        seconds[dag] = time.monotonic() - begun
        if dag == "central_release" and state != "success":
            raise PalmaresError("E-DEMO-01", dag, log=out / "airflow" / f"{dag}.log")
    seconds["all"] = time.monotonic() - started
    _report(out, home, hospitals, names, seconds, as_json)
    return 0


def _run_dag(dag: str, out: Path, home: Path, sites: list[str], console: Any) -> str:
    """Run one DAG in a child process, with its log in a file; returns the state of the run."""
    airflow = out / "airflow"
    airflow.mkdir(parents=True, exist_ok=True)
    conf = {"home": str(home)} | ({"sites": sites} if dag == "site_submission" else {})
    settings = out / "hospitals" / "sites"
    environment = os.environ | {
        "PALMARES_SITES": str(settings),
        "PALMARES_LINKAGE_KEY": (settings / "keys" / "linkage.key").read_text(encoding="ascii").strip(),
        "AIRFLOW_HOME": str(airflow),
    }
    log = airflow / f"{dag}.log"
    events = home / "events.ndjson"
    seen = events.stat().st_size if events.exists() else 0
    with log.open("wb") as lines:
        child = subprocess.Popen(
            [sys.executable, "-m", "omop_etl.run_dag", dag, json.dumps(conf)],
            stdout=lines,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        with console.status("Airflow starts …") as status:
            while child.poll() is None:
                seen = _follow(events, seen, status, console)
                time.sleep(0.3)
            _follow(events, seen, status, console)
    if child.returncode not in (0, int(Exit.BLOCKED)):
        raise PalmaresError("E-DEMO-01", dag, log=log)
    return "success" if child.returncode == 0 else "failed"


def _follow(events: Path, seen: int, status: Any, console: Any) -> int:
    """Show the events that came since byte `seen`: the step at work, and every failure as it comes."""
    if not events.exists():
        return seen
    with events.open("rb") as lines:
        lines.seek(seen)
        text = lines.read()
    whole = text.rfind(b"\n") + 1
    for line in text[:whole].splitlines():
        event = json.loads(line)
        if event["state"] == "begun":
            status.update(f"{event['subject']}: {event['stage']} …")
        elif event["state"] == "failed":
            console.print(f"  [yellow]{event['subject']}: {event['stage']} failed[/]: {event.get('error', '')}")
    return seen + whole


def _report(out: Path, home: Path, hospitals: Path, names: list[str], seconds: dict[str, float], as_json: bool) -> None:
    """What a person wants to see at the end: a line per site, the attrition, the paths to open, the time it took."""
    centre = CentrePlace(home)
    lines = site_lines(home, names)
    attrition = json.loads((centre.cohort / "attrition.json").read_text(encoding="utf-8"))
    paths = {
        "Data Docs": next(iter(sorted(home.glob("sites/*/gate/data_docs/index.html"))), home),
        "quality of all sites": centre.quality / "index.html",
        "attrition picture": centre.cohort / "attrition.png",
        "warehouse": centre.warehouse,
        "dataset": centre.release / "baseline.parquet",
        "dictionary": centre.release / "dictionary.html",
        "truth": hospitals / "truth",
        "Airflow's logs": out / "airflow",
    }
    if as_json:
        answer = {"sites": lines, "attrition": attrition, "paths": paths, "seconds": seconds}
        sys.stdout.write(json.dumps(answer, default=str) + "\n")
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title="Sites", title_justify="left")
    columns = ("site", "resources", "rows", "unmapped", "excluded", "quarantined", "verdict")
    for column in columns:
        table.add_column(column, justify="left" if column in ("site", "verdict") else "right")
    for line in lines:
        cells = [line[column] for column in columns]
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells))
    console.print(table)
    steps = Table(title="Attrition", title_justify="left")
    for column in ("criterion", "out", "left"):
        steps.add_column(column, justify="left" if column == "criterion" else "right")
    for step in attrition["steps"]:
        steps.add_row(step["sentence"], str(step["excluded"]), str(step["left"]))
    console.print(steps)
    for name, path in paths.items():
        console.print(f"{name:18} {path}", soft_wrap=True)
    console.print(f'In one line: pandas.read_parquet("{paths["dataset"]}")', soft_wrap=True)
    console.print("Seconds: " + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()))
