"""Where a hospital's database is: the Airflow Connection of that name, as a SQLAlchemy URL.

`AIRFLOW_CONN_<NAME>` holds it in Airflow's own forms, a URL or JSON; inside a task a connection that Airflow keeps is asked for.
"""

import json
import os
import sys
from typing import Any

import sqlalchemy

from fhir_adapters.errors import PalmaresError

# Airflow's types of connection and the driver that is installed for them; any other is SQLAlchemy's own word
_DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mssql": "mssql+pyodbc",
    "sqlite": "sqlite",
}


def database_url(url: str) -> str:
    """Airflow's `postgres://…` as SQLAlchemy calls it, with the driver that is installed; any other URL as it is."""
    scheme, separator, rest = url.partition("://")
    return f"{_DRIVERS.get(scheme, scheme)}{separator}{rest}"


def database(connection: str, subject: str) -> sqlalchemy.URL:
    """The database's address. Raises E-TAB-03 when there is no connection, or it is none of a database."""
    text = os.environ.get(f"AIRFLOW_CONN_{connection.upper()}") if connection else None
    if not text and connection:
        text = _of_airflow(connection)
    if not text:
        raise PalmaresError("E-TAB-03", subject, detail="neither the environment nor Airflow has its connection")
    try:
        if text.lstrip().startswith("{"):
            return _of_json(json.loads(text))
        return sqlalchemy.make_url(database_url(text))
    except (ValueError, TypeError, KeyError, AttributeError, sqlalchemy.exc.ArgumentError):
        raise PalmaresError("E-TAB-03", subject, detail="its connection is neither JSON nor a URL") from None


def _of_json(held: dict[str, Any]) -> sqlalchemy.URL:
    extra = held.get("extra") or {}
    extra = json.loads(extra) if isinstance(extra, str) else extra
    kind = str(held["conn_type"])
    return sqlalchemy.URL.create(
        str(extra.pop("sqlalchemy_driver", "") or _DRIVERS.get(kind, kind)),
        username=held.get("login") or None,
        password=held.get("password") or None,
        host=held.get("host") or None,
        port=int(held["port"]) if held.get("port") else None,
        database=held.get("schema") or None,
        query={str(name): str(value) for name, value in extra.items() if isinstance(value, str | int)},
    )


def _of_airflow(name: str) -> str | None:
    """From Airflow's secrets, inside a task; Airflow is not imported for it anywhere else."""
    if "airflow.sdk" not in sys.modules:
        return None
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowException

    try:
        held = BaseHook.get_connection(name)
    except AirflowException:
        return None
    fields = ("conn_type", "login", "password", "host", "port", "schema", "extra")
    return json.dumps({field: getattr(held, field, None) for field in fields})
