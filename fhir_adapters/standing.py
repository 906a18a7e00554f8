"""What stands in a source that gives all that it has each time: an id that was there the last time and is not there any more was
deleted. Written as deletes, which landing honours; the ids go into `known.parquet` for the next time."""

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fhir_adapters.errors import PalmaresError
from fhir_adapters.memory import KNOWN

_FEW = 10  # so many may be gone of any type
_ENTRIES = 1000  # of a Bundle

Identity = tuple[str, str]  # resource type, id


class Standing:
    """Gathers what is there. `known`: the ids of the last time; `most_deleted`: the share of a type that may be gone at once;
    `whole`: all that the source has was read, else only what was changed, which deletes nothing."""

    def __init__(self, known: Path | None, most_deleted: float, *, whole: bool = True) -> None:
        self._known, self._most, self._whole = known, most_deleted, whole
        self._there: dict[str, tuple[str, set[Identity]]] = {}

    def add(self, table: str, exported: str, resource_type: str, resource_id: str) -> None:
        """A resource of a table. Of exports that repeat, the newest one holds all that is there."""
        newest, ids = self._there.get(table, ("", set()))
        if exported > newest:
            newest, ids = exported, set()
        if exported == newest:
            ids.add((resource_type, resource_id))
        self._there[table] = newest, ids

    def settle(self, partial: Path) -> dict[str, int]:
        """Write `known.parquet` and the deletes of an extraction; returns the deletes per type. Raises E-TAB-04."""
        there: set[Identity] = set().union(*(ids for _, ids in self._there.values()))
        before = self._before()
        if not self._whole:
            there |= before
        held = Counter(kind for kind, _ in before)
        gone = sorted(before - there)
        deleted = Counter(kind for kind, _ in gone)
        for kind, count in deleted.items():
            if count > _FEW and count > self._most * held[kind]:
                raise PalmaresError("E-TAB-04", kind, count=count, detail=f"of {held[kind]}")
        if gone:
            with (partial / "fhir" / "deleted.ndjson").open("w", encoding="utf-8") as file:
                for start in range(0, len(gone), _ENTRIES):
                    entries = [
                        {"request": {"method": "DELETE", "url": f"{kind}/{one}"}}
                        for kind, one in gone[start : start + _ENTRIES]
                    ]
                    file.write(json.dumps({"resourceType": "Bundle", "type": "history", "entry": entries}) + "\n")
        kinds, ids = zip(*sorted(there), strict=True) if there else ((), ())
        columns = {"resource_type": pa.array(kinds, pa.string()), "resource_id": pa.array(ids, pa.string())}
        pq.write_table(pa.table(columns), partial / KNOWN, compression="zstd")
        return dict(sorted(deleted.items()))

    def _before(self) -> set[Identity]:
        if self._known is None:
            return set()
        held = pq.read_table(self._known, columns=["resource_type", "resource_id"])
        return set(zip(held["resource_type"].to_pylist(), held["resource_id"].to_pylist(), strict=True))
