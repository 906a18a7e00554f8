"""A real FHIR server (Medplum's router and store) read through its search, with the faults of networks and servers in between.

After each fault, what landed is what the server holds.
"""

import logging
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
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
    with medplum() as running:
        running.load(records(24))
        yield running


@pytest.fixture
def server(held: Server) -> Iterator[Server]:
    """The server that nobody writes to; its options are as at the beginning after each test."""
    yield held
    held.options(links="offset", totals=True, cap=None, history=True)


@pytest.fixture
def proxy(server: Server) -> Iterator[Faults]:
    with Faults(server.port) as running:
        yield running


SOME = ("Observation", "Patient")
HELD: dict[tuple[str, ...], list[bytes]] = {}


def held_by(server: Server, kinds: tuple[str, ...]) -> list[bytes]:
    """What should land of the server that nobody writes to; asked once."""
    if kinds not in HELD:
        HELD[kinds] = expected(server.holds(*kinds))
    return HELD[kinds]


def some(url: str, **more: Any) -> dict[str, Any]:
    """Settings that read two types, which is enough for most tests."""
    return settings(url, **{"types": list(SOME)} | more)


def all_there(out: Path, server: Server, kinds: tuple[str, ...] = SOME) -> None:
    """What landed is what the server holds, and nothing of what identifies is anywhere."""
    assert landed(out, out.parent / "landed") == held_by(server, kinds)
    holds_nothing_of(out.parent, *LEAKS)


def test_all_of_it(server: Server, tmp_path: Path) -> None:
    done = extract(tmp_path / "out", settings(server.url))
    all_there(tmp_path / "out", server, TYPES)
    assert done.resources == {
        "Condition": 24,
        "Medication": 1,
        "MedicationRequest": 24,
        "Observation": 120,
        "Patient": 24,
    }
    assert done.full and done.more["types"]["Observation"] | {"pages": 0} == {
        "pages": 0, "matches": 120, "different": 120, "counted": 120, "mended": False, "restarts": 0, "increments": True,
    }  # fmt: skip
    assert not list(tmp_path.glob(".*spool"))


# -------------------------------------------------------------------------------------------- networks and servers


def soon() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)


FAULTS: dict[str, dict[str, Any]] = {
    "429 with seconds": {"status": 429, "headers": {"Retry-After": "0"}},
    "429 with a date": {"status": 429, "headers": {"Retry-After": soon()}},
    "503": {"status": 503, "headers": {"Retry-After": "0"}},
    "500 and a page of HTML": {"status": 500, "body": b"<html>" + NAME.encode()},
    "no answer": {"drop": 0.0},
    "dropped in the middle": {"drop": 0.5},
    "cut off, as if it were all": {"cut": 0.5},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_heals(server: Server, proxy: Faults, tmp_path: Path, fault: str) -> None:
    hit = [
        proxy.add(rf"/{kind}\?.*_count=", after=after, **FAULTS[fault])
        for kind, after in (("Observation", 2), ("Patient", 0))
    ]
    extract(tmp_path / "out", some(proxy.url))
    assert all(one.hit for one in hit)
    all_there(tmp_path / "out", server)


def test_retry_after_is_kept_by_all(server: Server, proxy: Faults, tmp_path: Path) -> None:
    proxy.add(r"/Observation\?.*_count=", status=429, headers={"Retry-After": "2"})
    begun = time.monotonic()
    extract(tmp_path / "out", some(proxy.url, types=["Observation"]))
    assert time.monotonic() - begun >= 2


def test_pauses_that_the_server_asks_for_are_no_failed_tries(server: Server, proxy: Faults, tmp_path: Path) -> None:
    proxy.add(r"/Observation\?.*_count=", times=6, status=429, headers={"Retry-After": "0"})
    assert extract(tmp_path / "out", some(proxy.url, types=["Observation"], tries=2)).resources == {"Observation": 120}


def test_a_server_that_asks_for_a_longer_pause(proxy: Faults, tmp_path: Path) -> None:
    proxy.add(r"/Patient\?", times=99, status=429, headers={"Retry-After": "7200"})
    with pytest.raises(PalmaresError) as caught:
        extract(tmp_path / "out", some(proxy.url, types=["Patient"], patience_minutes=1))
    assert caught.value.code == "E-FHIR-11"


def test_what_does_not_heal_is_reported_and_the_rest_is_kept(server: Server, proxy: Faults, tmp_path: Path) -> None:
    fault = proxy.add(r"/Observation\?.*_offset=60", times=99, drop=0.0)
    with pytest.raises(PalmaresError) as caught:
        extract(tmp_path / "out", settings(proxy.url, tries=2))
    assert caught.value.code == "E-FHIR-01"
    assert not (tmp_path / "out").exists()
    fault.times = 0
    proxy.requests.clear()
    extract(tmp_path / "out", settings(proxy.url))
    assert not proxy.asked(r"/(Patient|Condition)\?"), "types that came whole are not asked for again"
    assert proxy.asked(r"/Observation\?.*_count=") == 3, "of six pages the three that were missing"
    all_there(tmp_path / "out", server, TYPES)


RUN = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tests.web_helpers import extract, settings
extract(Path(sys.argv[2]), settings(sys.argv[3], types=["Observation", "Patient"]))
"""


def test_killed_in_the_middle(server: Server, proxy: Faults, tmp_path: Path) -> None:
    slow = proxy.add(r"/Observation\?.*_offset=80", delay=30)
    root = str(Path(__file__).parents[2])
    child = subprocess.Popen([sys.executable, "-c", RUN, root, str(tmp_path / "out"), proxy.url])
    deadline = time.monotonic() + 30
    spool = tmp_path / ".out.spool"
    ready = {
        "Patient": b'"done":true',
        "Observation": b"_offset=80",
    }  # what the journals hold when the page before it is safe
    while time.monotonic() < deadline:
        journals = {name: spool / f"{name}.journal" for name in ready}
        if slow.hit and all(path.exists() and ready[name] in path.read_bytes() for name, path in journals.items()):
            break
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert stat.S_IMODE(spool.stat().st_mode) == 0o700
    holds_nothing_of(spool, *LEAKS)
    with (spool / "Observation.ndjson").open("ab") as torn:
        torn.write(b'{"resourceType":"Observation","id":"half of a p')  # what a kill in the middle of a write leaves
    slow.delay = 0
    proxy.requests.clear()
    extract(tmp_path / "out", some(proxy.url, types=["Observation", "Patient"]))
    assert not proxy.asked(r"/Patient\?")
    assert proxy.asked(r"/Observation\?.*_count=") == 2, "of six pages the two that were missing"
    assert landed(tmp_path / "out", tmp_path / "landed") == expected(server.holds("Observation", "Patient"))
    assert not spool.exists()


def test_interrupted_while_the_server_wants_a_pause(proxy: Faults, tmp_path: Path) -> None:
    """Ctrl-C, or Airflow's wish to end, is not held up by threads that wait for the server."""
    slow = proxy.add(r"/Observation\?.*_count=", times=99, status=503, headers={"Retry-After": "600"})
    child = subprocess.Popen(
        [sys.executable, "-c", RUN, str(Path(__file__).parents[2]), str(tmp_path / "out"), proxy.url],
        # a shell's background job ignores the interrupt, and hands that down
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 30
    while not slow.hit and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    os.kill(child.pid, signal.SIGINT)
    assert child.wait(timeout=20) != 0
    assert not (tmp_path / "out").exists()


def test_a_search_that_the_server_has_forgotten_begins_anew(server: Server, proxy: Faults, tmp_path: Path) -> None:
    proxy.add(r"/Observation\?.*_offset=60", status=410, body=b'{"resourceType":"OperationOutcome","issue":[]}')
    done = extract(tmp_path / "out", some(proxy.url))
    assert done.more["types"]["Observation"]["restarts"] == 1
    all_there(tmp_path / "out", server)


# ------------------------------------------------------------------------------------------- pages that lose some


def without_first(bundle: dict[str, Any]) -> dict[str, Any]:
    return bundle | {"entry": bundle["entry"][1:]}


def repeated(bundle: dict[str, Any]) -> dict[str, Any]:
    return bundle | {"entry": [*bundle["entry"], bundle["entry"][0]]}


def without_next(bundle: dict[str, Any]) -> dict[str, Any]:
    return bundle | {"link": []}


@pytest.mark.parametrize("edit", [without_first, without_next])
def test_entries_that_a_page_dropped_are_found(server: Server, proxy: Faults, tmp_path: Path, edit: Any) -> None:
    proxy.add(r"/Observation\?.*_offset=40", edit=edit)
    done = extract(tmp_path / "out", some(proxy.url))
    assert done.more["types"]["Observation"]["mended"]
    assert done.more["types"]["Observation"]["different"] == 120
    all_there(tmp_path / "out", server)


def test_entries_that_a_page_repeated_count_once(server: Server, proxy: Faults, tmp_path: Path) -> None:
    proxy.add(r"/Observation\?.*_offset=40", edit=repeated)
    done = extract(tmp_path / "out", some(proxy.url))
    assert not done.more["types"]["Observation"]["mended"]
    all_there(tmp_path / "out", server)


def test_one_repeated_and_one_dropped_do_not_cancel_out(server: Server, proxy: Faults, tmp_path: Path) -> None:
    proxy.add(r"/Observation\?.*_offset=40", edit=without_first)
    proxy.add(r"/Observation\?.*_offset=60", edit=repeated)
    assert extract(tmp_path / "out", some(proxy.url)).more["types"]["Observation"]["mended"]
    all_there(tmp_path / "out", server)


@pytest.mark.parametrize("options", [{"cap": 30}, {"links": "none"}])
def test_a_server_that_does_not_page_to_the_end(server: Server, tmp_path: Path, options: dict[str, Any]) -> None:
    server.options(**options)
    extract(tmp_path / "out", some(server.url))
    server.options(cap=None, links="offset")
    all_there(tmp_path / "out", server)


def test_a_server_that_counts_more_than_it_gives(server: Server, proxy: Faults, tmp_path: Path) -> None:
    hidden = server.holds("Observation")[7]["id"]

    def hide(bundle: dict[str, Any]) -> dict[str, Any]:
        entries = [entry for entry in bundle.get("entry", []) if entry["resource"]["id"] != hidden]
        return bundle | {"entry": entries}

    proxy.add(r"/Observation\?.*_count=", times=999, edit=hide)
    with pytest.raises(PalmaresError) as caught:
        extract(tmp_path / "out", some(proxy.url, types=["Observation"]))
    assert (caught.value.code, caught.value.count) == ("E-FHIR-05", 1)
    assert extract(tmp_path / "out", some(proxy.url, types=["Observation"], check_counts=False)).resources == {
        "Observation": 119
    }


def test_a_server_that_cannot_count(server: Server, tmp_path: Path) -> None:
    server.options(totals=False)
    done = extract(tmp_path / "out", some(server.url))
    assert done.more["types"]["Observation"]["counted"] is None
    all_there(tmp_path / "out", server)


def test_pages_in_a_circle(server: Server, proxy: Faults, tmp_path: Path) -> None:
    def back(bundle: dict[str, Any]) -> dict[str, Any]:
        return bundle | {"link": [{"relation": "next", "url": f"{proxy.url}/Observation?_count=20&_offset=20"}]}

    proxy.add(r"/Observation\?.*_offset=40", times=99, edit=back)
    proxy.add(r"/Observation\?_count=20&_offset=20", times=99, edit=back)
    extract(tmp_path / "out", some(proxy.url))
    all_there(tmp_path / "out", server)
    server.options(totals=False)
    with pytest.raises(PalmaresError, match="circle"):
        extract(tmp_path / "again", some(proxy.url))


# ------------------------------------------------------------------------------------- servers that mean otherwise


def test_a_type_that_the_server_does_not_offer(server: Server, tmp_path: Path) -> None:
    with pytest.raises(PalmaresError) as caught:
        extract(tmp_path / "out", some(server.url, types=["Procedure"]))
    assert (caught.value.code, caught.value.subject) == ("E-FHIR-06", "Procedure")


@pytest.mark.parametrize(
    "link", ["http://evil.example/fhir?_offset=20&name={name}", "http://user:{name}@127.0.0.1:{port}/fhir/Patient"]
)
def test_a_link_to_another_host_is_refused(proxy: Faults, tmp_path: Path, link: str) -> None:
    url = link.format(name=NAME, port=proxy.port)
    proxy.add(r"/Patient\?.*_count=", edit=lambda bundle: bundle | {"link": [{"relation": "next", "url": url}]})
    with pytest.raises(PalmaresError) as caught:
        extract(tmp_path / "out", some(proxy.url, types=["Patient"]))
    assert caught.value.code == "E-FHIR-03"
    assert NAME not in str(caught.value)


def test_a_type_that_is_not_offered_any_more(server: Server, proxy: Faults, tmp_path: Path) -> None:
    given = settings(proxy.url)
    extract(tmp_path / "1", given)

    def less(statement: dict[str, Any]) -> dict[str, Any]:
        kept = [one for one in statement["rest"][0]["resource"] if one["type"] != "Condition"]
        return statement | {"rest": [statement["rest"][0] | {"resource": kept}]}

    proxy.add(r"/metadata", edit=less)
    with pytest.raises(PalmaresError) as caught:
        extract(tmp_path / "2", given, previous=tmp_path / "1")
    assert (caught.value.code, caught.value.subject) == ("E-FHIR-06", "Condition")


def test_a_server_without_a_clock(server: Server, proxy: Faults, tmp_path: Path) -> None:
    """Ours may be ahead of it: then what it writes meanwhile would fall between two runs."""
    proxy.hidden_headers = {"date"}
    done = extract(tmp_path / "1", some(proxy.url, types=["Patient"]))
    assert done.state is not None
    mark = datetime.fromisoformat(done.state["types"]["Patient"]["mark"])
    assert mark < datetime.now(UTC) - timedelta(hours=23)


def test_a_redirect_is_not_followed(proxy: Faults, tmp_path: Path) -> None:
    proxy.add(r"/Patient\?", status=302, headers={"Location": "http://evil.example/"})
    with pytest.raises(PalmaresError) as caught:
        extract(tmp_path / "out", some(proxy.url, types=["Patient"]))
    assert caught.value.code == "E-FHIR-03"


def test_links_that_a_gateway_hides(server: Server, proxy: Faults, tmp_path: Path) -> None:
    inner = "http://ehr-inner:8080/fhir"

    def as_inner(bundle: dict[str, Any]) -> dict[str, Any]:
        return bundle | {
            "link": [link | {"url": link["url"].replace(proxy.url, inner)} for link in bundle.get("link", [])]
        }

    proxy.add(r"_count=", times=999, edit=as_inner)
    extract(tmp_path / "out", some(proxy.url, link_base=inner))
    all_there(tmp_path / "out", server)


def outcome(severity: str) -> dict[str, Any]:
    issue = {"severity": severity, "code": "suppressed", "diagnostics": NAME, "details": {"text": NAME}}
    return {"resource": {"resourceType": "OperationOutcome", "issue": [issue]}, "search": {"mode": "outcome"}}


def test_remarks_of_the_server(server: Server, proxy: Faults, tmp_path: Path) -> None:
    proxy.add(r"/Patient\?.*_count=", edit=lambda bundle: bundle | {"entry": [*bundle["entry"], outcome("warning")]})
    done = extract(tmp_path / "out", some(proxy.url))
    assert done.skipped == {"outcome-warning-suppressed": 1}
    all_there(tmp_path / "out", server)
    proxy.add(r"/Patient\?.*_count=", edit=lambda bundle: bundle | {"entry": [outcome("error")]})
    with pytest.raises(PalmaresError) as caught:
        extract(tmp_path / "again", some(proxy.url, types=["Patient"]))
    assert caught.value.code == "E-FHIR-07"
    assert "error suppressed" in str(caught.value) and NAME not in str(caught.value)


@pytest.mark.parametrize("answer", [b"<html>portal</html>", b'{"resourceType":"Patient"}'])
def test_an_answer_that_is_no_fhir(proxy: Faults, tmp_path: Path, answer: bytes) -> None:
    proxy.add(r"/Patient\?.*_count=", status=200, body=answer)
    with pytest.raises(PalmaresError) as caught:
        extract(tmp_path / "out", some(proxy.url, types=["Patient"], check_counts=False))
    assert caught.value.code == "E-FHIR-04"


def test_included_resources(server: Server, tmp_path: Path) -> None:
    given = settings(
        server.url, types=["MedicationRequest"], include={"MedicationRequest": ["MedicationRequest:medication"]}
    )
    done = extract(tmp_path / "out", given)
    assert done.more["types"]["MedicationRequest"]["different"] == 24
    assert landed(tmp_path / "out", tmp_path / "landed") == expected(server.holds("MedicationRequest", "Medication"))


def test_the_sites_own_filter(server: Server, tmp_path: Path) -> None:
    wanted = server.holds("Observation")[0]["subject"]["reference"]
    done = extract(
        tmp_path / "out", some(server.url, types=["Observation"], search={"Observation": f"subject={wanted}"})
    )
    assert done.resources == {"Observation": 5}


def test_nothing_of_a_query_in_the_logs(server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("httpx").setLevel(logging.DEBUG)
        extract(tmp_path / "out", some(server.url, types=["Observation"], search={"Observation": "subject=Patient/p3"}))
    assert "p3" not in caplog.text and "_count" not in caplog.text


# ------------------------------------------------------------------------------------------------------ increments


def changed(server: Server) -> None:
    """A patient's value is changed, a new one comes, one is deleted: by the server's own clock."""
    fresh = [one for one in records(26) if one["id"] in ("o3-1", "p25", "o25-0")]
    for one in fresh:
        del one["meta"]
    fresh[0]["valueQuantity"]["value"] = 99
    server.load(fresh)
    server.remove("Condition", "c5")


@pytest.mark.parametrize("history", [True, False])
def test_increments_and_deletes(tmp_path: Path, history: bool) -> None:
    with medplum(history=history) as server:
        server.load(records(24))
        extract(tmp_path / "1", settings(server.url))
        landed(tmp_path / "1", tmp_path / "landed")
        changed(server)
        second = extract(tmp_path / "2", settings(server.url), previous=tmp_path / "1")
        assert not second.full
        assert second.resources == {"Observation": 2, "Patient": 1}
        assert second.more["deletes_by"]["Condition"] == ("history" if history else "none")
        came = landed(tmp_path / "2", tmp_path / "landed", previous=tmp_path / "landed")
        now = expected(server.holds(*TYPES))
        if history:
            assert came == now
        else:
            assert len(came) == len(now) + 1, (
                "without a history a delete is found by a full run only, and the manifest says so"
            )
        third = extract(tmp_path / "3", settings(server.url), previous=tmp_path / "2", full=True)
        assert third.full
        assert third.more["deleted"] == ({} if history else {"Condition": 1})
        assert landed(tmp_path / "3", tmp_path / "landed", previous=tmp_path / "landed") == now
        fourth = extract(tmp_path / "4", settings(server.url), previous=tmp_path / "3")
        assert sum(fourth.resources.values()) == 3, "the overlap gives the last minutes again, and landing knows them"


def test_what_is_written_while_the_pages_come_is_not_lost(tmp_path: Path) -> None:
    """An entry that moves to the end takes its neighbour over the edge of the page: the classic loss of offset paging."""
    with medplum() as server, Faults(server.port) as proxy:
        server.load(records(24))
        first = next(one for one in records(24) if one["id"] == "o0-0")
        del first["meta"]

        def move(bundle: dict[str, Any]) -> dict[str, Any]:
            server.load([first])
            return bundle

        proxy.add(r"/Observation\?.*_sort=_lastUpdated.*_offset=20", edit=move)
        done = extract(tmp_path / "1", settings(proxy.url, sort="_lastUpdated"))
        assert done.more["types"]["Observation"]["mended"]
        assert landed(tmp_path / "1", tmp_path / "landed") == expected(server.holds(*TYPES))


def test_a_server_that_does_not_know_last_updated(server: Server, proxy: Faults, tmp_path: Path) -> None:
    extract(tmp_path / "1", some(proxy.url))
    nothing = b'{"resourceType":"Bundle","type":"searchset","total":0}'
    proxy.add(r"_lastUpdated", times=999, status=200, body=nothing)
    done = extract(tmp_path / "2", some(proxy.url), previous=tmp_path / "1")
    assert done.full
    assert not done.more["types"]["Observation"]["increments"]
    all_there(tmp_path / "2", server)


def test_too_much_is_gone_at_once(server: Server, proxy: Faults, tmp_path: Path) -> None:
    extract(tmp_path / "1", some(proxy.url))
    proxy.add(r"/Observation\?", times=999, status=200, body=b'{"resourceType":"Bundle","type":"searchset","total":0}')
    with pytest.raises(PalmaresError) as caught:
        extract(tmp_path / "2", some(proxy.url), previous=tmp_path / "1", full=True)
    assert (caught.value.code, caught.value.subject, caught.value.count) == ("E-FHIR-14", "Observation", 120)
    proxy.clear()
    extract(tmp_path / "2", some(proxy.url), previous=tmp_path / "1", full=True)
    all_there(tmp_path / "2", server)


def test_another_filter_or_key_begins_anew(server: Server, tmp_path: Path) -> None:
    from fhir_adapters.pseudonyms import SiteKey

    extract(tmp_path / "1", settings(server.url))
    other = SiteKey(b"another key for tests, thirty-two bytes or more")
    assert extract(tmp_path / "2", settings(server.url), previous=tmp_path / "1", key=other).full
    given = settings(server.url, search={"Observation": "status=final"})
    done = extract(tmp_path / "3", given, previous=tmp_path / "1")
    assert done.resources == {"Observation": 120}, (
        "of the type whose filter changed everything, of the others what is new"
    )


def test_record_numbers_make_the_pseudonyms(server: Server, tmp_path: Path) -> None:
    from tests.web_helpers import KEY

    given = some(server.url, patient_identifier="urn:test:mrn", types=["Observation", "Patient"])
    extract(tmp_path / "1", given)
    came = landed(tmp_path / "1", tmp_path / "landed")
    assert came == expected(server.holds("Observation", "Patient"), patient_identifier="urn:test:mrn")
    assert f'"Patient/{KEY.pseudonym("patient", "MRN-3")}"'.encode() in b"".join(came)


def test_patient_by_patient(tmp_path: Path) -> None:
    with medplum(history=False) as server, Faults(server.port) as proxy:
        server.load(records(6))
        kinds = ("Observation", "Patient")
        own = {"by_patient": True, "patients_at_once": 3, "search": {"Patient": "birthdate=1961-02-03"}}
        given = settings(proxy.url, types=list(kinds), parallel=1, tries=1, **own)
        fault = proxy.add(r"/Observation\?.*_summary", after=3, times=999, drop=0.0)
        with pytest.raises(PalmaresError, match="E-FHIR-01"):
            extract(tmp_path / "1", given)
        fault.times = 0
        before = proxy.asked(r"/Observation\?.*_count=")
        first = extract(tmp_path / "1", given)
        assert landed(tmp_path / "1", tmp_path / "landed") == expected(server.holds(*kinds))
        assert first.more["types"]["Observation"]["counted"] == 30
        asked = [path for _, path, _ in proxy.requests if path.startswith("/fhir/Observation?")]
        assert asked and all("patient=" in path for path in asked)
        assert proxy.asked(r"/Observation\?.*_count=") - before < before + 2, (
            "the handfuls that came are not asked for again"
        )
        late = [one for one in records(8) if one["id"] in ("p7", "o7-0", "o7-1")]
        for one in late[1:]:
            one["meta"]["lastUpdated"] = "2019-01-01T00:00:00.000Z"  # her past: older than the last run
        changed_one = next(one for one in records(6) if one["id"] == "o3-1")
        del late[0]["meta"], changed_one["meta"]
        server.load([*late, changed_one])
        second = extract(tmp_path / "2", given, previous=tmp_path / "1")
        assert second.resources == {"Observation": 3, "Patient": 1}
        now = expected(server.holds(*kinds))
        assert landed(tmp_path / "2", tmp_path / "landed", previous=tmp_path / "landed") == now
        holds_nothing_of(tmp_path, *LEAKS)


def test_outcomes_and_what_the_hospital_may_know(server: Server, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    from fhir_adapters.base import open_source
    from tests.web_helpers import KEY

    done = extract(tmp_path / "out", settings(server.url))
    items = pq.read_table(tmp_path / "out" / "outcomes.parquet").to_pylist()
    assert sum(item["resources"] for item in items) == sum(done.resources.values()) == 193
    assert {"Observation:6", "Patient:2"} <= {item["item"] for item in items}
    source: Any = open_source(settings(server.url), folder=tmp_path, key=KEY)
    assert {("name", NAME), ("record-number", "MRN-3")} <= set(source.identifiers())
