"""A real `$export` (Medplum's store behind the test server's face), with the faults of networks and servers in between.

After each fault, what landed is what the server holds.
"""

import gzip
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_adapters.errors import PalmaresError
from tests.servers.faults import Faults
from tests.servers.medplum_server import Server, medplum, needs_server
from tests.web_helpers import NAME, TYPES, expected, extract, holds_nothing_of, landed, records, settings

pytestmark = [pytest.mark.long, needs_server()]
LEAKS = (NAME, "MRN-", "SECRET")


@pytest.fixture(scope="module")
def held() -> Iterator[Server]:
    with medplum(exportRows=50) as running:
        running.load(records(24))
        yield running


@pytest.fixture
def server(held: Server) -> Iterator[Server]:
    yield held
    held.options(totals=True, polls=1, pollAfter="0", linkLife=None, exportErrors=None, expiredStatus=None)


@pytest.fixture
def proxy(server: Server) -> Iterator[Faults]:
    with Faults(server.port) as running:
        yield running


SOME = ("Observation", "Patient")
HELD: dict[tuple[str, ...], list[bytes]] = {}


def all_there(out: Path, server: Server, kinds: tuple[str, ...] = SOME) -> None:
    if kinds not in HELD:
        HELD[kinds] = expected(server.holds(*kinds))
    assert landed(out, out.parent / "landed") == HELD[kinds]
    holds_nothing_of(out.parent, *LEAKS)


def export(out: Path, url: str, **more: Any) -> Any:
    """An export of two types, which is enough for most tests."""
    previous, full = more.pop("previous", None), more.pop("full", False)
    return extract(
        out, settings(url, "fhir_bulk", **{"level": "system", "types": list(SOME)} | more), previous=previous, full=full
    )


def test_all_of_it(server: Server, proxy: Faults, tmp_path: Path) -> None:
    done = export(tmp_path / "out", proxy.url, types=list(TYPES))
    all_there(tmp_path / "out", server, TYPES)
    assert done.resources == {
        "Condition": 24,
        "Medication": 1,
        "MedicationRequest": 24,
        "Observation": 120,
        "Patient": 24,
    }
    assert done.full
    assert not list(tmp_path.glob(".*spool"))
    assert proxy.asked("/job/", "DELETE") == 1, "the server may let the files go"
    asked = next(headers for _, path, headers in proxy.requests if "$export" in path)
    assert asked["Prefer"] == "respond-async"


def plain(body: bytes) -> bytes:
    return gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body


def shorter(body: bytes) -> bytes:
    """Without the last two lines."""
    return b"\n".join(plain(body).split(b"\n")[:-3]) + b"\n"


FAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "the kick-off is throttled": (r"\$export", {"status": 429, "headers": {"Retry-After": "0"}}),
    "the status is throttled": (r"/job/", {"status": 503, "headers": {"Retry-After": "0"}}),
    "the manifest is cut off": (r"/job/", {"cut": 0.5, "after": 1}),
    "a file is throttled": (r"/file/", {"status": 429, "headers": {"Retry-After": "0"}, "after": 2}),
    "a file is dropped": (r"/file/", {"drop": 0.5}),
    "a file is cut off as if it were all": (r"/file/", {"cut": 0.6}),
    "a file has lost its last lines": (r"/file/.*/1", {"edit_bytes": lambda body: gzip.compress(shorter(body))}),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_heals(server: Server, proxy: Faults, tmp_path: Path, fault: str) -> None:
    pattern, what = FAULTS[fault]
    hit = proxy.add(pattern, **what)
    export(tmp_path / "out", proxy.url)
    assert hit.hit
    all_there(tmp_path / "out", server)


@pytest.mark.parametrize(
    "form",
    [
        ("plain", {"Content-Encoding": "identity"}, plain),
        ("a gzip file without its header", {"Content-Encoding": "identity"}, lambda body: body),
        ("no newline at the end", {"Content-Encoding": "identity"}, lambda body: plain(body).rstrip(b"\n")),
        ("two gzip members", {}, lambda body: gzip.compress(plain(body)[:900]) + gzip.compress(plain(body)[900:])),
    ],
    ids=lambda form: form[0],
)
def test_forms_of_files(server: Server, proxy: Faults, tmp_path: Path, form: Any) -> None:
    _, headers, edit = form
    proxy.add(r"/file/", times=99, headers=headers, edit_bytes=edit)
    export(tmp_path / "out", proxy.url)
    all_there(tmp_path / "out", server)


def test_cut_off_without_any_sign_but_the_lines(server: Server, proxy: Faults, tmp_path: Path) -> None:
    """Plain, no count in the manifest, cut off in the middle of a line: the last line tells."""
    server.options(totals=False)
    proxy.add(r"/file/", headers={"Content-Encoding": "identity"}, edit_bytes=lambda body: plain(body)[:-30])
    export(tmp_path / "out", proxy.url)
    all_there(tmp_path / "out", server)


def test_files_that_stay_short(server: Server, proxy: Faults, tmp_path: Path) -> None:
    short = {
        "headers": {"Content-Encoding": "identity"},
        "edit_bytes": lambda body: b"\n".join(plain(body).split(b"\n")[:-3]) + b"\n",
    }
    proxy.add(r"/file/.*/0", times=99, **short)
    with pytest.raises(PalmaresError) as caught:
        export(tmp_path / "out", proxy.url, tries=2)
    assert (caught.value.code, caught.value.subject, caught.value.count) == ("E-FHIR-05", "Observation", 2)
    assert not (tmp_path / "out").exists()


def test_lines_that_are_no_json_are_counted_and_nothing_of_them_passes(
    server: Server, proxy: Faults, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    from fhir_adapters.landing import land

    bad = (
        f'{{"resourceType":"Condition","note":"{NAME}\n{{"resourceType":"Condition","id":"c0","id":"c0"}}\n7\n'.encode()
    )
    proxy.add(r"/file/.*/0", headers={"Content-Encoding": "identity"}, edit_bytes=lambda body: bad + plain(body))
    done = export(tmp_path / "out", proxy.url)
    assert done.skipped == {"no-resource": 3}
    land([tmp_path / "out"], tmp_path / "landed")
    quarantined = pq.read_table(tmp_path / "landed" / "quarantine.parquet").column("reason").to_pylist()
    assert sorted(quarantined) == ["Q-JSON", "Q-OBJECT"], "a key that stands twice is refused by the mapping"
    holds_nothing_of(tmp_path, *LEAKS)


# --------------------------------------------------------------------------------------------------- links and jobs


def test_expired_links_are_renewed_by_the_status(server: Server, proxy: Faults, tmp_path: Path) -> None:
    server.options(linkLife=150)
    proxy.add(r"/file/", delay=0.2, times=1)
    done = export(tmp_path / "out", proxy.url, parallel=1)
    assert done.more["links_renewed"] >= 1
    assert proxy.asked(r"\$export") == 1
    all_there(tmp_path / "out", server)


@pytest.mark.parametrize("status", [403, 410])
def test_a_job_that_is_gone_is_started_anew(server: Server, proxy: Faults, tmp_path: Path, status: int) -> None:
    proxy.add(r"/file/.*/3", status=status)
    proxy.add(r"/job/", after=2, status=404)
    export(tmp_path / "out", proxy.url)
    assert proxy.asked(r"\$export") == 2
    all_there(tmp_path / "out", server)


def test_a_job_that_failed_is_started_anew(server: Server, proxy: Faults, tmp_path: Path) -> None:
    proxy.add(r"/job/", status=500, times=2, body=b'{"resourceType":"OperationOutcome","issue":[]}')
    export(tmp_path / "out", proxy.url, tries=2)
    assert proxy.asked(r"\$export") == 2
    all_there(tmp_path / "out", server)


def test_an_export_that_always_fails(proxy: Faults, tmp_path: Path) -> None:
    proxy.add(r"/file/", status=404, times=999)
    with pytest.raises(PalmaresError) as caught:
        export(tmp_path / "out", proxy.url)
    assert caught.value.code == "E-FHIR-09"
    assert proxy.asked(r"\$export") == 3


RUN = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tests.web_helpers import extract, settings
extract(Path(sys.argv[2]), settings(sys.argv[3], "fhir_bulk", level="system", parallel=1, types=["Observation", "Patient"]))
"""


def test_killed_in_the_middle(server: Server, proxy: Faults, tmp_path: Path) -> None:
    slow = proxy.add(r"/file/.*/3", delay=30)
    child = subprocess.Popen(
        [sys.executable, "-c", RUN, str(Path(__file__).parents[2]), str(tmp_path / "out"), proxy.url]
    )
    deadline = time.monotonic() + 30
    while not slow.hit and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    holds_nothing_of(tmp_path / ".out.spool", *LEAKS)
    slow.delay = 0
    proxy.requests.clear()
    export(tmp_path / "out", proxy.url)
    assert not proxy.asked(r"\$export"), "the job that was kicked off is gone on with"
    assert not proxy.asked(r"/file/.*/[012]$"), "files that came whole are not fetched again"
    all_there(tmp_path / "out", server)


def test_files_elsewhere_get_no_credentials(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_EHR", '{"password": "SECRET-token"}')
    with Faults(server.port) as proxy, Faults(server.port) as elsewhere:

        def moved(signed: bool) -> Any:
            def edit(manifest: dict[str, Any]) -> dict[str, Any]:
                output = [
                    one | {"url": one["url"].replace(str(proxy.port), str(elsewhere.port))}
                    for one in manifest["output"]
                ]
                return manifest | {"output": output, "requiresAccessToken": signed}

            return edit

        proxy.add(r"/job/", after=1, edit=moved(False))
        export(tmp_path / "out", proxy.url, auth="bearer", connection="ehr")
        all_there(tmp_path / "out", server)
        assert elsewhere.requests and not any("Authorization" in headers for _, _, headers in elsewhere.requests)
        assert all(headers["Authorization"] == "Bearer SECRET-token" for _, _, headers in proxy.requests)
        proxy.clear()
        elsewhere.clear()
        proxy.add(r"/job/", after=1, edit=moved(True))
        with pytest.raises(PalmaresError) as caught:
            export(tmp_path / "again", proxy.url, auth="bearer", connection="ehr")
        assert caught.value.code == "E-FHIR-03"
        assert not elsewhere.requests


# ------------------------------------------------------------------------------------------- what the server says


def test_error_files(server: Server, tmp_path: Path) -> None:
    server.options(exportErrors="processing")
    with pytest.raises(PalmaresError) as caught:
        export(tmp_path / "out", server.url)
    assert caught.value.code == "E-FHIR-08"
    assert "error processing (1)" in str(caught.value) and "SECRET" not in str(caught.value)
    done = export(tmp_path / "out", server.url, accept_errors=True)
    assert done.more["remarks"] == {"error processing": 1}
    all_there(tmp_path / "out", server)


def test_an_export_that_holds_fewer_than_the_server_counts(proxy: Faults, tmp_path: Path) -> None:
    def without(manifest: dict[str, Any]) -> dict[str, Any]:
        return manifest | {"output": [one for one in manifest["output"] if one["type"] != "Observation"]}

    proxy.add(r"/job/", after=1, edit=without)
    with pytest.raises(PalmaresError) as caught:
        export(tmp_path / "out", proxy.url)
    assert (caught.value.code, caught.value.subject, caught.value.count) == ("E-FHIR-05", "Observation", 120)


def test_a_type_that_the_server_does_not_offer(server: Server, tmp_path: Path) -> None:
    with pytest.raises(PalmaresError) as caught:
        export(tmp_path / "out", server.url, types=["Patient", "Procedure"])
    assert (caught.value.code, caught.value.subject) == ("E-FHIR-06", "Procedure")


NO_MANIFESTS = [
    b"[]",
    b'{"transactionTime":"x","output":[]}',
    b'{"transactionTime":"2024-01-01T00:00:00Z","output":[7]}',
]


@pytest.mark.parametrize("manifest", NO_MANIFESTS)
def test_a_manifest_that_is_none(proxy: Faults, tmp_path: Path, manifest: bytes) -> None:
    proxy.add(r"/job/", status=200, body=manifest)
    with pytest.raises(PalmaresError) as caught:
        export(tmp_path / "out", proxy.url)
    assert caught.value.code == "E-FHIR-04"


def test_increments_and_deletes(tmp_path: Path) -> None:
    with medplum(exportRows=50) as server, Faults(server.port) as proxy:
        server.load(records(24))
        export(tmp_path / "1", proxy.url, types=list(TYPES))
        landed(tmp_path / "1", tmp_path / "landed")
        fresh = [one for one in records(26) if one["id"] in ("o3-1", "p25", "o25-0")]
        for one in fresh:
            del one["meta"]
        server.load(fresh)
        server.remove("Condition", "c5")
        second = export(tmp_path / "2", proxy.url, types=list(TYPES), previous=tmp_path / "1")
        assert not second.full and "_since=" in next(
            path for _, path, _ in reversed(proxy.requests) if "$export" in path
        )
        assert second.resources == {"Observation": 2, "Patient": 1}
        assert second.more["deleted"] == {"Condition": 1}
        now = expected(server.holds(*TYPES))
        assert landed(tmp_path / "2", tmp_path / "landed", previous=tmp_path / "landed") == now
        server.remove("Condition", "c6")
        third = export(tmp_path / "3", proxy.url, types=list(TYPES), previous=tmp_path / "2", full=True)
        assert third.full and third.more["deleted"] == {"Condition": 1}, "a full export finds a delete by comparing"
        now = expected(server.holds(*TYPES))
        assert landed(tmp_path / "3", tmp_path / "landed", previous=tmp_path / "landed") == now


def test_record_numbers_make_the_pseudonyms(server: Server, tmp_path: Path) -> None:
    how = {"patient_identifier": "urn:test:mrn"}
    export(tmp_path / "out", server.url, types=["Observation", "Patient"], **how)
    assert landed(tmp_path / "out", tmp_path / "landed") == expected(server.holds("Observation", "Patient"), **how)


def test_outcomes_and_what_the_hospital_may_know(server: Server, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    from fhir_adapters.base import open_source
    from tests.web_helpers import KEY

    done = export(tmp_path / "out", server.url, types=list(TYPES))
    items = pq.read_table(tmp_path / "out" / "outcomes.parquet").to_pylist()
    assert sum(item["resources"] for item in items) == sum(done.resources.values()) == 193
    assert {item["item"] for item in items} >= {"Patient-0001", "Condition-0002"}
    given = settings(server.url, "fhir_bulk", level="system", types=["Patient"])
    source: Any = open_source(given, folder=tmp_path, key=KEY)
    assert ("name", NAME) in set(source.identifiers())
