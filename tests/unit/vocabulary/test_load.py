"""Athena's files as they come: unescaped quotes, BOM, CRLF, any subset, and rows that do not fit."""

import hashlib
import json
import os

import duckdb
import pytest

from fhir_adapters.errors import PalmaresError
from omop_etl.vocabulary import load, open_vocabulary
from tests.vocabulary_helpers import CONCEPT, RELATIONSHIP, concept, relation, write, write_athena

CONCEPTS = [
    concept(2, "SNOMED", "222", name="a \"quoted\" name, with comma and 'apostrophe'"),
    concept(1, "SNOMED", "111", name='one " alone'),
    concept(3, "ICD10", "C50", standard="", name="è città 乳癌"),
]
RELATIONS = [relation(3, 1), relation(1, 1), relation(2, 2)]


def rows(vocabulary, table="concept", order="concept_id"):
    return duckdb.execute(f"FROM {vocabulary.relation(table)} ORDER BY {order}").fetchall()


def test_quotes_and_other_languages_are_characters_like_any_other(tmp_path):
    loaded = load(write_athena(tmp_path / "athena", CONCEPTS, RELATIONS), tmp_path / "out")
    names = {row[0]: row[1] for row in rows(loaded)}
    assert names == {1: 'one " alone', 2: "a \"quoted\" name, with comma and 'apostrophe'", 3: "è città 乳癌"}


def test_types_and_nulls(tmp_path):
    loaded = load(write_athena(tmp_path / "athena", CONCEPTS, RELATIONS), tmp_path / "out")
    found = rows(loaded)[2]
    assert found[5] is None and found[9] is None
    assert [str(value) for value in found[7:9]] == ["1970-01-01", "2099-12-31"]


@pytest.mark.parametrize("options", [{"end": "\r\n"}, {"start": "\ufeff"}, {"start": "\ufeff", "end": "\r\n"}])
def test_windows_line_ends_and_bom_change_nothing(tmp_path, options):
    plain = load(write_athena(tmp_path / "plain", CONCEPTS, RELATIONS), tmp_path / "out1")
    other = load(write_athena(tmp_path / "other", CONCEPTS, RELATIONS, **options), tmp_path / "out2")
    assert rows(plain) == rows(other) and other.release == "v-test"
    assert rows(plain, "concept_relationship", "ALL") == rows(other, "concept_relationship", "ALL")


def test_columns_in_another_order_and_in_capitals(tmp_path):
    folder = write_athena(tmp_path / "athena", CONCEPTS, RELATIONS)
    write(folder / "CONCEPT.csv", [name.upper() for name in reversed(CONCEPT)], [row[::-1] for row in CONCEPTS])
    plain = load(write_athena(tmp_path / "plain", CONCEPTS, RELATIONS), tmp_path / "out1")
    assert rows(load(folder, tmp_path / "out2")) == rows(plain)


def test_dates_with_hyphens(tmp_path):
    dated = [(*row[:7], "1970-01-01", "2099-12-31", row[9]) for row in CONCEPTS]
    folder = write_athena(tmp_path / "athena", dated, RELATIONS)
    assert [str(row[8]) for row in rows(load(folder, tmp_path / "out"))] == ["2099-12-31"] * 3


def test_lock_holds_release_hashes_and_rows_and_nothing_of_today(tmp_path):
    athena = write_athena(tmp_path / "athena", CONCEPTS, RELATIONS, ancestors=[(1, 2)])
    loaded = load(athena, tmp_path / "out")
    lock = json.loads((tmp_path / "out" / "vocabulary.lock").read_text())
    assert lock == loaded.lock == open_vocabulary(athena).lock == open_vocabulary(tmp_path / "out").lock
    assert lock["release"] == "v-test" and lock["kind"] == "athena"
    assert lock["tables"] == {"concept": 3, "concept_relationship": 3, "concept_ancestor": 1, "vocabulary": 1}
    content = (athena / "CONCEPT.csv").read_bytes()
    assert lock["files"]["CONCEPT.csv"] == {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "rows": 3,
    }
    again = load(athena, tmp_path / "again")
    assert (tmp_path / "again" / "vocabulary.lock").read_text() == (tmp_path / "out" / "vocabulary.lock").read_text()
    assert rows(again) == rows(loaded)


def test_release_is_not_known_without_vocabulary_csv(tmp_path):
    assert load(write_athena(tmp_path / "athena", CONCEPTS, release=""), tmp_path / "out").release is None


def test_concepts_are_sorted_so_that_a_lookup_reads_little(tmp_path):
    loaded = load(write_athena(tmp_path / "athena", CONCEPTS, RELATIONS), tmp_path / "out")
    stored = duckdb.execute(f"SELECT vocabulary_id, concept_code FROM {loaded.relation('concept')}").fetchall()
    assert stored == sorted(stored)


def test_a_raw_folder_is_converted_once_per_process(tmp_path):
    athena = write_athena(tmp_path / "athena", CONCEPTS, RELATIONS)
    first = open_vocabulary(athena)
    assert open_vocabulary(athena) is first
    write_athena(athena, CONCEPTS[:1], RELATIONS[:1])
    assert open_vocabulary(athena).lock["tables"]["concept"] == 1


def test_without_a_path_the_starter_slice_is_used():
    assert open_vocabulary(None).release.startswith("palmares-starter")


def test_what_was_loaded_before_stays_until_the_new_one_is_whole(tmp_path):
    athena = write_athena(tmp_path / "athena", CONCEPTS, RELATIONS)
    load(athena, tmp_path / "out")
    write(athena / "CONCEPT_RELATIONSHIP.csv", RELATIONSHIP, [("x", 1, "Maps to", "19700101", "20991231", "")])
    with pytest.raises(PalmaresError):
        load(athena, tmp_path / "out")
    assert len(rows(open_vocabulary(tmp_path / "out"))) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"athena", "out"}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "CONCEPT.csv").unlink(),
        lambda folder: (folder / "CONCEPT_RELATIONSHIP.csv").unlink(),
        lambda folder: [path.unlink() for path in folder.iterdir()] and folder.rmdir(),
    ],
)
def test_no_vocabulary_there(tmp_path, spoil):
    folder = write_athena(tmp_path / "athena", CONCEPTS)
    spoil(folder)
    for attempt in (open_vocabulary, lambda path: load(path, tmp_path / "out")):
        with pytest.raises(PalmaresError) as caught:
            attempt(folder)
        assert caught.value.code == "E-VOC-01"
    assert not (tmp_path / "out").exists()


def test_a_damaged_lock_is_no_vocabulary(tmp_path):
    load(write_athena(tmp_path / "athena", CONCEPTS), tmp_path / "out")
    (tmp_path / "out" / "vocabulary.lock").write_text("{")
    with pytest.raises(PalmaresError, match="E-VOC-01"):
        open_vocabulary(tmp_path / "out")
    (tmp_path / "out" / "vocabulary.lock").write_text('{"tables": {"concept": 1}}')
    with pytest.raises(PalmaresError, match="E-VOC-01"):
        open_vocabulary(tmp_path / "out")


SECRET = "Mario Rossi"
BAD = {
    "wrong number of columns": [concept(4, "SNOMED", "4")[:8], (*concept(5, "SNOMED", "5"), SECRET)],
    "no integer in concept_id": [concept(SECRET, "SNOMED", "4"), concept("", "SNOMED", "5")],
    "no date in valid_start_date": [
        (*concept(4, "SNOMED", "4")[:7], "20230231", "20991231", ""),
        (*concept(5, "SNOMED", "5")[:7], SECRET, "20991231", ""),
    ],
    "no date in valid_end_date": [(*concept(i, "SNOMED", i)[:7], "19700101", "", "") for i in (4, 5)],
}


@pytest.mark.parametrize("rule", BAD)
def test_rows_that_do_not_fit_are_counted_and_never_shown(tmp_path, rule):
    folder = write_athena(tmp_path / "athena", [*CONCEPTS, *BAD[rule]], RELATIONS)
    with pytest.raises(PalmaresError) as caught:
        load(folder, tmp_path / "out")
    error = caught.value
    assert (error.code, error.subject, error.count) == ("E-VOC-02", "CONCEPT.csv", 2)
    assert rule in str(error) and SECRET not in str(error) and SECRET not in repr(error.__cause__)
    assert error.__suppress_context__ or error.__context__ is None
    assert not (tmp_path / "out").exists()


def test_a_file_that_was_saved_with_commas(tmp_path):
    folder = write_athena(tmp_path / "athena", CONCEPTS)
    (folder / "CONCEPT.csv").write_text(",".join(CONCEPT) + "\n")
    with pytest.raises(PalmaresError, match=r"E-VOC-02 CONCEPT\.csv"):
        load(folder, tmp_path / "out")


def test_bytes_that_are_no_utf8(tmp_path):
    folder = write_athena(tmp_path / "athena", CONCEPTS)
    content = (folder / "CONCEPT.csv").read_bytes()
    (folder / "CONCEPT.csv").write_bytes(content.replace(b"one", b"\xff\xfe\xe9"))
    with pytest.raises(PalmaresError, match=r"E-VOC-02 CONCEPT\.csv"):
        load(folder, tmp_path / "out")


def test_an_empty_file(tmp_path):
    folder = write_athena(tmp_path / "athena", CONCEPTS)
    (folder / "CONCEPT_RELATIONSHIP.csv").write_bytes(b"")
    with pytest.raises(PalmaresError, match=r"E-VOC-02 CONCEPT_RELATIONSHIP\.csv"):
        load(folder, tmp_path / "out")


def test_a_header_alone_is_an_empty_table(tmp_path):
    assert load(write_athena(tmp_path / "athena", []), tmp_path / "out").lock["tables"]["concept"] == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    with pytest.raises(PalmaresError, match="E-DISK-02"):
        load(write_athena(tmp_path / "athena", CONCEPTS), closed / "out")


def test_progress_names_each_file(tmp_path):
    told = []
    load(write_athena(tmp_path / "athena", CONCEPTS, RELATIONS), tmp_path / "out", progress=told.append)
    assert sorted(told) == ["CONCEPT.csv", "CONCEPT_RELATIONSHIP.csv", "VOCABULARY.csv"]
