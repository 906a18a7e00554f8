"""A private FHIR server for a test: `medplum/server.js` on a free port, killed at the end; skipped with a reason where it cannot run."""

import json
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

FOLDER = Path(__file__).with_name("medplum")


def needs_server() -> pytest.MarkDecorator:
    """A mark that skips where node or the server's packages are absent."""
    if shutil.which("node") is None:
        reason = "node is not on the path"
    else:
        reason = "the test server's packages are absent: npm ci --prefix tests/servers/medplum"
    able = shutil.which("node") is not None and (FOLDER / "node_modules" / "@medplum" / "fhir-router").is_dir()
    return pytest.mark.skipif(not able, reason=reason)


class Server:
    """A running server; `url` is its FHIR base."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}/fhir"

    def load(self, resources: Iterable[dict[str, Any]]) -> None:
        """Store resources as they are; one with `meta.lastUpdated` keeps it, another gets the server's clock."""
        text = "\n".join(json.dumps(resource) for resource in resources)
        httpx.post(f"http://127.0.0.1:{self.port}/load", content=text.encode(), timeout=60).raise_for_status()

    def remove(self, kind: str, identifier: str) -> None:
        httpx.post(f"http://127.0.0.1:{self.port}/remove/{kind}/{identifier}").raise_for_status()

    def options(self, **options: Any) -> None:
        httpx.post(f"http://127.0.0.1:{self.port}/options", content=json.dumps(options)).raise_for_status()

    def holds(self, *kinds: str) -> list[dict[str, Any]]:
        """All that the server holds of these types, as its own search gives it (no sign-in)."""
        found = []
        for kind in kinds:
            bundle = httpx.get(f"{self.url}/{kind}?_count=100000", timeout=60).json()
            found += [entry["resource"] for entry in bundle.get("entry", [])]
        return found


@contextmanager
def medplum(**options: Any) -> Iterator[Server]:
    """Start a server with these options (see server.js) and stop it."""
    process = subprocess.Popen(
        ["node", str(FOLDER / "server.js"), json.dumps(options)], stdout=subprocess.PIPE, cwd=FOLDER, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield Server(json.loads(line)["port"])
    finally:
        process.kill()
        process.communicate()
