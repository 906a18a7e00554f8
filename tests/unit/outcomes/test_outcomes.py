"""One outcome per item: with its reason, nothing of a name, and as many resources as were written."""

import pyarrow.parquet as pq
import pytest

from fhir_adapters.errors import PalmaresError
from fhir_adapters.knowledge import table
from fhir_adapters.outcomes import NAME, OUTCOMES, RESOURCE, SCHEMA, OutcomeFile, item_name, outcome_of


def test_items_are_written_as_they_come_and_balance(tmp_path) -> None:
    with OutcomeFile(tmp_path, "dicom_folder") as items:
        items.add(item_name("a/1.dcm"), RESOURCE, resources=2)
        items.add(item_name("ROSSI MARIA.dcm", 3), RESOURCE)
        items.refuse(item_name("3"), "X-NOT-DICOM")
        items.add(item_name("4"), "merged", "M-DICOM-DUPLICATE")
        items.balance(2)
        with pytest.raises(PalmaresError, match="E-BALANCE-02"):
            items.balance(3)
    written = pq.read_table(tmp_path / NAME)
    assert written.schema.equals(SCHEMA)
    rows = [tuple(row.values()) for row in written.to_pylist()]
    assert rows[0][2:] == ("resource", None, 2)
    assert rows[1][1].startswith("file-") and rows[1][1].endswith(":3") and "ROSSI" not in str(rows)
    assert rows[2] == ("dicom_folder", "3", "excluded", "X-NOT-DICOM", 0)
    assert rows[3][2:] == ("merged", "M-DICOM-DUPLICATE", 0)
    assert items.outcomes == {"resource": 2, "excluded": 1, "merged": 1}
    assert items.reasons == {"X-NOT-DICOM": 1, "M-DICOM-DUPLICATE": 1}


def test_more_items_than_are_held(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("fhir_adapters.outcomes._GROUP", 10)
    with OutcomeFile(tmp_path, "tables") as items:
        for number in range(25):
            items.add(item_name("x.csv", number), RESOURCE, resources=1)
        items.balance(25)
    written = pq.ParquetFile(tmp_path / NAME)
    assert (written.metadata.num_rows, written.num_row_groups) == (25, 3)


def test_no_item_at_all(tmp_path) -> None:
    with OutcomeFile(tmp_path, "tables") as items:
        items.balance(0)
    assert pq.read_table(tmp_path / NAME).num_rows == 0


@pytest.mark.parametrize(
    ("outcome", "reason", "resources"),
    [
        ("excluded", None, 0),
        ("resource", "X-NOT-DICOM", 1),
        ("quarantined", "X-NOT-DICOM", 0),
        ("excluded", "X-NOT-DICOM", 1),
        ("lost", "X-NOT-DICOM", 0),
        ("excluded", "X-NO-SUCH-REASON", 0),
    ],
)
def test_what_contradicts_itself_is_a_defect(tmp_path, outcome, reason, resources) -> None:
    with OutcomeFile(tmp_path, "tables") as items, pytest.raises(ValueError):
        items.add("x", outcome, reason, resources)


def test_every_reason_has_an_outcome_of_an_item_a_code_or_a_row() -> None:
    for row in table("explanations", "reasons.csv"):
        assert outcome_of(row["code"]) in {*OUTCOMES, "unmapped", "written"}
