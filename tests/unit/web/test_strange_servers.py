"""Answers that no server should give: what comes of them is a numbered error or a count, never a crash and never a value."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from fhir_adapters.errors import PalmaresError
from tests.web_helpers import NAME, extract, holds_nothing_of

ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from([NAME, "next", "Patient", "match", "outcome", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["url", "relation", "type", "code", "id", "request", "resource"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
ENTRY = ANY | st.fixed_dictionaries({}, optional={"resource": ANY, "search": ANY, "fullUrl": ANY}) | st.builds(
    lambda rest, identifier: {"resource": {"resourceType": "Patient", "id": identifier, **rest}},
    st.dictionaries(st.sampled_from(["meta", "name", "birthDate", "identifier", "contained"]), ANY, max_size=3),
    ANY,
)  # fmt: skip
BUNDLE = st.fixed_dictionaries(
    {"resourceType": st.just("Bundle")},
    optional={"entry": ANY | st.lists(ENTRY, max_size=4), "link": ANY, "total": ANY},
)
MANIFEST = st.fixed_dictionaries(
    {"transactionTime": ANY | st.just("2024-01-01T00:00:00Z")},
    optional={"output": ANY, "deleted": ANY, "error": ANY, "link": ANY, "requiresAccessToken": ANY},
)
STATEMENT = st.fixed_dictionaries(
    {"resourceType": st.just("CapabilityStatement")},
    optional={
        "fhirVersion": ANY,
        "rest": ANY | st.lists(st.fixed_dictionaries({"resource": ANY, "interaction": ANY}), max_size=2),
    },
)


class Script(BaseHTTPRequestHandler):
    """Answers by path what the example says."""

    said: ClassVar[dict[str, Any]] = {}
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        port = self.server.server_address[1]
        kick_off = "$export" in self.path
        name = "metadata" if "metadata" in self.path else "job" if "/job" in self.path else "page"
        body = b"" if kick_off else json.dumps(self.said[name]).encode()
        self.send_response(202 if kick_off else 200)
        self.send_header("Content-Length", str(len(body)))
        if kick_off:
            self.send_header("Content-Location", f"http://127.0.0.1:{port}/job/1")
        self.end_headers()
        self.wfile.write(body)

    do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Script)
    server.daemon_threads = True
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def tried(url: str, kind: str, folder: Path, **said: Any) -> None:
    Script.said = said
    given = {"kind": kind, "url": url, "tries": 1, "types": ["Patient"], "parallel": 1}
    try:
        extract(folder / "out", given)
    except PalmaresError as error:
        assert NAME not in str(error)
    holds_nothing_of(folder, NAME)


SOUND = {"resourceType": "CapabilityStatement", "rest": [{"resource": [{"type": "Patient"}]}]}
RARE = hypothesis(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))


@given(bundle=BUNDLE)
@RARE
def test_pages(url: str, tmp_path_factory: pytest.TempPathFactory, bundle: Any) -> None:
    tried(url, "fhir_server", tmp_path_factory.mktemp("page"), metadata=SOUND, page=bundle)


@given(statement=STATEMENT | ANY)
@RARE
def test_statements(url: str, tmp_path_factory: pytest.TempPathFactory, statement: Any) -> None:
    page = {"resourceType": "Bundle", "total": 0}
    tried(url, "fhir_server", tmp_path_factory.mktemp("statement"), metadata=statement, page=page)


@given(manifest=MANIFEST | ANY, page=BUNDLE | ANY)
@RARE
def test_manifests(url: str, tmp_path_factory: pytest.TempPathFactory, manifest: Any, page: Any) -> None:
    if isinstance(manifest, dict) and page != 0:
        manifest = {
            "output": [{"type": "Patient", "url": f"{url}/file"}],
            "deleted": [{"url": f"{url}/file"}],
            **manifest,
        }
    tried(url, "fhir_bulk", tmp_path_factory.mktemp("manifest"), metadata=SOUND, job=manifest, page=page)
