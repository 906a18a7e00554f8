"""She is planted in all that a server says: resources, links, statuses, errors, headers; and is found in nothing that lies on the disk
or is said, of a run that ends well and of one that breaks off."""

import json
import logging
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

import pytest

from fhir_adapters.base import Extraction, extract_from, open_source
from fhir_adapters.errors import PalmaresError
from fhir_adapters.fhir_web.gathered import mapped_types
from fhir_adapters.pseudonyms import SiteKey
from tests.planted import PLANTED, TRACES, every_resource, sound_resources, traces

NAME, NUMBER = PLANTED["name"], PLANTED["record-number"]
HER = f"patient=Patient/{NUMBER}&name={quote(NAME)}&identifier={PLANTED['codice-fiscale']}"
KEY = SiteKey(bytes(range(32)))
RESOURCES = [*sound_resources(), *every_resource(1)]
REMARK = {
    "resourceType": "OperationOutcome",
    "issue": [{"severity": "fatal", "code": NAME, "diagnostics": f"{NAME} {NUMBER}", "expression": [NAME]}],
}


class Hospital:
    """A server of FHIR, of exports and of DICOMweb that names her wherever it may; `breaks`: what it answers with an error."""

    def __init__(self) -> None:
        self.breaks = ""
        self.by_type: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for resource in (one for one in RESOURCES if one["resourceType"] in mapped_types()):
            self.by_type[resource["resourceType"]].append(resource)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, headers, body = outer.answer(self.path)
                self.send_response(status, NAME)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("X-Patient", NAME)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_DELETE = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        if self.breaks and self.breaks in path:
            return 400, {}, json.dumps(REMARK).encode()
        if "/studies" in path:
            return 200, {}, json.dumps(self.dicom(path)).encode()
        if "metadata" in path:
            kinds = [{"type": kind} for kind in self.by_type]
            return 200, {}, json.dumps({"resourceType": "CapabilityStatement", "rest": [{"resource": kinds}]}).encode()
        if "$export" in path:
            return 202, {"Content-Location": f"{self.url}/job/{NUMBER}?{HER}"}, b""
        if "/job" in path:
            output = [
                {"type": kind, "url": f"{self.url}/files/{quote(NAME)}/{kind}.ndjson?{HER}"} for kind in self.by_type
            ]
            manifest = {"transactionTime": "2024-01-01T00:00:00Z", "requiresAccessToken": False, "output": output}
            return 200, {}, json.dumps(manifest | {"request": f"{self.url}/$export?{HER}"}).encode()
        kind = path.split("?")[0].rpartition("/")[2].removesuffix(".ndjson")
        of_kind = self.by_type.get(kind, [])
        if "/files/" in path:
            return 200, {}, b"".join(json.dumps(one).encode() + b"\n" for one in of_kind)
        half = len(of_kind) // 2
        second = "page=2" in path
        entries = [
            {"fullUrl": f"{self.url}/{kind}/{NUMBER}", "resource": one, "search": {"mode": "match"}}
            for one in (of_kind[half:] if second else of_kind[:half])
        ]
        link = [] if second else [{"relation": "next", "url": f"{self.url}/{kind}?{HER}&page=2"}]
        link.append({"relation": "self", "url": f"{self.url}/{kind}?{HER}"})
        return 200, {}, json.dumps({"resourceType": "Bundle", "id": NUMBER, "link": link, "entry": entries}).encode()

    def dicom(self, path: str) -> list[dict[str, Any]]:
        texts = ("00100010", "00081030", "00080090", "00101040", "00104000", "00091001", "00081050")
        her = {tag: {"vr": "LO", "Value": [f"{NAME} {PLANTED['address']}"]} for tag in texts}
        her["00100010"] = {"vr": "PN", "Value": [{"Alphabetic": NAME}]}
        her |= {
            "0020000D": {"vr": "UI", "Value": [PLANTED["uid"]]},
            "0020000E": {"vr": "UI", "Value": [f"{PLANTED['uid']}.1"]},
            "00080018": {"vr": "UI", "Value": [f"{PLANTED['uid']}.1.1"]},
            "00080016": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]},
            "00080050": {"vr": "SH", "Value": [PLANTED["accession-number"]]},
            "00100020": {"vr": "LO", "Value": [NUMBER]},
            "00080020": {"vr": "DA", "Value": ["20210301"]},
            "00080060": {"vr": "CS", "Value": [NAME if "series/" in path else "CT"]},
            # a UID within a sequence, a name within a private one, an address for bulk data
            "00081140": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [PLANTED["uid"]]}}]},
            "00091002": {"vr": "SQ", "Value": [{"00100010": {"vr": "PN", "Value": [{"Alphabetic": NAME}]}}]},
            "7FE00010": {"vr": "OW", "BulkDataURI": f"{self.url}/{NUMBER}"},
        }
        return [her]


@pytest.fixture
def hospital() -> Iterator[Hospital]:
    made = Hospital()
    yield made
    made.server.shutdown()
    made.server.server_close()


def read(hospital: Hospital, kind: str, folder: Path) -> Extraction:
    url = hospital.url + ("/dicom-web" if kind == "dicomweb" else "")
    more: dict[str, Any] = {"tries": 1, "parallel": 1}
    if kind == "fhir_server":
        more |= {"search": {"Patient": f"name={NAME}&identifier={NUMBER}"}}
    if kind != "dicomweb":
        more |= {"patient_identifier": "http://ospedale.example/mrn"}
    source = open_source({"kind": kind, "url": url, **more}, folder=folder, key=KEY, time_zone="Europe/Rome")
    return extract_from(source, folder / "out")


def nothing_of_her(folder: Path) -> list[Path]:
    """The files, none of which names her."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    for path in folder.rglob("*"):
        assert traces(path.name) == []
    for path in paths:
        content = path.read_bytes().lower()
        assert [trace for trace in TRACES if trace.encode() in content] == [], path.name
    return paths


@pytest.mark.parametrize(
    ("kind", "breaks"),
    [
        ("fhir_server", ""),
        ("fhir_server", "page=2"),
        ("fhir_server", "metadata"),
        ("fhir_server", "/Observation"),
        ("fhir_bulk", ""),
        ("fhir_bulk", "$export"),
        ("fhir_bulk", "/job"),
        ("fhir_bulk", "Observation.ndjson"),
        ("dicomweb", ""),
        ("dicomweb", "/metadata"),
        ("dicomweb", "/studies?"),
    ],
)
def test_nothing_that_lies_there_or_is_said_names_her(
    hospital: Hospital, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, breaks: str
) -> None:
    said = ""
    hospital.breaks = breaks
    with caplog.at_level(logging.DEBUG):
        try:
            said = repr(read(hospital, kind, tmp_path))
        except PalmaresError as error:
            said = str(error)
            assert breaks
        paths = nothing_of_her(tmp_path)
        if breaks:  # what it broke off, it goes on with
            hospital.breaks = ""
            said += repr(read(hospital, kind, tmp_path))
            nothing_of_her(tmp_path)
    assert paths or breaks
    assert (tmp_path / "out" / "manifest.json").is_file()
    assert traces(said) == []
    assert traces("\n".join(one.getMessage() for one in caplog.records)) == []
