"""A landed folder becomes an accepted one: sound resources go on, each is looked at once, nothing is lost or shown."""

import json
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from fhir_adapters.errors import PalmaresError
from fhir_adapters.landing import land, read_manifest
from fhir_adapters.validation import validate, verdicts
from tests.landing_helpers import DERANDOMIZE, EXAMPLES, contents, landed, ndjson, quarantine
from tests.shared import SHARED, needs_shared


def observation(number: int, **more: object) -> dict:
    return {"resourceType": "Observation", "id": f"o{number}", "status": "final", "code": {"text": "x"}, **more}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two types landed; one Observation has a bad status, one line is cut off behind its id."""
    resources: list = [observation(n) for n in range(5)]
    resources += [
        observation(5, status="SECRET"),
        '{"resourceType":"Observation","id":"o6","status":"SECRET""}',
        "",
        "x",
    ]
    resources += [{"resourceType": "Patient", "id": "p", "gender": "female"}]
    resources += [
        {"request": 1, "resourceType": "Bundle", "entry": [{"request": {"method": "DELETE", "url": "Patient/q"}}]}
    ]
    ndjson(tmp_path / "in" / "all.ndjson", resources)
    land([tmp_path / "in"], tmp_path / "landed")
    return tmp_path / "landed"


@pytest.mark.requirement("f2o-012")
def test_the_sound_go_on_and_the_others_are_quarantined(folder: Path, tmp_path: Path) -> None:
    result = validate(folder, tmp_path / "accepted")
    accepted = tmp_path / "accepted"
    assert result.resources == {"Observation": 5, "Patient": 1}
    assert result.refused == {"Q-CODE": 1, "Q-JSON": 1}
    assert result.quarantined == {"Q-CODE": 1, "Q-JSON": 2}
    assert landed(accepted)["Observation"] == [orjson.dumps(observation(n)) for n in range(5)]
    at = "Observation/1-0001.ndjson"
    assert quarantine(accepted) == [
        ("?", "all.ndjson:9", "Q-JSON", "all.ndjson:9", None),
        ("Observation", "o5", "Q-CODE", f"{at}:6", "status"),
        ("?", f"{at}:7", "Q-JSON", f"{at}:7", None),
    ]
    assert contents(accepted)["deleted.parquet"] == contents(folder)["deleted.parquet"]
    manifest = read_manifest(accepted)
    assert manifest.deliveries == read_manifest(folder).deliveries
    assert [(shard.path, shard.resources) for shard in manifest.shards] == [(at, 5), ("Patient/1-0001.ndjson", 1)]
    assert all((accepted / shard.path).stat().st_size == shard.bytes for shard in manifest.shards)
    texts = [str(result), *map(str, quarantine(accepted)), (accepted / "manifest.json").read_text()]
    assert "SECRET" not in "".join(texts)


def test_a_sound_shard_is_linked_not_copied(folder: Path, tmp_path: Path) -> None:
    validate(folder, tmp_path / "accepted")
    name = "Patient/1-0001.ndjson"
    assert (folder / name).samefile(tmp_path / "accepted" / name)
    assert not (folder / "Observation/1-0001.ndjson").samefile(tmp_path / "accepted" / "Observation/1-0001.ndjson")


def test_a_shard_of_which_nothing_is_left(tmp_path: Path) -> None:
    ndjson(tmp_path / "in" / "all.ndjson", [observation(1, status="x"), {"resourceType": "Patient", "id": "p"}])
    land([tmp_path / "in"], tmp_path / "landed")
    assert validate(tmp_path / "landed", tmp_path / "accepted").resources == {"Patient": 1}
    assert [shard.resource_type for shard in read_manifest(tmp_path / "accepted").shards] == ["Patient"]


def test_shards_by_reference(tmp_path: Path) -> None:
    sound = ndjson(tmp_path / "in" / "Patient.ndjson", [{"resourceType": "Patient", "id": f"p{n}"} for n in range(200)])
    rows: list = [observation(n) for n in range(200)]
    rows[77] = {"resourceType": "Patient", "id": "foreign"}
    mixed = ndjson(tmp_path / "in" / "Observation.ndjson", rows)
    land([tmp_path / "in"], tmp_path / "landed", by_reference=True)
    result = validate(tmp_path / "landed", tmp_path / "accepted")
    assert result.resources == {"Observation": 199, "Patient": 200}
    paths = {shard.resource_type: shard.path for shard in read_manifest(tmp_path / "accepted").shards}
    assert paths == {"Observation": "Observation/1-r0001.ndjson", "Patient": str(sound.resolve())}
    ((kind, identity, reason, position, _),) = quarantine(tmp_path / "accepted")
    assert (kind, identity, reason) == ("Patient", "foreign", "Q-FOREIGN-TYPE")
    assert position.endswith(":78")
    assert mixed.read_bytes().count(b"\n") == 200


# ------------------------------------------------------------------------------------------------ the memory


def test_each_resource_is_looked_at_once(folder: Path, tmp_path: Path) -> None:
    memory = tmp_path / "verdicts.sqlite"
    first = validate(folder, tmp_path / "a", verdicts=memory)
    assert (first.looked_at, first.remembered) == (8, 0)
    again = validate(folder, tmp_path / "b", verdicts=memory)
    assert (again.looked_at, again.remembered) == (0, 8)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")

    # the same resources delivered again among others, and in another order
    rows = [orjson.dumps(observation(n)) for n in (7, 3, 8, 1)]
    ndjson(tmp_path / "in2" / "Observation.ndjson", rows)
    land([tmp_path / "in2"], folder, previous=folder)
    third = validate(folder, tmp_path / "c", verdicts=memory)
    assert (third.looked_at, third.remembered) == (2, 10)
    assert validate(folder, tmp_path / "d").quarantined == third.quarantined


def test_the_same_line_in_another_type_is_another_matter(tmp_path: Path) -> None:
    assert verdicts.digest("Patient", b"{}") != verdicts.digest("Observation", b"{}")


def test_other_rules_or_a_damaged_file_and_the_memory_begins_anew(folder: Path, tmp_path: Path) -> None:
    memory = tmp_path / "verdicts.sqlite"
    validate(folder, tmp_path / "a", verdicts=memory)
    with sqlite3.connect(memory) as connection:
        connection.execute("UPDATE rules SET signature = 'other'")
    assert validate(folder, tmp_path / "a", verdicts=memory).looked_at == 8
    memory.write_bytes(b"no database" * 1000)
    assert validate(folder, tmp_path / "a", verdicts=memory).looked_at == 8
    assert validate(folder, tmp_path / "a", verdicts=memory).looked_at == 0


def test_the_memory_holds_no_value(folder: Path, tmp_path: Path) -> None:
    validate(folder, tmp_path / "a", verdicts=tmp_path / "verdicts.sqlite")
    assert b"SECRET" not in (tmp_path / "verdicts.sqlite").read_bytes()


def test_a_changed_shard_is_looked_at_again(folder: Path, tmp_path: Path) -> None:
    memory = tmp_path / "verdicts.sqlite"
    validate(folder, tmp_path / "a", verdicts=memory)
    shard = folder / "Patient" / "1-0001.ndjson"
    stat = shard.stat()
    shard.unlink()
    ndjson(shard, [{"resourceType": "Patient", "id": "p", "gender": "femme!"}])
    os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert validate(folder, tmp_path / "b", verdicts=memory).refused == {"Q-CODE": 2, "Q-JSON": 1}


# ----------------------------------------------------------------------------------------- pool, faults, data


def test_one_worker_or_many(tmp_path: Path) -> None:
    rows: list = [observation(n, note=[{"text": "y" * 2000}]) for n in range(3000)]
    for bad in (0, 17, 1500, 2999):
        rows[bad]["status"] = "x"
    ndjson(tmp_path / "in" / "Observation.ndjson", rows)
    land([tmp_path / "in"], tmp_path / "landed")
    one = validate(tmp_path / "landed", tmp_path / "one", jobs=1)
    many = validate(tmp_path / "landed", tmp_path / "many", jobs=2, verdicts=tmp_path / "v")
    assert contents(tmp_path / "one") == contents(tmp_path / "many")
    assert one.resources == many.resources == {"Observation": 2996}
    assert [row[3].rpartition(":")[2] for row in quarantine(tmp_path / "one")] == ["1", "18", "1501", "3000"]


def test_faults_are_numbered(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for arguments, options, code in [
        ((tmp_path / "in", tmp_path / "accepted"), {}, "E-LAND-05"),
        ((folder, tmp_path / "file"), {}, "E-DISK-02"),
        ((folder, tmp_path / "accepted"), {"verdicts": tmp_path / "file" / "v"}, "E-DISK-02"),
        ((folder, tmp_path / "accepted"), {"verdicts": tmp_path}, "E-DISK-02"),
    ]:
        with pytest.raises(PalmaresError) as caught:
            validate(*arguments, **options)  # type: ignore[arg-type]
        assert caught.value.code == code
    assert not (tmp_path / "accepted").exists()


_VALUES = st.sampled_from(
    [None, 5, "", "x", "2021-03", [], {}, [{}], [None], {"reference": "Patient/SECRET"}, True, 1e300]
)
_NAMES = st.sampled_from(
    [
        *("status", "code", "subject", "valueQuantity", "category", "effectiveDateTime", "contained", "extension"),
        *("meta", "id", "component", "performer", "text", "_status", "SECRET", "", "resource_type", "class_fhir"),
        "fhir_comments",
    ]
)


@pytest.mark.long
@given(
    st.lists(st.dictionaries(_NAMES, _VALUES | st.dictionaries(_NAMES, _VALUES, max_size=2), max_size=4), max_size=8)
)
@settings(max_examples=EXAMPLES, deadline=None, derandomize=DERANDOMIZE)
def test_no_resource_breaks_it_and_none_is_lost(changes: list[dict]) -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        rows = [observation(n, **change) for n, change in enumerate(changes)]
        ndjson(place / "in" / "all.ndjson", [{"resourceType": "Patient", "id": "p"}, *rows])
        result = land([place / "in"], place / "landed")
        in_landing = sum(result.quarantined.values())
        checked = validate(place / "landed", place / "accepted")
        assert sum(checked.resources.values()) + sum(checked.refused.values()) + in_landing == len(rows) + 1
        assert not any("SECRET" in str(row[2:]) for row in quarantine(place / "accepted"))
        shutil.rmtree(place / "landed")


@needs_shared("fhir_synthea")
@needs_shared("fhir_mcode")
def test_of_the_shared_patients_only_what_is_not_r4_is_refused(tmp_path: Path) -> None:
    land(
        [SHARED / "data" / "fhir_mcode", *sorted((SHARED / "data" / "fhir_synthea").glob("A*.json"))],
        tmp_path / "landed",
    )
    before = read_manifest(tmp_path / "landed")
    result = validate(tmp_path / "landed", tmp_path / "accepted", jobs=1)
    landed_count = sum(shard.resources or 0 for shard in before.shards)
    assert sum(result.resources.values()) + sum(result.refused.values()) == landed_count
    rows = parquet.read_table(tmp_path / "accepted" / "quarantine.parquet").to_pylist()
    assert {row["resource_type"] for row in rows} & {"Patient", "Practitioner"} == set()
    assert result.resources["Patient"] == sum(s.resources or 0 for s in before.shards if s.resource_type == "Patient")
    # one of the mCODE patients is STU2 in part: lists where R4 has objects, and the other way round
    assert ("Observation", "Q-KIND", "category") in {(r["resource_type"], r["reason"], r["element"]) for r in rows}
    assert json.dumps(result.refused)
