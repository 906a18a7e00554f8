"""Files as hospitals deliver them become shards: nothing lost, the bad quarantined by line, all the same however it is cut."""

import gzip
import hashlib
import io
import json
import random
import shutil
from collections import Counter
from pathlib import Path
from unittest import mock

import orjson
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_adapters.errors import PalmaresError
from fhir_adapters.landing import land, landing, lines, read_manifest
from tests.landing_helpers import DERANDOMIZE, EXAMPLES, contents, deleted, landed, ndjson, quarantine
from tests.shared import SHARED, needs_shared


def patient(number: int | str, **more: object) -> dict:
    return {"resourceType": "Patient", "id": f"p{number}", **more}


def observation(number: int | str, **more: object) -> dict:
    return {"resourceType": "Observation", "id": f"o{number}", "status": "final", **more}


def bundle(*entries: dict, type: str = "collection", **more: object) -> dict:
    return {"resourceType": "Bundle", "type": type, "entry": list(entries), **more}


def error_of(*arguments: object, **options: object) -> str:
    with pytest.raises(PalmaresError) as caught:
        land(*arguments, **options)  # type: ignore[arg-type]
    return caught.value.code


# ------------------------------------------------------------------------------------------------------ forms


@pytest.mark.requirement("f2o-014")
@pytest.mark.parametrize("ending", ["ndjson", "jsonl", "NDJSON"])
@pytest.mark.parametrize("compress", ["", ".gz", ".zst"])
def test_ndjson_in_each_form(tmp_path: Path, ending: str, compress: str) -> None:
    text = b"".join(orjson.dumps(item) + b"\n" for item in (patient(1), observation(1), patient(2)))
    packed = {"": text, ".gz": gzip.compress(text), ".zst": zstandard.compress(text)}[compress]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"all.{ending}{compress}").write_bytes(packed)
    result = land([tmp_path / "in"], tmp_path / "out")
    assert result.resources == {"Observation": 1, "Patient": 2}
    assert landed(tmp_path / "out") == {
        "Observation": [orjson.dumps(observation(1))],
        "Patient": [orjson.dumps(patient(1)), orjson.dumps(patient(2))],
    }
    assert quarantine(tmp_path / "out") == []


@pytest.mark.parametrize("compress", ["", ".gz", ".zst"])
def test_documents_in_each_form(tmp_path: Path, compress: str) -> None:
    documents = {
        "deep/er/bundle": bundle({"resource": patient(1)}, {"resource": observation(1)}),
        "one": patient(2),
        "many": [patient(3), bundle({"resource": observation(2)})],
    }
    for name, document in documents.items():
        text = json.dumps(document, indent=2).encode()
        path = tmp_path / "in" / f"{name}.json{compress}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes({"": text, ".gz": gzip.compress(text), ".zst": zstandard.compress(text)}[compress])
    result = land([tmp_path / "in"], tmp_path / "out")
    assert result.resources == {"Observation": 2, "Patient": 3}
    assert not result.quarantined


def test_endings_that_lie(tmp_path: Path) -> None:
    """NDJSON called .json, a document over many lines called .ndjson, a byte order mark, Windows' line ends, blank lines."""
    (tmp_path / "a.json").write_bytes(b"\n".join(orjson.dumps(patient(n)) for n in range(3)) + b"\n")
    (tmp_path / "b.ndjson").write_text(json.dumps(bundle({"resource": patient(3)}), indent=1))
    (tmp_path / "c.ndjson").write_bytes(
        b"\xef\xbb\xbf" + orjson.dumps(patient(4)) + b"\r\n\r\n" + orjson.dumps(patient(5))
    )
    (tmp_path / "d.json").write_bytes(b"\xef\xbb\xbf" + orjson.dumps(patient(6)))
    result = land([tmp_path], tmp_path / "out")
    assert result.resources == {"Patient": 7}
    assert not result.quarantined
    assert landed(tmp_path / "out")["Patient"][4] == orjson.dumps(patient(4))


def test_what_is_no_fhir_is_named_when_its_name_may_be_shown(tmp_path: Path) -> None:
    ndjson(tmp_path / "Patient.ndjson", [patient(1)])
    (tmp_path / "export.log").write_text("x")
    (tmp_path / "Patient.csv").write_text("x")
    (tmp_path / ".hidden.json").write_text("x")
    result = land([tmp_path], tmp_path / "out")
    assert "Patient.csv" not in result.skipped  # csv is no neutral word
    assert len(result.skipped) == 3
    assert all(name.startswith("file-") for name in result.skipped)


def test_a_file_reached_twice_is_read_once_and_the_landed_folder_never(tmp_path: Path) -> None:
    ndjson(tmp_path / "in" / "Patient.ndjson", [patient(1)])
    out = tmp_path / "in" / "landed"
    for _ in range(2):
        result = land([tmp_path / "in", tmp_path / "in" / "Patient.ndjson"], out)
        assert result.resources == {"Patient": 1}


def test_manifests_of_ours_are_passed_by_and_others_are_told(tmp_path: Path) -> None:
    ndjson(tmp_path / "in" / "Patient.ndjson", [patient(1)])
    (tmp_path / "in" / "manifest.json").write_text('{"extraction": "fhir_files", "files": 1}')
    (tmp_path / "in" / "export.json").write_text('{"transactionTime": "2024-01-01T00:00:00Z", "output": []}')
    land([tmp_path / "in"], tmp_path / "out")
    assert quarantine(tmp_path / "out") == [("?", "export.json", "Q-NO-FHIR", "export.json", None)]
    land([tmp_path / "out"], tmp_path / "again")
    assert landed(tmp_path / "again") == landed(tmp_path / "out")
    assert quarantine(tmp_path / "again") == []


# ---------------------------------------------------------------------------------------------------- Bundles


@pytest.mark.requirement("f2o-013")
@pytest.mark.parametrize("kind", ["document", "collection", "message", "transaction", "batch", "searchset", "history"])
def test_every_type_of_bundle_is_unpacked(tmp_path: Path, kind: str) -> None:
    (tmp_path / "bundle.json").write_bytes(orjson.dumps(bundle({"resource": patient(1)}, {}, type=kind)))
    assert land([tmp_path], tmp_path / "out").resources == {"Patient": 1}


def test_a_history_gives_versions_and_deletes(tmp_path: Path) -> None:
    history = bundle(
        {
            "fullUrl": "http://x/fhir/Patient/p1",
            "request": {"method": "DELETE", "url": "Patient/p1"},
            "response": {"lastModified": "2024-03-01T00:00:00Z"},
        },
        {"resource": patient(1, meta={"versionId": "2"}), "request": {"method": "PUT", "url": "Patient/p1"}},
        {"resource": patient(1, meta={"versionId": "1"})},
        {"fullUrl": "http://x/fhir/Patient/p2/_history/3", "request": {"method": "DELETE"}},
        {"resource": patient(3), "request": {"method": "DELETE", "url": "http://x/Patient/p3"}},
        type="history",
        timestamp="2024-04-01T00:00:00Z",
    )
    (tmp_path / "history.json").write_bytes(orjson.dumps(history))
    result = land([tmp_path], tmp_path / "out")
    assert result.resources == {"Patient": 3}
    assert deleted(tmp_path / "out") == [
        ("Patient", "p1", "2024-03-01T00:00:00Z", 1),
        ("Patient", "p2", "2024-04-01T00:00:00Z", 1),
        ("Patient", "p3", "2024-04-01T00:00:00Z", 1),
    ]


def test_bundles_as_lines_and_the_deletes_of_bulk_exports(tmp_path: Path) -> None:
    gone = [{"request": {"method": "DELETE", "url": f"Observation/o{n}"}} for n in (7, 8)]
    lines_ = [
        bundle(*gone, type="transaction", meta={"lastUpdated": "2020-04-27T02:56:00Z"}),
        patient(1),
        bundle({"resource": patient(2)}, {"resource": "text"}, {"resource": {"resourceType": "Patient"}}, "x"),
        bundle({"request": {"method": "DELETE", "url": "Patient?identifier=SECRET"}}),
        bundle({"resource": bundle({"resource": observation(1)}, {"resource": 5})}),
        {"resourceType": "Bundle", "type": "collection", "entry": {}},
        {"resourceType": "Bundle", "type": "collection"},
    ]
    ndjson(tmp_path / "deleted.ndjson", lines_)
    result = land([tmp_path], tmp_path / "out")
    assert result.resources == {"Observation": 1, "Patient": 2}
    assert deleted(tmp_path / "out") == [("Observation", f"o{n}", "2020-04-27T02:56:00Z", 1) for n in (7, 8)]
    at = "deleted.ndjson"
    assert quarantine(tmp_path / "out") == [
        ("?", f"{at}:3 entry 2", "Q-OBJECT", f"{at}:3 entry 2", None),
        ("Patient", None, "Q-NO-ID", f"{at}:3 entry 3", None),
        ("?", f"{at}:3 entry 4", "Q-ENTRY", f"{at}:3 entry 4", None),
        ("?", f"{at}:4 entry 1", "Q-DELETE", f"{at}:4 entry 1", None),
        ("?", f"{at}:5 entry 1.2", "Q-OBJECT", f"{at}:5 entry 1.2", None),
        ("?", f"{at}:6 entry 1", "Q-ENTRY", f"{at}:6 entry 1", None),
    ]


def test_urns_become_references_that_hold_outside_the_bundle(tmp_path: Path) -> None:
    one, two, three = (f"urn:uuid:{n * 8}-0000-4000-8000-000000000000" for n in "123")
    document = bundle(
        {"fullUrl": one, "resource": patient(1)},
        {"fullUrl": two, "resource": {"resourceType": "Encounter"}},  # POST: no id yet
        {"fullUrl": three, "resource": {"resourceType": "Organization", "id": three[9:]}},
        {
            "resource": observation(
                1,
                subject={"reference": one},
                encounter={"reference": two},
                performer=[{"reference": three}, {"reference": "urn:uuid:elsewhere"}, {"reference": 5}],
                contained=[{"resourceType": "Specimen", "subject": {"reference": one}}],
                note=[{"text": one}],
            )
        },
    )
    (tmp_path / "bundle.json").write_bytes(orjson.dumps(document))
    land([tmp_path], tmp_path / "out")
    lines_ = landed(tmp_path / "out")
    found = orjson.loads(lines_["Observation"][0])
    assert orjson.loads(lines_["Encounter"][0])["id"] == two[9:]
    assert found["subject"]["reference"] == "Patient/p1"
    assert found["contained"][0]["subject"]["reference"] == "Patient/p1"
    assert found["encounter"]["reference"] == two  # its resource's id is this uuid
    assert [item["reference"] for item in found["performer"]] == [three, "urn:uuid:elsewhere", 5]
    assert found["note"][0]["text"] == one


def test_one_bad_entry_does_not_take_its_bundle_with_it(tmp_path: Path) -> None:
    good = '{"resource":{"resourceType":"Patient","id":"a","x":[1.50,12345678901234567890123]}}'
    bad = {
        "Q-DUPLICATE-KEY": '{"resourceType":"Patient","id":"b","y":[{"SECRET":1,"SECRET":2}]}',
        "Q-JSON": '{"resourceType":"Patient","id":"c","y":NaN}',
        "Q-CHARACTER": '{"resourceType":"Patient","id":"d","y":"\\ud800"}',
        "Q-DEPTH": '{"resourceType":"Patient","id":"e","y":' + "[" * 400 + "]" * 400 + "}",
    }
    entries = ",".join(f'{{"resource":{text}}}' for text in bad.values())
    (tmp_path / "bundle.json").write_text(f'{{"resourceType":"Bundle","entry":[{entries},{good}]}}')
    assert land([tmp_path], tmp_path / "out").resources == {"Patient": 1}
    rows = quarantine(tmp_path / "out")
    assert [row[2] for row in rows] == list(bad)
    assert [row[1] for row in rows] == ["b", "c", "d", "e"]
    assert orjson.loads(landed(tmp_path / "out")["Patient"][0])["x"][0] == 1.5


# ------------------------------------------------------------------------------------------------- quarantine


def stand_in(identity: object) -> str:
    """What a ledger shows for an id that is none: distinct for distinct ids, and not the id."""
    return "id-" + hashlib.md5(repr(identity).encode(), usedforsecurity=False).hexdigest()[:12]


BAD_LINES: list[tuple[bytes, str, str, str | None]] = [
    # line, reason, type, id ("@": its position)
    (b'{"resourceType":"Patient","id":"x"', "Q-JSON", "?", "@"),
    (b"garbage", "Q-JSON", "?", "@"),
    (b'{"id":"x","resourceType":"Patient",}', "Q-JSON", "?", "@"),
    (b'{"id":"x","resourceType":"Patient","n":1e999}', "Q-JSON", "?", "@"),
    (b'{"id":"\xff","resourceType":"Patient"}', "Q-ENCODING", "?", "@"),
    (b'{"id":"x","n":"a\x00b","resourceType":"Patient"}', "Q-CHARACTER", "?", "@"),
    (b'{"id":"x","n":"\\ud800","resourceType":"Patient"}', "Q-CHARACTER", "?", "@"),
    (b'{"id":"x","n":' + b"[" * 5000 + b"]" * 5000 + b"}", "Q-DEPTH", "?", "@"),
    (b'{"id":"x","n":' + b"[" * 1030 + b"]" * 1030 + b"}", "Q-DEPTH", "?", "@"),
    (b"[1]", "Q-OBJECT", "?", "@"),
    (b"null", "Q-OBJECT", "?", "@"),
    (b'{"id":"x"}', "Q-NO-TYPE", "?", "@"),
    (b'{"resourceType":5,"id":"x"}', "Q-NO-TYPE", "?", "@"),
    (b'{"resourceType":"MedicationOrder","id":"x"}', "Q-UNKNOWN-TYPE", "MedicationOrder", "x"),
    (b'{"resourceType":"SECRET SENTENCE","id":"x"}', "Q-UNKNOWN-TYPE", "?", "@"),
    (b'{"resourceType":"Patient"}', "Q-NO-ID", "Patient", None),
    (b'{"resourceType":"Patient","id":null}', "Q-NO-ID", "Patient", None),
    (b'{"resourceType":"Patient","id":"SECRET NAME"}', "Q-BAD-ID", "Patient", stand_in("SECRET NAME")),
    (b'{"resourceType":"Patient","id":[5]}', "Q-BAD-ID", "Patient", stand_in([5])),
    (b'{"resourceType":"Patient","id":1e30}', "Q-BAD-ID", "Patient", stand_in(1e30)),
    (b'{"resourceType":"Patient","id":""}', "Q-BAD-ID", "Patient", stand_in("")),
    (b'{"resourceType":"Patient","id":"' + b"y" * 65 + b'"}', "Q-BAD-ID", "Patient", stand_in("y" * 65)),
    (b'{"resourceType":"Patient","id":"x","n":"' + b"y" * 2**24 + b'"}', "Q-SIZE", "Patient", "x"),
    (b'{"n":"' + b"y" * 2**24 + b'"}', "Q-SIZE", "?", "@"),
]


@pytest.mark.parametrize(("line", "reason", "kind", "identity"), BAD_LINES)
@pytest.mark.parametrize("compress", [False, True])
def test_a_bad_line_is_quarantined_and_its_neighbours_land(
    tmp_path: Path, line: bytes, reason: str, kind: str, identity: str | None, compress: bool
) -> None:
    text = b"\n".join([orjson.dumps(patient(1)), line, orjson.dumps(patient(2))])
    name = "Patient.ndjson.gz" if compress else "Patient.ndjson"
    (tmp_path / name).write_bytes(gzip.compress(text, 1) if compress else text)
    result = land([tmp_path], tmp_path / "out")
    position = f"{name}:2"
    expected = (kind, position if identity == "@" else identity, reason, position, None)
    assert quarantine(tmp_path / "out") == [expected]
    assert result.quarantined == {reason: 1}
    assert result.resources == {"Patient": 2}
    assert "SECRET" not in str(result) + (tmp_path / "out" / "manifest.json").read_text()


@pytest.mark.parametrize("identity", ["a_b", "A.b-9", "urn:uuid:1", "è", "x" * 64, 5, 1.5, True])
def test_ids_as_systems_write_them_pass(tmp_path: Path, identity: object) -> None:
    ndjson(tmp_path / "in.ndjson", [{"resourceType": "Patient", "id": identity}])
    assert land([tmp_path], tmp_path / "out").resources == {"Patient": 1}


def test_distinct_resources_balance(tmp_path: Path) -> None:
    """Type and id of all that was read, counted as tools/check_ledger.py counts: resources without id are one per type."""
    resources = [patient(1), patient(1), {"resourceType": "Patient"}, {"resourceType": "Patient", "x": 1}]
    resources += [{"resourceType": "Patient", "id": 5}, {"resourceType": "Patient", "id": "a b"}]
    resources += [{"resourceType": "patient", "id": "q"}, {"resourceType": "Device_1", "id": "q"}, observation(1)]
    ndjson(tmp_path / "in.ndjson", resources)
    land([tmp_path], tmp_path / "out")
    read = Counter(kind for kind, _ in {(item["resourceType"], item.get("id")) for item in resources})
    seen = {(row[0], row[1]) for row in quarantine(tmp_path / "out")}
    for kind, text in landed(tmp_path / "out").items():
        seen |= {(kind, orjson.loads(line)["id"]) for line in text}
    assert Counter(kind for kind, _ in seen) == read


# ------------------------------------------------------------------------------------------------- whole files


_NOISE = random.Random(7)


def _damaged(text: bytes) -> dict[str, bytes]:
    packed, frame = gzip.compress(text), zstandard.compress(text)
    return {
        "cut.ndjson.gz": packed[:-20],
        "tail.ndjson.gz": packed[:-1],
        "flipped.ndjson.gz": packed[:-6] + bytes([packed[-6] ^ 1]) + packed[-5:],
        "empty.ndjson.gz": b"",
        "plain.ndjson.gz": text,
        "cut.ndjson.zst": frame[:-20],
        "plain.ndjson.zst": text,
        "cut.json.gz": packed[:-20],
        "cut.json.zst": frame[:-20],
    }


_TEXT = b"".join(orjson.dumps(patient(n, name=_NOISE.randbytes(30).hex())) + b"\n" for n in range(2000))


@pytest.mark.parametrize(("name", "data"), _damaged(_TEXT).items(), ids=list(_damaged(_TEXT)))
def test_a_damaged_stream_is_an_error_or_one_row(tmp_path: Path, name: str, data: bytes) -> None:
    ndjson(tmp_path / "in" / "a.ndjson", [patient("first")])
    (tmp_path / "in" / f"m-{name}").write_bytes(data)
    ndjson(tmp_path / "in" / "z.ndjson", [patient("last")])
    assert error_of([tmp_path / "in"], tmp_path / "out") == "E-LAND-03"
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    result = land([tmp_path / "in"], tmp_path / "out", skip_unreadable=True)
    assert result.resources == {"Patient": 2}  # nothing of the damaged file, all of its neighbours
    assert list(result.failed.values()) == ["Q-FILE-DAMAGED"]
    ((kind, identity, reason, position, _),) = quarantine(tmp_path / "out")
    assert (kind, identity, reason) == ("?", position, "Q-FILE-DAMAGED")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.ndjson", b"no json\nat all\n"),
        ("a.ndjson", _NOISE.randbytes(1000)),
        ("a.json", b'{"resourceType":"Bundle","entry":[{"resource":'),
        ("a.json", b""),
        ("a.json", json.dumps(patient(1)).encode("utf-16")),
        ("a.json.gz", gzip.compress(b"<xml/>")),
        ("a.json", b'{"a":' * 100_000),
    ],
    ids=["text", "noise", "cut-off", "empty", "utf-16", "xml", "deep"],  # the same in each process of a parallel run
)
def test_a_file_of_which_nothing_parses(tmp_path: Path, name: str, data: bytes) -> None:
    ndjson(tmp_path / "in" / "Patient.ndjson", [patient(1)])
    (tmp_path / "in" / name).write_bytes(data)
    assert error_of([tmp_path / "in"], tmp_path / "out") == "E-LAND-02"
    assert not (tmp_path / "out").exists()
    assert land([tmp_path / "in"], tmp_path / "out", skip_unreadable=True).quarantined == {"Q-FILE-JSON": 1}


def test_nothing_there(tmp_path: Path) -> None:
    assert error_of([tmp_path / "absent"], tmp_path / "out") == "E-LAND-01"
    (tmp_path / "in").mkdir()
    assert error_of([tmp_path / "in"], tmp_path / "out") == "E-LAND-01"
    (tmp_path / "in" / "readme.txt").write_text("x")
    assert error_of([tmp_path / "in"], tmp_path / "out") == "E-LAND-01"
    (tmp_path / "in" / "export.json").write_text("{}")
    assert error_of([tmp_path / "in"], tmp_path / "out") == "E-LAND-01"
    assert not (tmp_path / "out").exists()


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    """As root every file may be read; a link that turns on itself may not."""
    ndjson(tmp_path / "in" / "a.ndjson", [patient(1)])
    path = ndjson(tmp_path / "in" / "b.ndjson", [patient(2)])
    real = Path.open

    def refuse(self: Path, *arguments: object, **options: object) -> object:
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *arguments, **options)  # type: ignore[call-overload]

    with mock.patch.object(Path, "open", refuse):
        assert error_of([tmp_path / "in"], tmp_path / "out") == "E-LAND-04"
        result = land([tmp_path / "in"], tmp_path / "out", skip_unreadable=True)
    assert result.quarantined == {"Q-FILE-UNREADABLE": 1}
    assert result.resources == {"Patient": 1}


def test_previous_must_be_a_landed_folder(tmp_path: Path) -> None:
    ndjson(tmp_path / "in" / "a.ndjson", [patient(1)])
    for text in (None, "{}", '{"format": 2}', "x", '{"format": 1, "deliveries": [{}], "shards": [], "skipped": []}'):
        (tmp_path / "old").mkdir(exist_ok=True)
        if text is not None:
            (tmp_path / "old" / "manifest.json").write_text(text)
        assert error_of([tmp_path / "in"], tmp_path / "out", previous=tmp_path / "old") == "E-LAND-05"


# ------------------------------------------------------------------------------------------------ by reference


def test_a_file_of_one_type_lands_where_it_lies(tmp_path: Path) -> None:
    path = ndjson(tmp_path / "in" / "Patient.ndjson", [patient(n) for n in range(100)])
    keys_in_another_order = [{"id": f"o{n}", "resourceType": "Observation"} for n in range(100)]
    other = ndjson(tmp_path / "in" / "obs.ndjson", keys_in_another_order)
    result = land([tmp_path / "in"], tmp_path / "out", by_reference=True)
    manifest = read_manifest(tmp_path / "out")
    assert {(shard.resource_type, shard.path, shard.resources) for shard in manifest.shards} == {
        ("Patient", str(path.resolve()), None),
        ("Observation", str(other.resolve()), None),
    }
    assert result.resources == {"Observation": None, "Patient": None}
    assert land([tmp_path / "in"], tmp_path / "copy").resources == {"Observation": 100, "Patient": 100}


@pytest.mark.parametrize(
    "lines_",
    [
        [*(patient(n) for n in range(50)), *(observation(n) for n in range(50))],
        [bundle({"resource": patient(1)})],
        [*(patient(n) for n in range(5)), "garbage"],
        [{"resourceType": "Foo", "id": "1"}, patient(1)],
    ],
)
def test_any_other_file_is_copied(tmp_path: Path, lines_: list) -> None:
    ndjson(tmp_path / "in" / "Patient.ndjson", lines_)
    (tmp_path / "in" / "Patient.ndjson.gz").write_bytes(gzip.compress(orjson.dumps(patient("packed"))))
    land([tmp_path / "in"], tmp_path / "out", by_reference=True)
    assert not any(Path(shard.path).is_absolute() for shard in read_manifest(tmp_path / "out").shards)


# -------------------------------------------------------------------------------------------------- deliveries


def test_deliveries_add_up_and_a_repeated_one_adds_nothing(tmp_path: Path) -> None:
    out = tmp_path / "landed"
    first = ndjson(tmp_path / "1" / "all.ndjson", [patient(1), observation(1), {"resourceType": "Patient"}])
    ndjson(
        tmp_path / "2" / "new.ndjson",
        [patient(1, active=True), bundle({"request": {"method": "DELETE", "url": "Observation/o1"}})],
    )
    land([tmp_path / "1"], out)
    before = contents(out)
    result = land([tmp_path / "2"], out, previous=out)
    assert (result.added, result.delivery, result.resources) == (True, 2, {"Observation": 1, "Patient": 2})
    assert deleted(out) == [("Observation", "o1", None, 2)]
    assert [row[2] for row in quarantine(out)] == ["Q-NO-ID"]
    manifest = read_manifest(out)
    assert [(shard.path, shard.delivery) for shard in manifest.shards] == [
        ("Observation/1-0001.ndjson", 1),
        ("Patient/1-0001.ndjson", 1),
        ("Patient/2-0001.ndjson", 2),
    ]
    assert [item.number for item in manifest.deliveries] == [1, 2]
    assert contents(out)["Patient/1-0001.ndjson"] == before["Patient/1-0001.ndjson"]

    now = contents(out)
    first.rename(first.with_name("renamed.ndjson"))  # the same content under another name
    result = land([tmp_path / "1"], out, previous=out)
    assert (result.added, result.delivery) == (False, 1)
    assert contents(out) == now


def test_an_empty_delivery_after_another_is_no_error(tmp_path: Path) -> None:
    ndjson(tmp_path / "1" / "Patient.ndjson", [patient(1)])
    ndjson(tmp_path / "2" / "Patient.ndjson", [])
    land([tmp_path / "1"], tmp_path / "out")
    result = land([tmp_path / "2"], tmp_path / "out", previous=tmp_path / "out")
    assert (result.added, result.resources) == (True, {"Patient": 1})


def test_the_newest_instant_of_a_delivery(tmp_path: Path) -> None:
    times = [
        "2024-03-01T23:30:00+02:00",
        "2024-03-01T22:00:00Z",
        "2024-03-02T00:30:00+05:00",
        "2023-12-31T00:00:00Z",
        "x",
    ]
    ndjson(tmp_path / "in.ndjson", [patient(n, meta={"lastUpdated": at}) for n, at in enumerate(times)])
    land([tmp_path], tmp_path / "out")
    assert read_manifest(tmp_path / "out").deliveries[0].newest == "2024-03-01T22:00:00Z"


# ---------------------------------------------------------------------------------- cut and spread as you like


@given(
    st.lists(st.one_of(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")), st.just(b"x" * 70)), max_size=30),
    st.booleans(),
    st.integers(1, 64),
    st.integers(1, 5),
)
@settings(max_examples=EXAMPLES * 4, deadline=None, derandomize=DERANDOMIZE)
def test_pieces_of_a_file_give_its_lines_once_each(texts: list[bytes], ended: bool, block: int, blocks: int) -> None:
    data = b"\n".join(texts) + (b"\n" if ended else b"")
    found: list[bytes] = []
    numbers = 0
    with mock.patch.object(lines, "BLOCK", block), mock.patch.object(lines, "LARGEST_LINE", 60):
        step = block * blocks
        for start in range(0, len(data), step):
            for text, is_head in lines.whole_lines(
                lines.ranged(io.BytesIO(data), start, min(start + step, len(data)), [])
            ):
                run = [text] if is_head else text.split(b"\n")
                numbers += len(run)
                found += [line for line in run if line]
        whole = [
            line
            for text, is_head in lines.whole_lines(lines.ranged(io.BytesIO(data), 0, None, []))
            for line in ([text] if is_head else text.split(b"\n"))
        ]
    expected = data.split(b"\n")
    assert [line[:60] for line in found] == [line[:60] for line in expected if line]
    assert [line[:60] for line in whole if line] == [line[:60] for line in expected if line]
    assert numbers in (len(expected), len(expected) - 1)  # what follows the last newline may be nothing


def test_one_worker_or_many_small_pieces_or_large_the_lines_are_the_same(tmp_path: Path) -> None:
    wide = "y" * 5000
    resources: list = [
        patient(n, note=wide) if n % 3 else observation(n, note=wide) if n % 2 else f"bad {n}" for n in range(4000)
    ]
    ndjson(tmp_path / "in" / "all.ndjson", resources)
    for part in range(3):
        name = tmp_path / "in" / f"bundle-{part}.json"
        name.write_bytes(orjson.dumps(bundle(*({"resource": patient(f"{part}-{n}")} for n in range(200)))))
    pool = land([tmp_path / "in"], tmp_path / "pool", jobs=3)
    assert land([tmp_path / "in"], tmp_path / "one", jobs=1).resources == pool.resources
    assert contents(tmp_path / "one") == contents(tmp_path / "pool")
    with (
        mock.patch.object(landing, "_TASK", (2**20, 2**20)),
        mock.patch.object(landing, "BLOCK", 2**16),
        mock.patch.object(lines, "BLOCK", 2**16),
    ):
        small = land([tmp_path / "in"], tmp_path / "small", jobs=1)
    assert len(read_manifest(tmp_path / "small").shards) > len(read_manifest(tmp_path / "one").shards)
    assert {k: sorted(v) for k, v in landed(tmp_path / "small").items()} == {
        k: sorted(v) for k, v in landed(tmp_path / "one").items()
    }
    assert small.resources == pool.resources
    assert quarantine(tmp_path / "small") == quarantine(tmp_path / "one")
    bad = [f"all.ndjson:{n + 1}" for n, item in enumerate(resources) if isinstance(item, str)]
    assert [row[3] for row in quarantine(tmp_path / "one")] == bad


# -------------------------------------------------------------------------------------------------------- fuzz


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_RESOURCE = st.fixed_dictionaries(
    {},
    optional={
        "resourceType": st.sampled_from(["Patient", "Observation", "Bundle", "Foo", 5, None, ""]) | _JSON,
        "id": st.sampled_from(["1", "2", "a b", "", None, 3]) | _JSON,
        "entry": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "resource": st.sampled_from([patient(1), {"resourceType": "Patient"}, None]) | _JSON,
                    "fullUrl": st.sampled_from(["urn:uuid:1", "urn:uuid:", "http://x/Patient/1", 5]),
                    "request": st.sampled_from([{"method": "DELETE", "url": "Patient/1"}, {"method": "DELETE"}, 5]),
                    "response": st.sampled_from([{"lastModified": "2020"}, {"lastModified": 5}, [], None]),
                },
            )
            | _JSON,
            max_size=3,
        )
        | _JSON,
        "meta": st.sampled_from([{"lastUpdated": "9999-12-31T23:59:59+14:00"}, {"lastUpdated": 5}]) | _JSON,
    },
)
_MUTANT = st.builds(
    lambda text, at, cut, junk: text[: at % (len(text) + 1)] + junk + text[at % (len(text) + 1) + cut :],
    _RESOURCE.map(lambda item: json.dumps(item).encode()),
    st.integers(0, 300),
    st.integers(0, 4),
    st.binary(max_size=3),
)


@pytest.mark.long
@given(
    st.sampled_from(["data.ndjson", "data.json", "data.ndjson.gz", "data.json.zst"]),
    st.lists(st.binary(max_size=60) | _MUTANT | _RESOURCE.map(lambda item: json.dumps(item).encode()), max_size=6),
    st.booleans(),
)
@settings(max_examples=EXAMPLES * 2, deadline=None, derandomize=DERANDOMIZE)
def test_no_input_breaks_it(tmp_path_factory: pytest.TempPathFactory, name: str, texts: list[bytes], raw: bool) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    data = b"\n".join(texts)
    if not raw:
        data = (
            gzip.compress(data) if name.endswith("gz") else zstandard.compress(data) if name.endswith("zst") else data
        )
    (folder / name).write_bytes(data)
    ndjson(folder / "part.ndjson", [patient("sound")])
    result = land([folder], folder / "out", skip_unreadable=True)
    lines_ = landed(folder / "out")
    assert orjson.dumps(patient("sound")) in lines_["Patient"]
    assert sum(map(len, lines_.values())) == sum(count or 0 for count in result.resources.values())
    for kind, identity, reason, position, _ in quarantine(folder / "out"):
        assert reason.startswith("Q-")
        assert position.startswith(name)
        assert kind != "?" or identity == position
    shutil.rmtree(folder)


# --------------------------------------------------------------------------------------- data of other people


@needs_shared("fhir_synthea")
@needs_shared("fhir_mcode")
def test_nothing_of_the_shared_patients_is_lost(tmp_path: Path) -> None:
    expected: Counter[str] = Counter()
    for path in [*(SHARED / "data" / "fhir_synthea").glob("*.json"), *(SHARED / "data" / "fhir_mcode").glob("*.json")]:
        document = json.loads(path.read_text())
        items = document if isinstance(document, list) else [entry["resource"] for entry in document["entry"]]
        expected.update(item["resourceType"] for item in items)
    result = land([SHARED / "data" / "fhir_synthea", SHARED / "data" / "fhir_mcode"], tmp_path / "out", jobs=1)
    unknown = Counter(row[0] for row in quarantine(tmp_path / "out"))
    assert Counter(result.resources) + unknown == expected
    assert unknown == {"MedicationOrder": 2}
    assert result.files == 43
    manifest = (tmp_path / "out" / "manifest.json").read_text()
    assert not any(path.stem in manifest for path in (SHARED / "data" / "fhir_synthea").glob("*.json"))
