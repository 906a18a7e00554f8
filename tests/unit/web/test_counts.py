"""Servers that give fewer than they have: what they say of the number is held against what came, wherever they say it."""

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from fhir_adapters.base import Extraction, extract_from, open_source
from fhir_adapters.errors import PalmaresError
from fhir_adapters.pseudonyms import SiteKey

KEY = SiteKey(bytes(range(32)))
Question = dict[str, str]
STATEMENT = {
    "resourceType": "CapabilityStatement",
    "rest": [{"resource": [{"type": "Patient"}, {"type": "Observation"}]}],
}


class Server:
    """Patients, ten a page. `counts`: it knows `_summary=count`; `totals`: its pages say the total; `pages`: it gives a next link;
    `lacks`: the patients that its pages lack, for as many searches as `times`."""

    def __init__(self) -> None:
        self.patients, self.counts, self.totals, self.pages = 30, True, True, True
        self.lacks: tuple[int, ...] = ()
        self.times = 10**6
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
                body = json.dumps(outer.answer(parts.path.strip("/"), asked)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, kind: str, asked: Question) -> dict[str, Any]:
        if kind == "metadata":
            return STATEMENT
        bundle: dict[str, Any] = {"resourceType": "Bundle", "type": "searchset"}
        many = self.patients if kind == "Patient" else 0
        if asked.get("_summary") == "count":
            return bundle | ({"total": many} if self.counts else {})
        begin, size = int(asked.get("at", 0)), min(10, int(asked.get("_count", 10)))
        size = size if self.pages else int(asked.get("_count", 10))
        if begin == 0:
            self.times -= 1
        lacks = self.lacks if self.times >= 0 else ()
        there = [number for number in range(many) if number not in lacks]
        bundle["entry"] = [
            {"resource": {"resourceType": "Patient", "id": f"p{number}"}, "search": {"mode": "match"}}
            for number in there[begin : begin + size]
        ]
        if self.totals:
            bundle["total"] = many
        if self.pages and begin + size < many:
            bundle["link"] = [{"relation": "next", "url": f"{self.url}/{kind}?at={begin + size}"}]
        return bundle


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.server.shutdown()
    made.server.server_close()


Reader = Callable[..., Extraction]


@pytest.fixture
def read(server: Server, tmp_path: Path) -> Reader:
    def go(**more: Any) -> Extraction:
        given = {"kind": "fhir_server", "url": server.url, "types": ["Patient"], "tries": 1, "page": 10, **more}
        return extract_from(open_source(given, folder=tmp_path, key=KEY), tmp_path / "out")

    return go


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("totals", [True, False])
def test_all_of_it(server: Server, read: Reader, counts: bool, totals: bool) -> None:
    server.counts, server.totals = counts, totals
    done = read()
    assert done.resources == {"Patient": 30}
    assert done.more["types"]["Patient"]["counted"] == (30 if counts or totals else None)


@pytest.mark.parametrize("counts", [True, False])
def test_what_the_pages_lack_is_missed(server: Server, read: Reader, counts: bool) -> None:
    server.counts, server.lacks = counts, (3, 4)
    with pytest.raises(PalmaresError, match=r"E-FHIR-05 Patient.*\(2\): of 30"):
        read()
    # the site may take what there is
    assert read(check_counts=False).resources == {"Patient": 28}


def test_what_slipped_from_page_to_page_comes_with_another_look(server: Server, read: Reader) -> None:
    server.counts, server.lacks, server.times = False, (3, 4), 1
    assert read().more["types"]["Patient"]["different"] == 30


@pytest.mark.parametrize(("held", "lost"), [(10, 0), (11, 1), (33, 10)])
def test_a_full_page_without_a_next_one(server: Server, read: Reader, held: int, lost: int) -> None:
    """A server that neither counts nor pages: a page that is full is asked for once more, twice as long."""
    server.counts = server.totals = server.pages = False
    server.patients = held
    if lost:
        with pytest.raises(PalmaresError, match=rf"E-FHIR-05 Patient.*\({lost}\)"):
            read()
    else:
        assert read().resources == {"Patient": held}


def test_a_patient_who_is_not_named_is_not_left_out_in_silence(server: Server, read: Reader) -> None:
    """Patient by patient, who is missing among the patients would never be asked for."""
    server.lacks, server.times = (3, 4), 1
    assert read(types=["Observation"], by_patient=True).resources == {}
    server.times = 10**6
    with pytest.raises(PalmaresError, match=r"E-FHIR-05 Patient.*\(2\)"):
        read(types=["Observation"], by_patient=True)
