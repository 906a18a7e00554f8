"""Real FHIR that no one here wrote goes the same way: 41 Synthea patients and 2 mCODE bundles, through the same DAG."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.shared import SHARED, needs_shared

pytestmark = [
    pytest.mark.long,
    needs_shared("fhir_synthea"),
    needs_shared("fhir_mcode"),
    needs_shared("vocabulary_eunomia"),
]
SITES = {"synthea": "fhir_synthea", "mcode": "fhir_mcode"}


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("real")
    sites = root / "sites"
    sites.mkdir()
    for site, folder in SITES.items():
        (sites / f"{site}.toml").write_text(
            f'vocabulary = "{SHARED}/data/vocabulary_eunomia"\n'
            # invented people: their ids stay, so that the ledger can be held against the files
            f'[[source]]\nkind = "fhir_files"\npath = "{SHARED}/data/{folder}"\npseudonyms = "hospital"\n'
        )
    environment = os.environ | {"PALMARES_SITES": str(sites), "AIRFLOW_HOME": str(root / "airflow")}
    conf = json.dumps({"home": str(root / "home"), "sites": sorted(SITES)})
    words = [sys.executable, "-m", "omop_etl.run_dag", "site_submission", conf]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode in (0, 5), (done.stdout + done.stderr)[-3000:]
    return root / "home"


def manifest(home: Path, site: str) -> dict[str, Any]:
    return json.loads((home / "sites" / site / "slice" / "manifest.json").read_text())


@pytest.mark.parametrize("site", sorted(SITES))
def test_every_stage_up_to_the_gate_is_done(home: Path, site: str) -> None:
    events = [json.loads(line) for line in (home / "events.ndjson").read_text().splitlines()]
    done = {event["stage"] for event in events if event["state"] == "done" and event["subject"].split("/")[0] == site}
    assert {"extract", "land", "validate", "map", "gate"} <= done
    verdict = json.loads((home / "sites" / site / "gate" / "verdict.json").read_text())
    assert verdict["verdict"] in ("PASS", "WARN", "BLOCK")
    assert ("submit" in done) == (verdict["verdict"] != "BLOCK")


@pytest.mark.parametrize("site", sorted(SITES))
def test_the_ledger_balances(home: Path, site: str, tmp_path: Path) -> None:
    tool = SHARED / "tools" / "check_ledger.py"
    for path in (SHARED / "data" / SITES[site]).glob("*.json"):
        document = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(document, list):  # the tool reads Bundles and resources; the mCODE files are arrays of either
            document = {
                "resourceType": "Bundle",
                "type": "collection",
                "entry": [{"resource": one} for one in document],
            }
        (tmp_path / path.name).write_text(json.dumps(document), encoding="utf-8")
    words = [sys.executable, str(tool), "--fhir", str(tmp_path)]
    done = subprocess.run([*words, "--slice", str(home / "sites" / site / "slice")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("site", "persons"), [("synthea", 40), ("mcode", 2)])
def test_every_patient_is_a_person(home: Path, site: str, persons: int) -> None:
    table = home / "sites" / site / "slice" / "person.parquet"
    assert duckdb.sql(f"SELECT count(DISTINCT person_id) >= {persons} FROM '{table}'").fetchone() == (True,)


def test_the_mapped_share_of_codes_is_reported_and_high(home: Path) -> None:
    assert manifest(home, "synthea")["mapped_share"] > 0.9
