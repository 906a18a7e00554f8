"""What every DICOM source writes, wherever its instances come from.

    <out>/fhir/<ResourceType>.ndjson one resource a line, sorted by id: ImagingStudy, Observation, Specimen
    <out>/outcomes.parquet           one outcome per file or instance; a study or a sample counts at the first that tells of it
    <out>/manifest.json              counts: outcomes, reasons, values left out by element
    <out>/known.parquet              of an archive that is asked again: see `known`

The resources have no `meta.lastUpdated`: a header does not say when it was changed, and the day of the extraction would make two
runs differ. Landing takes the study of the newest delivery, which is right, because a source tells each study whole.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import orjson

from fhir_adapters import allow_list
from fhir_adapters.base import Extraction, Setting
from fhir_adapters.dicom import known
from fhir_adapters.dicom.known import Settled
from fhir_adapters.dicom.observations import observations, specimens
from fhir_adapters.dicom.studies import Writer, outcomes
from fhir_adapters.dicom.values import Instance
from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import whole_folder
from fhir_adapters.outcomes import RESOURCE, OutcomeFile

YIELDS = frozenset({"ImagingStudy", "Observation", "Specimen"})


class Read(NamedTuple):
    """What was read: per file or instance how it is named, and its instance or the reason why there is none."""

    items: Sequence[str]
    found: Sequence[Instance | str]
    left_out: Counter[str]
    bytes: int = 0


DIGITS = Setting(int, "digits of a record number; 0: every number as it is written", 0)


def digits_of(settings: Mapping[str, Any], kind: str) -> int:
    """The setting `record_number_digits`. Raises E-SRC-02 when it is out of range."""
    digits: int = settings["record_number_digits"]
    if not 0 <= digits <= 32:
        raise PalmaresError("E-SRC-02", kind, detail="record_number_digits is none of 0 to 32")
    return digits


def zone_of(settings: Mapping[str, Any], kind: str) -> ZoneInfo | None:
    """The zone of the scanners' clocks that the settings name. Raises E-SRC-02 when it is no IANA zone."""
    try:
        return ZoneInfo(settings["time_zone"]) if settings["time_zone"] else None
    except (ZoneInfoNotFoundError, ValueError):
        raise PalmaresError("E-SRC-02", kind, detail="time_zone is no IANA zone") from None


@dataclass(frozen=True)
class Increment:
    """What an extraction of an archive remembers. `settle` gets the instances that are written and tells what stands now."""

    full: bool
    state: Mapping[str, Any]
    settle: Callable[[Sequence[Instance]], Settled]


def write(
    kind: str,
    read: Read,
    out: Path,
    *,
    zone: ZoneInfo | None,
    instances: bool,
    increment: Increment | None = None,
    more: Mapping[str, Any] | None = None,
) -> Extraction:
    """Write the extraction folder, whole or not at all. Raises E-BALANCE-02, E-PACS-06, E-DISK-….

    `instances`: whether a series lists its instances one by one. `more` goes into the manifest.
    """
    results = outcomes(read.found)
    good = [
        one
        for one, result in zip(read.found, results, strict=True)
        if result.outcome == RESOURCE and isinstance(one, Instance)
    ]
    settled = increment.settle(good) if increment else None
    writer = Writer(allow_list.dicom(), zone, instances=instances)
    samples, doubted = specimens(good)
    resources = {"ImagingStudy": writer.studies(good), "Observation": observations(good, writer), "Specimen": samples}
    resources = {name: these for name, these in resources.items() if these or name == "ImagingStudy"}
    brought = _Brought({str(sample["id"]) for sample in samples})
    with whole_folder(out) as partial:
        (partial / "fhir").mkdir()
        for name, these in resources.items():
            _write_lines(these, partial / "fhir" / f"{name}.ndjson")
        if settled is not None:
            known.write(settled, partial)
        with OutcomeFile(partial, kind) as items:
            for item, one, result in zip(read.items, read.found, results, strict=True):
                count = brought.by(one) if isinstance(one, Instance) and result.outcome == RESOURCE else 0
                items.add(item, *result, resources=count)
            items.balance(sum(map(len, resources.values())))
        extraction = Extraction(
            kind,
            files=len(read.found),
            bytes=read.bytes,
            resources={name: len(these) for name, these in resources.items()},
            skipped=_sorted(items.reasons),
            more={
                "outcomes": _sorted(items.outcomes),
                "left_out": _sorted(read.left_out + Counter({"SpecimenUID.two-patients": doubted})),
                **({"deleted": len(settled.deleted)} if settled else {}),
                **(more or {}),
            },
            full=increment.full if increment else True,
            state=increment.state if increment else None,
        )
        extraction.write(partial)
    return extraction


class _Brought:
    """Counts each resource once: at the first instance that tells of it."""

    def __init__(self, samples: set[str]) -> None:
        self._studies: set[str] = set()
        self._waiting = samples

    def by(self, one: Instance) -> int:
        count = len(one.measures)
        if one.study not in self._studies:
            self._studies.add(one.study)
            count += 1
        for name, value in one.values if self._waiting else ():
            if name == "specimen-uid" and str(value[0]) in self._waiting:
                self._waiting.remove(str(value[0]))
                count += 1
        return count


def _write_lines(resources: Iterable[dict[str, Any]], path: Path) -> None:
    with path.open("wb") as lines:
        for one in resources:
            lines.write(orjson.dumps(one) + b"\n")


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted((+counts).items()))
