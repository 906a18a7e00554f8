"""`report.csv`: what of a message did not pass, by message, segment and field, never with its value.

Its columns are those of every source's report: file, row (message in the file / segment in the message), column (the field).
"""

import csv
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from fhir_adapters.hl7v2.reading import Wrong


class Report:
    """The report while it is written."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._lines = csv.writer(self._file)
        self._lines.writerow(["file", "row", "column", "reason"])
        self.reasons: Counter[str] = Counter()

    def add(self, item: str, wrong: "Wrong") -> None:
        """One line."""
        file, _, message = item.rpartition(":")
        self._lines.writerow([file, f"{message}/{wrong.place}", f"{wrong.segment}-{wrong.field}", wrong.reason])
        self.reasons[wrong.reason] += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
