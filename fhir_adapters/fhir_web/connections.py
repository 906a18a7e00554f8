"""Where secrets come from: an Airflow Connection, by its environment variable or, in a task, from Airflow itself.

A site's TOML names a connection and holds no secret. `AIRFLOW_CONN_<NAME>` is Airflow's own form, so that one setting serves the
scheduler and the command line: JSON, or a URL.

    AIRFLOW_CONN_EHR='{"login": "palmares", "password": "…"}'                      client id (or user) and its secret
    AIRFLOW_CONN_EHR='{"login": "palmares", "extra": {"private_key_file": "/etc/palmares/ehr.jwk"}}'

In `extra`: `private_key` (PEM, or a JWK) or `private_key_file` (the same in a file that only its owner may read), `key_id`.
"""

import json
import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from fhir_adapters.errors import PalmaresError


@dataclass(frozen=True)
class Connection:
    """What a connection holds; its secrets are never shown."""

    name: str
    login: str = ""
    password: str = field(default="", repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def secret(self) -> str:
        """The password (a client's secret, a bearer token). Raises E-FHIR-10 when there is none."""
        if not self.password:
            raise PalmaresError("E-FHIR-10", self.name, detail="it has no password")
        return self.password

    def private_key(self) -> str:
        """The private key as text: PEM, or a JWK as JSON. Raises E-FHIR-10 (there is none), E-KEY-02 (others may read it)."""
        given = self.extra.get("private_key")
        if given:
            return given if isinstance(given, str) else json.dumps(given)
        file = self.extra.get("private_key_file")
        if not isinstance(file, str) or not file:
            raise PalmaresError("E-FHIR-10", self.name, detail="its extra has neither private_key nor private_key_file")
        path = Path(file)
        try:
            if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise PalmaresError("E-KEY-02", path.name, path=path)
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise PalmaresError("E-FHIR-10", self.name, detail="its private_key_file cannot be read") from None


def connection(name: str) -> Connection:
    """The connection of this name. Raises E-FHIR-10 when there is none, or it cannot be read."""
    text = os.environ.get(f"AIRFLOW_CONN_{name.upper()}") if name else None
    if text:
        return _parsed(name, text)
    held = _of_airflow(name) if name else None
    if held is None:
        raise PalmaresError("E-FHIR-10", name or "connection")
    return held


def _parsed(name: str, text: str) -> Connection:
    wrong = PalmaresError("E-FHIR-10", name, detail="it is neither JSON nor a URL")
    if text.lstrip().startswith("{"):
        try:
            document = json.loads(text)
            extra = document.get("extra") or {}
            extra = json.loads(extra) if isinstance(extra, str) else extra
        except ValueError:
            raise wrong from None
        if not isinstance(extra, dict):
            raise wrong
        return Connection(name, str(document.get("login") or ""), str(document.get("password") or ""), extra)
    try:
        parts = urlsplit(text)
    except ValueError:
        raise wrong from None
    if not parts.scheme or "://" not in text:
        raise wrong
    return Connection(name, unquote(parts.username or ""), unquote(parts.password or ""), dict(parse_qsl(parts.query)))


def _of_airflow(name: str) -> Connection | None:
    """From Airflow's secrets, inside a task; Airflow is not imported for it anywhere else."""
    if "airflow.sdk" not in sys.modules:
        return None
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowException

    try:
        held = BaseHook.get_connection(name)
    except AirflowException:
        return None
    return Connection(name, held.login or "", held.password or "", held.extra_dejson)
