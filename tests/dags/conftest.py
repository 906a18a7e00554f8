"""Airflow reads its settings when it is first imported: each test process gets a home of its own, before that."""

import os
import tempfile

from omop_etl.run_dag import airflow_settings

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="palmares-airflow-"))
os.environ.update(airflow_settings(os.environ["AIRFLOW_HOME"]))
