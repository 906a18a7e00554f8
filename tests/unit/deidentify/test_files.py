"""Files that pass: what is not sound keeps its place and its reason, and no byte of it passes."""

import gzip
import json
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest
import zstandard

from fhir_adapters.base import Extraction, open_source
from fhir_adapters.errors import PalmaresError
from fhir_adapters.landing import land
from fhir_adapters.pseudonyms import SiteKey
from fhir_adapters.validation import validate

KEY = SiteKey(bytes(range(32)))
NAME = "Zuccarelli"
OBSERVATION = {"resourceType": "Observation", "id": "o1", "status": "final", "code": {"text": NAME}}
DEEP = b"[" * 1200 + b"]" * 1200
LINES: list[bytes] = [
    b'{"resourceType":"Observation","id":"a","status":"final","code":{"text":"Zuccarelli"}',  # cut off
    b'{"resourceType":"Observation","id":"b","note":"Zuccarelli",,}',
    b'{"resourceType":"Observation","id":"c","note":"Zuccarelli\xff"}',
    b'{"resourceType":"Observation","id":"d","note":"Zuccarelli\x00"}',
    b'{"resourceType":"Observation","id":"e","note":"Zuccarelli\\ud800"}',
    b'{"resourceType":"Observation","id":"f","note":"Zuccarelli","note":"Zuccarelli","status":"final","code":{"text":"x"}}',
    b'{"resourceType":"Observation","id":"g","status":"final","code":{"text":"x"},"value":NaN}',
    b'{"resourceType":"Observation","id":"h","x":' + DEEP + b"}",
    b'"Zuccarelli"',
    b'["Zuccarelli"]',
    b'{"name":"Zuccarelli"}',
    b'{"resourceType":"Zuccarelli","id":"1"}',
    b'{"resourceType":"Observation","status":"final","code":{"text":"x"}}',
    b'{"resourceType":"Observation","id":"Zuccarelli Maria","status":"final","code":{"text":"x"}}',
    b"Zuccarelli",
    b"",
    b"   ",
    b'{"resourceType":"RelatedPerson","id":"r1","name":[{"family":"Zuccarelli"}]}',
    b'{"resourceType":"Observation","id":"i","status":"Zuccarelli","code":{"text":"x"}}',
    b'{"resourceType":"Observation","id":"j","status":"final","code":"Zuccarelli"}',
    b'{"resourceType":"Observation","id":"k","status":"final","code":{"text":"x"},"zuccarelli":"Zuccarelli"}',
    orjson.dumps(OBSERVATION),
]


def extract(path: Path, out: Path, **settings: Any) -> Extraction:
    source = {"kind": "fhir_files", "path": str(path), **settings}
    return open_source(source, folder=path.parent, key=KEY).extract(out)


def quarantine(folder: Path) -> list[tuple[str, str, str]]:
    return duckdb.sql(
        f"SELECT resource_type, reason, position FROM '{folder / 'quarantine.parquet'}' ORDER BY position, reason"
    ).fetchall()


def written(folder: Path) -> bytes:
    found = b""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            found += path.name.encode() + (gzip.decompress(data) if path.suffix == ".gz" else data)
    return found


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    folder = tmp_path / "raw" / "fhir"
    folder.mkdir(parents=True)
    (folder / "Observation.ndjson").write_bytes(b"\xef\xbb\xbf" + b"\n".join(LINES) + b"\n")
    return folder


def test_what_is_not_sound_keeps_its_place_and_its_reason(lines: Path, tmp_path: Path) -> None:
    extract(lines, tmp_path / "out", pseudonyms="hospital")
    found = {}
    for name, source in (("raw", tmp_path / "raw"), ("passed", tmp_path / "out")):
        land([source], tmp_path / name / "landed")
        validate(tmp_path / name / "landed", tmp_path / name / "accepted")
        rows = quarantine(tmp_path / name / "accepted")
        found[name] = [(reason, position) for kind, reason, position in rows]
    assert found["passed"] == [one for one in found["raw"] if "RelatedPerson" not in one[1]]
    assert len({reason for reason, _ in found["passed"]}) >= 10
    assert NAME.lower().encode() not in written(tmp_path / "out").lower()


@pytest.mark.parametrize("ending", [".ndjson", ".ndjson.gz", ".ndjson.zst", ".json"])
def test_names_and_compression_stay(tmp_path: Path, ending: str) -> None:
    data = orjson.dumps(OBSERVATION) + b"\n"
    if ending.endswith("gz"):
        data = gzip.compress(data)
    if ending.endswith("zst"):
        data = zstandard.compress(data)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"export{ending}").write_bytes(data)
    extract(tmp_path / "in", tmp_path / "out")
    (path,) = (tmp_path / "out" / "fhir").iterdir()
    assert path.name == f"export{ending}"
    assert land([tmp_path / "out"], tmp_path / "landed").resources == {"Observation": 1}


def test_a_file_named_after_a_patient(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"{NAME}_Maria.json").write_bytes(orjson.dumps(OBSERVATION))
    extract(tmp_path / "in", tmp_path / "out")
    assert NAME.lower().encode() not in written(tmp_path / "out").lower()
    land([tmp_path / "out"], tmp_path / "landed")
    shown = duckdb.sql(f"SELECT item FROM '{tmp_path / 'out' / 'outcomes.parquet'}'").fetchall()
    (path,) = (tmp_path / "out" / "fhir").iterdir()
    assert shown == [(path.stem,)]


def test_a_file_named_after_a_record_number(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "123456.json").write_bytes(orjson.dumps(OBSERVATION))
    (tmp_path / "in" / "page-0001.json").write_bytes(orjson.dumps(OBSERVATION))
    extract(tmp_path / "in", tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out" / "fhir").iterdir())
    assert names[1] == "page-0001.json" and names[0].startswith("file-")
    assert b"123456" not in written(tmp_path / "out")
    extract(tmp_path / "in", tmp_path / "replaced", pseudonyms="hospital")
    assert (tmp_path / "replaced" / "fhir" / "123456.json").exists()


def test_a_bundle_with_all_that_bundles_hold(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    bundle = {
        "resourceType": "Bundle",
        "id": NAME,
        "type": "history",
        "timestamp": "2024-01-01T00:00:00Z",
        "link": [{"url": f"https://x.example/Patient?name={NAME}"}],
        "entry": [
            {"fullUrl": "urn:uuid:aaaa", "resource": {"resourceType": "Patient", "name": [{"family": NAME}], "gender": "female"}},
            {"fullUrl": "urn:uuid:bbbb", "resource": {**OBSERVATION, "id": "o9", "subject": {"reference": "urn:uuid:aaaa"}}},
            {"resource": {"resourceType": "RelatedPerson", "id": "r1", "name": [{"family": NAME}]}},
            {"request": {"method": "DELETE", "url": "Observation/o2"}, "response": {"lastModified": "2024-02-01T00:00:00Z"}},
            {"request": {"method": "DELETE", "url": f"Observation?name={NAME}"}},
            NAME,
            {"resource": {"resourceType": "Bundle", "entry": [{"resource": {**OBSERVATION, "id": "o3"}}]}},
        ],
    }  # fmt: skip
    (tmp_path / "in" / "bundle.json").write_bytes(orjson.dumps(bundle))
    done = extract(tmp_path / "in", tmp_path / "out")
    assert dict(done.resources) == {"Observation": 2, "Patient": 1, "RelatedPerson": 1}
    assert NAME.lower().encode() not in written(tmp_path / "out").lower()
    landing = land([tmp_path / "out"], tmp_path / "landed")
    assert landing.resources == {"Observation": 2, "Patient": 1, "RelatedPerson": 1}
    assert [(reason, position) for _, reason, position in quarantine(tmp_path / "landed")] == [
        ("Q-DELETE", "fhir/bundle.json:entry 5"),
        ("Q-ENTRY", "fhir/bundle.json:entry 6"),
    ]
    deleted = duckdb.sql(f"SELECT resource_id, deleted_at FROM '{tmp_path / 'landed' / 'deleted.parquet'}'").fetchall()
    assert deleted == [(KEY.pseudonym("observation", "o2"), "2024-02-01T00:00:00Z")]
    (line,) = (tmp_path / "landed" / "Patient").rglob("*.ndjson")
    patient = json.loads(line.read_text())
    assert patient["id"] == KEY.pseudonym("patient", "aaaa")
    (shard,) = (tmp_path / "landed" / "Observation").iterdir()
    observed = [json.loads(text) for text in shard.read_text().splitlines()]
    assert {one.get("subject", {}).get("reference") for one in observed} == {None, f"Patient/{patient['id']}"}


def test_bad_spots_in_a_bundle_stay_bad(tmp_path: Path) -> None:
    (tmp_path / "raw" / "fhir").mkdir(parents=True)
    entries = b",".join(
        b'{"resource":' + one + b"}" for one in (LINES[4], LINES[5], LINES[6], orjson.dumps(OBSERVATION))
    )
    (tmp_path / "raw" / "fhir" / "bundle.json").write_bytes(
        b'{"resourceType":"Bundle","type":"collection","entry":[' + entries + b"]}"
    )
    extract(tmp_path / "raw" / "fhir", tmp_path / "out", pseudonyms="hospital")
    land([tmp_path / "raw"], tmp_path / "landed-raw")
    land([tmp_path / "out"], tmp_path / "landed")
    assert quarantine(tmp_path / "landed") == quarantine(tmp_path / "landed-raw")
    assert len(quarantine(tmp_path / "landed")) == 3
    assert NAME.lower().encode() not in written(tmp_path / "out").lower()


@pytest.mark.parametrize(
    "text",
    [b"{", b"Zuccarelli", b'{"name":"Zuccarelli"}', b"[1,2]", b"[]"],
)
def test_documents_that_are_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "page.json").write_bytes(text)
    assert sum(extract(tmp_path / "in", tmp_path / "out").resources.values()) == 0
    assert NAME.lower().encode() not in written(tmp_path / "out").lower()
    (reason,) = duckdb.sql(f"SELECT outcome, reason FROM '{tmp_path / 'out' / 'outcomes.parquet'}'").fetchall()
    assert reason == ("excluded", "X-NOTHING-PASSED")


def test_one_document_over_many_lines_under_the_name_of_lines(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "export.ndjson").write_text(json.dumps(OBSERVATION, indent=2))
    assert dict(extract(tmp_path / "in", tmp_path / "out").resources) == {"Observation": 1}


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_a_damaged_stream_stops_the_source(tmp_path: Path, ending: str) -> None:
    (tmp_path / "in").mkdir()
    data = (orjson.dumps(OBSERVATION) + b"\n") * 500
    packed = gzip.compress(data) if ending == "gz" else zstandard.compress(data)
    (tmp_path / "in" / f"export.ndjson.{ending}").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(PalmaresError) as caught:
        extract(tmp_path / "in", tmp_path / "out")
    assert caught.value.code == "E-LAND-03"
    assert not (tmp_path / "out").exists()


def test_a_line_longer_than_any_stays_too_long(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    long = b'{"resourceType":"Observation","id":"z","note":"' + NAME.encode() * 1_800_000 + b'"}'
    (tmp_path / "in" / "export.ndjson").write_bytes(long + b"\n" + orjson.dumps(OBSERVATION) + b"\n")
    extract(tmp_path / "in", tmp_path / "out")
    land([tmp_path / "out"], tmp_path / "landed")
    assert quarantine(tmp_path / "landed") == [("Observation", "Q-SIZE", "fhir/export.ndjson:1")]
    assert NAME.encode() not in written(tmp_path / "out")


def test_the_record_number_is_learned_from_every_file_first(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    patient = {"resourceType": "Patient", "id": "9", "identifier": [{"system": "urn:mrn", "value": "0012345"}]}
    (tmp_path / "in" / "Observation.ndjson").write_bytes(
        orjson.dumps({**OBSERVATION, "subject": {"reference": "Patient/9"}}) + b"\n"
    )
    (tmp_path / "in" / "Patient.ndjson").write_bytes(orjson.dumps(patient) + b"\n")
    extract(tmp_path / "in", tmp_path / "out", patient_identifier="urn:mrn")
    expected = KEY.pseudonym("patient", "0012345")
    assert json.loads((tmp_path / "out" / "fhir" / "Patient.ndjson").read_text())["id"] == expected
    observed = json.loads((tmp_path / "out" / "fhir" / "Observation.ndjson").read_text())
    assert observed["subject"]["reference"] == f"Patient/{expected}"


def test_processes_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    lines = b"\n".join(orjson.dumps({**OBSERVATION, "id": f"o{number}"}) for number in range(3000)) + b"\n"
    for name in ("all", "part", "patients"):
        (tmp_path / "in" / f"{name}.ndjson").write_bytes(lines)
    one = extract(tmp_path / "in", tmp_path / "one")
    monkeypatch.setattr("fhir_adapters.fhir_files._WORTH_A_POOL", 0)
    monkeypatch.setattr("fhir_adapters.fhir_files.processors", lambda: 2)
    two = extract(tmp_path / "in", tmp_path / "two")
    assert one == two
    assert written(tmp_path / "one") == written(tmp_path / "two")


def test_a_defect_of_ours_refuses_the_resource_and_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object, resource: dict[str, Any], **_: object) -> None:
        raise KeyError(resource["code"]["text"])

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "export.ndjson").write_bytes(orjson.dumps(OBSERVATION) + b"\n")
    monkeypatch.setattr("fhir_adapters.deidentify.Deidentifier.resource", fail)
    done = extract(tmp_path / "in", tmp_path / "out")
    assert done.more["left_out"] == {"?::failed": 1}
    assert NAME.encode() not in written(tmp_path / "out")
    with pytest.raises(PalmaresError) as caught:
        land([tmp_path / "out"], tmp_path / "landed")
    assert caught.value.code == "E-LAND-01"  # not one line of the file is a resource
