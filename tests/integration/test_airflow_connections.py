"""A connection that Airflow itself keeps: asked for inside a task, as the URL of a hospital's database."""

import json
import os
import subprocess
import sys
from pathlib import Path

_BACKEND = "airflow.secrets.local_filesystem.LocalFilesystemBackend"
_PROGRAM = """
import airflow.sdk
from fhir_adapters.databases import database
from fhir_adapters.errors import PalmaresError
print("url", database("hospital", "table 1").render_as_string(hide_password=False))
try:
    database("nowhere", "table 1")
except PalmaresError as error:
    print("error", error.code)
"""


def test_a_connection_of_airflows_own(tmp_path: Path) -> None:
    held = {
        "conn_type": "postgres",
        "login": "etl",
        "password": "s3cret!",
        "host": "db.example",
        "port": 5433,
        "schema": "ecrf",
    }
    (tmp_path / "connections.json").write_text(json.dumps({"hospital": held}), encoding="utf-8")
    where = json.dumps({"connections_file_path": str(tmp_path / "connections.json")})
    environment = os.environ | {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__SECRETS__BACKEND": _BACKEND,
        "AIRFLOW__SECRETS__BACKEND_KWARGS": where,
        "AIRFLOW__WORKERS__SECRETS_BACKEND": _BACKEND,
        "AIRFLOW__WORKERS__SECRETS_BACKEND_KWARGS": where,
    }
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env=environment,
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    said = [line for line in done.stdout.splitlines() if line.startswith(("url", "error"))]
    assert said == ["url postgresql+psycopg://etl:s3cret%21@db.example:5433/ecrf", "error E-TAB-03"]
