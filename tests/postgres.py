"""A private PostgreSQL cluster for a test: its own data folder, a free port on 127.0.0.1, stopped at the end.

from tests.postgres import needs_postgresql, postgresql      # postgresql is a module-scoped fixture

@needs_postgresql
def test_it(postgresql):
    with psycopg.connect(postgresql.dsn) as connection: ...
"""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_VERSIONS = Path("/usr/lib/postgresql")
USER = "palmares"


def _programs() -> Path | None:
    """The newest installed PostgreSQL's programs."""
    found = sorted(_VERSIONS.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def _reason_why_not() -> str | None:
    if _programs() is None:
        return "PostgreSQL is not installed"
    if os.geteuid() == 0 and (shutil.which("runuser") is None or not _has_user("postgres")):
        return "PostgreSQL does not start as root and there is no user postgres to run it"
    return None


def _has_user(name: str) -> bool:
    return subprocess.run(["id", name], capture_output=True, check=False).returncode == 0


needs_postgresql = pytest.mark.skipif(_reason_why_not() is not None, reason=_reason_why_not() or "")


@dataclass(frozen=True)
class Cluster:
    """Where a running cluster answers."""

    port: int
    database: str = "postgres"

    @property
    def dsn(self) -> str:
        """For psycopg and ADBC."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{self.database}"

    @property
    def sqlalchemy_url(self) -> str:
        """For SQLAlchemy, by psycopg 3."""
        return self.dsn.replace("postgresql://", "postgresql+psycopg://", 1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _run(*words: str) -> None:
    as_postgres = ("runuser", "-u", "postgres", "--") if os.geteuid() == 0 else ()
    done = subprocess.run([*as_postgres, *words], capture_output=True, text=True, cwd="/", check=False)
    if done.returncode:
        raise RuntimeError(f"{Path(words[0]).name} failed: {done.stderr.strip()[-500:]}")


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A new, empty cluster that lives as long as the block. Its folder is short-lived and readable by nobody else."""
    programs = _programs()
    assert programs is not None, _reason_why_not()
    # not below pytest's tmp_path: the folders above that are closed to the user postgres
    root = Path(tempfile.mkdtemp(prefix="palmares-postgresql-"))
    if os.geteuid() == 0:
        shutil.chown(root, "postgres")
    data, port = root / "data", _free_port()
    try:
        _run(
            str(programs / "initdb"),
            "-D",
            str(data),
            "-U",
            USER,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        )
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories= -c fsync=off -c jit=off"
        _run(str(programs / "pg_ctl"), "-D", str(data), "-w", "-l", str(root / "log"), "-o", options, "start")
        try:
            yield Cluster(port)
        finally:
            _run(str(programs / "pg_ctl"), "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Cluster]:
    """One cluster for all tests of a module."""
    with cluster() as running:
        yield running
