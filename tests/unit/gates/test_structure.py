"""A slice whose files are not what they should be: a verdict where rows can still be counted, a numbered error where not."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fhir_adapters.errors import PalmaresError
from omop_etl.cdm import tables
from omop_etl.gates.counting import Counter
from omop_etl.gates.definitions import definitions
from omop_etl.gates.dqd_results import results
from omop_etl.gates.relations import of_slice
from omop_etl.gates.slices import open_slice
from omop_etl.vocabulary import open_vocabulary
from tests.gate_defects import changed_files
from tests.gate_helpers import broken, counted
from tests.slices import clean_rows, write_slice


def rewritten(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


COLUMNS: dict[str, Callable[[pa.Table], pa.Table]] = {
    "a column is missing": lambda table: table.drop_columns(["route_source_value"]),
    "a column is not of the CDM": lambda table: table.append_column("nome", pa.nulls(len(table), pa.string())),
    "a column has another type": lambda table: table.set_column(
        table.schema.get_field_index("quantity"), "quantity", table["quantity"].cast(pa.int64())
    ),
    "the columns are in another order": lambda table: table.select(table.column_names[::-1]),
}


@pytest.mark.parametrize("defect", COLUMNS)
def test_wrong_columns_block_and_name_the_table(defect: str, vocabulary: Path, tmp_path: Path) -> None:
    slice_ = write_slice(tmp_path / "slice")
    rewritten(slice_ / "drug_exposure.parquet", COLUMNS[defect])
    found = broken(counted(slice_, vocabulary))
    missing = {"G-FIELD-drug_exposure.route_source_value": "BLOCK"} if defect == "a column is missing" else {}
    # nobody has a drug exposure that could be read
    assert found == {"G-COLUMNS-drug_exposure": "BLOCK", "G-PERSONS-drug_exposure": "WARN"} | missing


def test_a_table_that_ohdsi_requires(vocabulary: Path, tmp_path: Path) -> None:
    slice_ = write_slice(tmp_path / "slice")
    (slice_ / "observation_period.parquet").unlink()
    assert broken(counted(slice_, vocabulary)) == {"G-TABLE-observation_period": "BLOCK", "G-PERIOD-01": "WARN"}


def test_rows_against_the_manifest(vocabulary: Path, tmp_path: Path) -> None:
    slice_ = write_slice(tmp_path / "slice", manifest=lambda said: said["tables"].update(death=3))
    counts = counted(slice_, vocabulary)
    assert broken(counts) == {"G-ROWS-death": "BLOCK"}
    assert (counts["G-ROWS-death"].numerator, counts["G-ROWS-death"].denominator) == (2, 3)


def test_a_ledger_with_other_columns(vocabulary: Path, tmp_path: Path) -> None:
    slice_ = write_slice(tmp_path / "slice")
    rewritten(slice_ / "ledger.parquet", lambda table: table.drop_columns(["reason"]))
    assert broken(counted(slice_, vocabulary)) == {"G-COLUMNS-ledger": "BLOCK", "G-LEDGER-01": "BLOCK"}


def test_a_table_whose_name_is_of_no_cdm_table_is_not_read(tmp_path: Path) -> None:
    slice_ = write_slice(tmp_path / "slice")
    (slice_ / "pazienti.parquet").write_bytes(b"")
    assert "pazienti" not in open_slice(slice_).tables


@pytest.mark.parametrize("name", ["measurement.parquet", "ledger.parquet", "side/person_link.parquet"])
@pytest.mark.parametrize("how", ["truncated", "no Parquet", "empty", "damaged pages"])
def test_what_cannot_be_read_is_named(name: str, how: str, vocabulary: Path, tmp_path: Path) -> None:
    slice_ = write_slice(tmp_path / "slice")
    path = slice_ / name
    whole = path.read_bytes()
    pages = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    path.write_bytes(
        {
            "truncated": whole[: len(whole) // 2],
            "no Parquet": b"Rossi;Maria;1950\n" * 50,
            "empty": b"",
            "damaged pages": whole[:4] + b"\xff" * (pages - 4) + whole[pages:],
        }[how]
    )
    with pytest.raises(PalmaresError) as raised:
        counted(slice_, vocabulary)
    assert raised.value.code == "E-SLICE-02"
    assert Path(name).name in str(raised.value)
    assert "Rossi" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (None, "missing"),
        ("{", "no JSON"),
        ("[]", "no JSON object"),
        ('{"site": 7}', "names no site"),
        ('{"site": "prova", "tables": {"person": "four"}}', "no list of row counts"),
        ('{"site": "prova", "derived": "episode"}', "no list of tables"),
    ],
)
def test_a_manifest_that_does_not_read(text: str | None, word: str, tmp_path: Path) -> None:
    slice_ = write_slice(tmp_path / "slice")
    (slice_ / "manifest.json").unlink()
    if text is not None:
        (slice_ / "manifest.json").write_text(text)
    with pytest.raises(PalmaresError, match=word) as raised:
        open_slice(slice_)
    assert raised.value.code == "E-SLICE-01"


def test_a_folder_without_ledger_or_with_no_date(tmp_path: Path) -> None:
    slice_ = write_slice(tmp_path / "slice", manifest=lambda said: said.update(extracted_to="soon"))
    with pytest.raises(PalmaresError, match="extracted_to is no date"):
        _ = open_slice(slice_).extracted_to
    (slice_ / "ledger.parquet").unlink()
    with pytest.raises(PalmaresError, match=r"ledger.parquet is missing"):
        open_slice(slice_)


def test_the_hash_is_of_what_is_said_not_of_when(tmp_path: Path) -> None:
    one = open_slice(write_slice(tmp_path / "one"))
    two = open_slice(write_slice(tmp_path / "two", manifest=lambda said: said.update(run={"seconds": 99})))
    assert one.sha256 == two.sha256
    (two.folder / "side" / "trace.parquet").write_bytes(b"what stays in the hospital does not count")
    assert open_slice(two.folder).sha256 == one.sha256
    rows = clean_rows()
    rows["death"][0]["cause_source_value"] = "C50"
    assert open_slice(write_slice(tmp_path / "three", rows)).sha256 != one.sha256
    later = write_slice(tmp_path / "four", manifest=lambda said: said.update(extracted_to="2025-01-01"))
    assert open_slice(later).sha256 != one.sha256
    assert json.loads((later / "manifest.json").read_text())["extracted_to"] == "2025-01-01"


def test_what_a_partial_vocabulary_lacks_is_looked_up_in_the_starter_slice(tmp_path: Path) -> None:
    """A part of Athena often has no type concepts, no sexes: the mapping takes these from mappings/codes."""
    folder = tmp_path / "partial"
    folder.mkdir()
    columns = [column.name for column in tables()["concept"].columns]
    one = ["2100000001", "a concept of its own", "Observation", "Own", "Own", "S", "x", "19700101", "20991231", ""]
    (folder / "CONCEPT.csv").write_text("\t".join(columns) + "\n" + "\t".join(one) + "\n")
    names = [column.name for column in tables()["concept_relationship"].columns]
    (folder / "CONCEPT_RELATIONSHIP.csv").write_text("\t".join(names) + "\n")
    rows = clean_rows()
    rows["observation"][0]["observation_concept_id"] = 2100000001
    assert broken(counted(write_slice(tmp_path / "slice", rows), folder)) == {}
    rows["observation"][0]["observation_concept_id"] = 2100000002
    found = broken(counted(write_slice(tmp_path / "wrong", rows), folder))
    assert found == {"G-CONCEPT-observation.observation_concept_id": "BLOCK"}


def test_a_column_of_words_fails_in_ohdsis_results_too(vocabulary: Path, tmp_path: Path) -> None:
    slice_ = changed_files(write_slice(tmp_path / "slice"), "words provider_id of observation")
    opened, defined = open_slice(slice_), definitions("2025-01-01")
    with duckdb.connect() as connection:
        relations = of_slice(connection, opened, open_vocabulary(vocabulary), defined)
        counter = Counter(relations, defined)
        now = datetime(2025, 1, 1)
        document = results(counter.count(), counter, relations, defined, started=now, ended=now)
    found = {one["checkId"]: one for one in document["CheckResults"]}
    words = found["field_cdmdatatype_observation_provider_id"]
    assert (words["failed"], words["notApplicable"], words["numViolatedRows"]) == (1, 0, words["numDenominatorRows"])
    assert words["numViolatedRows"] > 0
    other = found["field_isrequired_observation_observation_id"]
    assert (other["failed"], other["notApplicableReason"]) == (0, "The columns of table OBSERVATION are not the CDM's.")
    assert found["field_isrequired_person_person_id"]["notApplicable"] == 0
