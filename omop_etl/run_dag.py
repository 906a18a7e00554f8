"""Run one DAG of `dags/` in this process: `python -m omop_etl.run_dag DAG_ID '{"home": …}'`.

For the demo and the tests, which need no scheduler: settings go to the environment before Airflow is imported, the metadata
database (SQLite) is made when it is not there, and `dag.test()` runs every task in order. Exit code: 0 when the run
succeeded, 5 when it ended with failed tasks.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

from fhir_adapters.errors import Exit


def airflow_settings(home: str | Path) -> dict[str, str]:
    """The environment that makes this project's Airflow: its DAGs, SQLite below `home`, short waits before a retry."""
    return {
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags_folder()),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "1",
        "AIRFLOW__CORE__MAX_TASK_RETRY_DELAY": "5",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{Path(home) / 'airflow.db'}",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(Path(home) / "logs"),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }


def dags_folder() -> Path:
    """Where the DAG files stand: beside the packages."""
    return Path(__file__).resolve().parents[1] / "dags"


def load_dag(dag_id: str) -> Any:
    """The DAG object of `dags/<dag_id>.py`."""
    from airflow.sdk import DAG

    path = dags_folder() / f"{dag_id}.py"
    spec = importlib.util.spec_from_file_location(dag_id, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[dag_id] = module
    spec.loader.exec_module(module)
    return next(value for value in vars(module).values() if isinstance(value, DAG) and value.dag_id == dag_id)


def main() -> int:
    """Run the DAG named on the command line with the configuration beside it."""
    dag_id, conf = sys.argv[1], json.loads(sys.argv[2])
    home = Path(os.environ["AIRFLOW_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    os.environ.update(airflow_settings(home))
    if not (home / "airflow.db").exists():
        from airflow.utils.db import initdb

        initdb()
    run = load_dag(dag_id).test(run_conf=conf)
    return 0 if run.state == "success" else int(Exit.BLOCKED)


if __name__ == "__main__":
    sys.exit(main())
