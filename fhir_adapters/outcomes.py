"""One outcome per item that a source read: a file, a message, a row group, a study of a PACS. `outcomes.parquet` of an extraction.

    source_kind   the source's kind, e.g. dicom_folder
    item          the file's shown name, with `:<position>` where one file holds many; never a value
    outcome       resource | merged | excluded | quarantined
    reason        code of reasons.csv; null for `resource`
    resources     resources that the item brought. One that several items make together counts at the first of them, so the
                  column adds up to the extraction's resources

A source opens it in the folder that it writes and closes it with what it says that it made:

    with OutcomeFile(partial, self.kind) as items:
        items.add(item_name("ADT/0001.hl7", 3), RESOURCE, resources=2)
        items.add(item_name("ADT/0001.hl7", 4), QUARANTINED, "Q-HL7-…")
        items.balance(sum(resources.values()))
"""

from array import array
from collections import Counter
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from fhir_adapters.errors import PalmaresError
from fhir_adapters.knowledge import table
from fhir_adapters.shown_names import shown_name

RESOURCE, MERGED, EXCLUDED, QUARANTINED = OUTCOMES = ("resource", "merged", "excluded", "quarantined")
NAME = "outcomes.parquet"
SCHEMA = pa.schema(
    [
        ("source_kind", pa.string()),
        ("item", pa.string()),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("resources", pa.int32()),
    ]
)
_GROUP = 1 << 16  # rows held before they are written


def item_name(relative: str, position: int | str | None = None) -> str:
    """How an item is named: its file as far as that may be shown, and where in the file it stands (line, message, row)."""
    return shown_name(relative) if position is None else f"{shown_name(relative)}:{position}"


@cache
def outcome_of(reason: str) -> str:
    """The outcome that goes with a reason. Raises ValueError for a reason that reasons.csv does not know."""
    for row in table("explanations", "reasons.csv"):
        if row["code"] == reason:
            return QUARANTINED if row["outcome"] == "reported" else row["outcome"]
    raise ValueError(f"{reason} stands not in reasons.csv")


class OutcomeFile:
    """The outcomes of one extraction, written as they come; a million items take no more memory than some thousand."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._kind = kind
        self._writer = pq.ParquetWriter(folder / NAME, SCHEMA, compression="zstd")
        self._items: list[str] = []
        self._outcomes: list[str] = []
        self._reasons: list[str | None] = []
        self._resources = array("i")
        self.outcomes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.resources = 0

    def add(self, item: str, outcome: str, reason: str | None = None, resources: int = 0) -> None:
        """Tell what became of an item (named by `item_name`).

        A reason goes with the outcome that reasons.csv gives it; one that is `reported` there goes with `quarantined`. Raises
        ValueError, a defect of the source: an outcome other than `resource` without its reason, a reason of another outcome,
        resources of an item that was left out.
        """
        if outcome not in OUTCOMES or (reason is None) != (outcome == RESOURCE):
            raise ValueError("an item that brought no resource has a reason, and only such a one")
        if reason is not None and (outcome_of(reason) != outcome or resources):
            raise ValueError(f"{reason} does not go with {outcome} and {resources} resources")
        self._items.append(item)
        self._outcomes.append(outcome)
        self._reasons.append(reason)
        self._resources.append(resources)
        self.outcomes[outcome] += 1
        if reason is not None:
            self.reasons[reason] += 1
        self.resources += resources
        if len(self._items) >= _GROUP:
            self._flush()

    def refuse(self, item: str, reason: str) -> None:
        """An item that brought nothing, with the outcome that goes with its reason."""
        self.add(item, outcome_of(reason), reason)

    def balance(self, written: int) -> None:
        """Raise E-BALANCE-02 unless the items brought just the resources that the source wrote."""
        if self.resources != written:
            raise PalmaresError("E-BALANCE-02", self._kind, detail=f"{self.resources} told, {written} written")

    def _flush(self) -> None:
        many = len(self._items)
        columns = [
            _texts([self._kind] * many),
            _texts(self._items),
            _texts(self._outcomes),
            _texts(self._reasons),
            pa.Array.from_buffers(pa.int32(), many, [None, pa.py_buffer(self._resources.tobytes())]),
        ]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=SCHEMA))
        self._items, self._outcomes, self._reasons, self._resources = [], [], [], array("i")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._items:
                self._flush()
        finally:
            self._writer.close()


def _texts(column: list[str] | list[str | None]) -> pa.Array:
    builder = pa.lib.StringBuilder()  # pa.array would load pandas first
    builder.append_values(column)
    return builder.finish()
