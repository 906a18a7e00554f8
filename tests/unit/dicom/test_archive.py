"""An archive that answers badly: every study has an outcome, what was known stands, nothing of an answer is believed unseen."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_adapters.allow_list import dicom
from fhir_adapters.base import Extraction, extract_from, open_source
from fhir_adapters.dicom.headers import header_of_json
from fhir_adapters.dicom.known import Row, read, settle
from fhir_adapters.dicom.packing import StudyRead, packed, unpacked
from fhir_adapters.dicom.values import Coding, Instance, Measure, Reader
from fhir_adapters.errors import PalmaresError
from fhir_adapters.memory import of_extraction
from fhir_adapters.pseudonyms import SiteKey

KEY = SiteKey(bytes(range(32)))
Route = Callable[[str], "tuple[int, Any]"]


def element(vr: str, *values: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": list(values)}


def study(number: int, instances: int = 1, **more: Any) -> dict[str, Any]:
    """A study as QIDO-RS tells it."""
    return {
        "0020000D": element("UI", f"1.2.{number}"),
        "00080020": element("DA", "20210301"),
        "00100020": element("LO", f"MRN{number}"),
        "00201208": element("IS", instances),
        **more,
    }


def instance(number: int, at: int = 1, **more: Any) -> dict[str, Any]:
    """An instance as WADO-RS tells it."""
    return {
        "00080016": element("UI", "1.2.840.10008.5.1.4.1.1.2"),
        "00080018": element("UI", f"1.2.{number}.1.{at}"),
        "0020000D": element("UI", f"1.2.{number}"),
        "0020000E": element("UI", f"1.2.{number}.1"),
        "00100020": element("LO", f"MRN{number}"),
        "00080060": element("CS", "CT"),
        "00080020": element("DA", "20210301"),
        **more,
    }


class Scripted:
    """A DICOMweb server that says what a test wants: `listed` studies, `given` metadata by study."""

    def __init__(self, listed: Any, given_: "dict[str, tuple[int, Any]] | None" = None) -> None:
        self.listed = listed
        self.given = given_ or {}
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                status, body = outer.answer(self.path.split("?")[0].removeprefix("/dicom-web/").split("/"))
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/dicom-web"

    def answer(self, parts: list[str]) -> tuple[int, Any]:
        if len(parts) == 1:
            return 200, self.listed(parts, self.asked[-1]) if callable(self.listed) else self.listed
        number = parts[1].removeprefix("1.2.")
        status, body = self.given.get(number, (200, [instance(int(number))]))
        if parts[-1] == "series":
            return (status, body) if status != 200 else (200, [{"0020000E": element("UI", f"1.2.{number}.1")}])
        return status, body

    def extract(self, out: Path, before: Path | None = None, **more: Any) -> Extraction:
        settings = {"kind": "dicomweb", "url": self.url, "tries": 2, "parallel": 1, **more}
        held = of_extraction(before, "dicomweb") if before else None
        source = open_source(settings, folder=out.parent, key=KEY)
        return extract_from(source, out, state=held and held.state, known=held and held.known)


@pytest.fixture
def archive() -> Iterator[Callable[..., Scripted]]:
    made: list[Scripted] = []

    def make(*args: Any) -> Scripted:
        made.append(Scripted(*args))
        return made[-1]

    yield make
    for one in made:
        one.server.shutdown()
        one.server.server_close()


def outcomes(out: Path) -> dict[str, str | None]:
    return {row["item"]: row["reason"] for row in pq.read_table(out / "outcomes.parquet").to_pylist()}


def test_one_bad_study_does_not_stop_the_others(archive, tmp_path) -> None:
    server = archive(
        [study(1), study(2, instances=5), study(3), study(4), study(5), {"00100020": element("LO", "MRN")}],
        {"3": (404, []), "4": (500, b"MRN4 ROSSI"), "5": (200, b"<html>ROSSI")},
    )
    extraction = server.extract(tmp_path / "out")
    assert extraction.resources == {"ImagingStudy": 1}
    found = outcomes(tmp_path / "out")
    assert {found[KEY.uid(f"1.2.{number}")] for number in (2,)} == {"Q-PACS-INCOMPLETE"}
    assert found[KEY.uid("1.2.3")] == "X-PACS-GONE"
    assert found[KEY.uid("1.2.4")] == found[KEY.uid("1.2.5")] == "Q-PACS-REFUSED"
    assert found["answer:1"] == "Q-DICOM-NO-UID"
    # those that were lost are asked for again, the good one is not
    server.asked.clear()
    server.extract(tmp_path / "again", tmp_path / "out")
    assert not any("1.2.1/" in path for path in server.asked) and any("1.2.2/" in path for path in server.asked)


def test_what_was_known_of_a_study_that_is_lost_stands(archive, tmp_path) -> None:
    server = archive([study(1), study(2)])
    server.extract(tmp_path / "1")
    server.listed = [study(1, instances=2), study(2)]
    server.given = {"1": (500, b"")}
    second = server.extract(tmp_path / "2", tmp_path / "1")
    assert second.more["deleted"] == 0 and second.resources == {"ImagingStudy": 0}
    server.given = {"1": (200, [instance(1, 1), instance(1, 2)])}
    third = server.extract(tmp_path / "3", tmp_path / "2")
    assert third.resources == {"ImagingStudy": 1} and third.more["studies"]["read"] == 1


@pytest.mark.parametrize("uid", ["../../admin", "1.2.3/series", "1.2?x=1", "1 2", "", None, {"a": 1}])
def test_a_uid_that_is_none_never_gets_into_an_address(archive, tmp_path, uid) -> None:
    server = archive([study(1), study(2, **{"0020000D": element("UI", uid)})])
    assert server.extract(tmp_path / "out").resources == {"ImagingStudy": 1}
    assert not any("admin" in path or "x=1" in path for path in server.asked)


@pytest.mark.parametrize(
    "answer", [{}, [1, None, "x", []], [{"0020000D": 5}], [{"0020000D": {"vr": "UI", "Value": "1.2.3"}}], [], "x", None]
)
def test_an_answer_of_another_shape(archive, tmp_path, answer) -> None:
    assert archive(answer).extract(tmp_path / "out").resources == {"ImagingStudy": 0}


def test_too_many_gone_at_once_is_an_error(archive, tmp_path) -> None:
    server = archive([study(number) for number in range(1, 41)])
    server.extract(tmp_path / "1")
    server.listed = server.listed[:15]
    with pytest.raises(PalmaresError, match="E-PACS-06"):
        server.extract(tmp_path / "2", tmp_path / "1")
    assert not (tmp_path / "2").exists()
    allowed = server.extract(tmp_path / "3", tmp_path / "1", most_deleted=1.0)
    # the setting is no part of what makes two runs comparable: the deletes are told
    assert allowed.more["deleted"] == 25
    bundle = json.loads((tmp_path / "3" / "fhir" / "deleted.ndjson").read_text())
    assert len(bundle["entry"]) == 25 and bundle["entry"][0]["request"]["method"] == "DELETE"


def test_a_study_without_a_date_is_not_gone_because_the_archive_gives_fewer(archive, tmp_path) -> None:
    """An archive that has grown beyond what it gives names only some of the studies that no window of dates holds."""
    undated, dated = study(1, **{"00080020": {"vr": "DA"}}), [study(number) for number in range(2, 8)]
    server = archive([undated, *dated])
    server.extract(tmp_path / "1")

    def limited(parts: list[str], query: str) -> list[dict[str, Any]]:
        day = re.search(r"StudyDate=([0-9]*)(-?)([0-9]*)", query)
        grown = [study(number, **{"00080020": element("DA", f"2021{number:04}")}) for number in range(301, 331)]
        if day is None:
            return grown[:20]
        low, high = day[1] or "0", day[3] or ("9" if day[2] else day[1])
        return [one for one in grown if low <= one["00080020"]["Value"][0] <= high][:20]

    server.listed = limited
    again = server.extract(tmp_path / "2", tmp_path / "1", most_deleted=1.0)
    assert again.more["studies"]["undated_may_be_missing"] is True
    assert (again.more["deleted"], again.full) == (6, False)  # those with a date are gone
    assert KEY.uid("1.2.1") not in (tmp_path / "2" / "fhir" / "deleted.ndjson").read_text()
    stands = {row.study: row.dated for row in read(tmp_path / "2" / "known.parquet")}
    assert stands[KEY.uid("1.2.1")] is False and len(stands) == 31


def test_other_settings_make_all_of_it_new(archive, tmp_path) -> None:
    server = archive([study(1)])
    server.extract(tmp_path / "1")
    assert server.extract(tmp_path / "2", tmp_path / "1").resources == {"ImagingStudy": 0}
    assert server.extract(tmp_path / "3", tmp_path / "1", instances=True).resources == {"ImagingStudy": 1}


SLIDE = {
    "00400560": element(
        "SQ",
        {
            "00400554": element("UI", "1.2.99"),
            "0040059A": element("SQ", {"00080100": element("SH", "430856003"), "00080102": element("SH", "SCT")}),
        },
    )
}


def test_a_sample_that_two_studies_show_is_told_from_both(archive, tmp_path) -> None:
    first, second = instance(1, **SLIDE), instance(2, **SLIDE, **{"00100020": element("LO", "MRN1")})
    server = archive([study(1), study(2), study(3)], {"1": (200, [first]), "2": (200, [second])})
    assert server.extract(tmp_path / "1").resources["Specimen"] == 1
    server.listed = [study(1, instances=2), study(2), study(3)]
    server.given["1"] = (200, [first, instance(1, 2)])
    again = server.extract(tmp_path / "2", tmp_path / "1")
    assert again.more["studies"]["read"] == 2 and again.resources == {"ImagingStudy": 2, "Specimen": 1}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["vr", "Value", "0020000D", "00100020", "00540016", "00181074", "x"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_no_document_makes_it_raise(document) -> None:
    reader = Reader(dicom(), KEY)
    found = reader.instance(header_of_json(document, reader.wanted))
    assert isinstance(found, Instance | str)


CODINGS = st.builds(Coding, st.sampled_from(["DCM", "SCT"]), st.text(max_size=5), st.text(max_size=5))
VALUES = (
    st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**53), 2**53)
    | st.text(max_size=5)
    | st.booleans()
    | CODINGS
)
PAIRS = st.tuples(st.text(max_size=5), st.lists(VALUES, max_size=3).map(tuple))
MEASURES = st.builds(
    Measure,
    st.text(max_size=5),
    CODINGS,
    st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | CODINGS,
    st.none() | CODINGS,
    st.lists(st.tuples(st.text(max_size=5), CODINGS), max_size=2).map(tuple),
    st.lists(st.tuples(st.text(max_size=5), st.integers(0, 9) | st.text(max_size=5)), max_size=2).map(tuple),
    st.none() | st.tuples(st.text(max_size=5), st.text(max_size=5)),
)
TEXT = st.text(max_size=5)
INSTANCES = st.builds(
    Instance, TEXT, TEXT, TEXT, TEXT, st.lists(PAIRS, max_size=3).map(tuple), st.lists(MEASURES, max_size=2).map(tuple)
)


@given(
    st.builds(
        StudyRead,
        TEXT,
        TEXT,
        st.lists(TEXT),
        st.lists(INSTANCES | TEXT, max_size=3),
        st.dictionaries(TEXT, st.integers(1, 9)),
    )
)
def test_what_is_packed_comes_back(one) -> None:
    line = packed(one)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert unpacked(line) == one


def test_a_memory_that_cannot_be_read_is_none(tmp_path) -> None:
    (tmp_path / "known.parquet").write_text("no parquet")
    assert read(tmp_path / "known.parquet") == read(tmp_path / "nowhere") == read(None) == []


def test_what_stands() -> None:
    before = [
        Row("ImagingStudy", "s1", "s1", "a"),
        Row("Observation", "o1", "s1", "a"),
        Row("Specimen", "x", "s1", "a"),
        Row("Specimen", "x", "s2", "b"),
    ]
    now = {Row("ImagingStudy", "s1", "s1", "c")}
    settled = settle(before, now, read_anew={"s1"}, named={"s1", "s2"}, most=0.2)
    assert settled.deleted == [("Observation", "o1")]  # the sample is still shown by the other study
    assert Row("Specimen", "x", "s2", "b") in settled.stands
