"""The list of a hospital's known identifiers: a CSV that never leaves the hospital, readable by its owner alone.

    kind,value
    name,Rossi Maria
    codice-fiscale,RSSMRA71E01F205E
    record-number,0012345
    address,Via Roma 12
    accession-number,ACC20240001
    uid,1.2.840.113619.2.5
    telephone,+39 333 1234567

`palmares site identifiers` writes it from the site's own sources; the hospital may add to it. Nothing of it is ever shown.
"""

import csv
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fhir_adapters.errors import PalmaresError, machine_errors
from fhir_adapters.known_identifiers import of_dicom

if TYPE_CHECKING:
    from omop_etl.config import Site

KINDS = (
    "name",
    "codice-fiscale",
    "record-number",
    "address",
    "accession-number",
    "uid",
    "telephone",
    "e-mail",
    "other",
)
_LONGEST = 1 << 20  # characters of a cell


class Known(NamedTuple):
    """One identifier that the hospital knows."""

    kind: str
    value: str


def read_known(path: Path) -> list[Known]:
    """The list of a file. Raises E-PHI-02 when it is none, or when others can read it."""
    try:
        with Path(path).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise PalmaresError("E-PHI-02", path.name, detail="group or others may read it: chmod 600")
            text = file.read().decode("utf-8-sig")
    except OSError as error:
        raise PalmaresError("E-PHI-02", path.name, detail=type(error).__name__) from None
    except UnicodeDecodeError:
        raise PalmaresError("E-PHI-02", path.name, detail="it is no UTF-8") from None
    lines = text.splitlines(keepends=True)
    delimiter = ";" if lines and lines[0].count(";") > lines[0].count(",") else ","
    usual = csv.field_size_limit(_LONGEST)
    try:
        rows = list(csv.DictReader(lines, delimiter=delimiter))
    except csv.Error:
        raise PalmaresError("E-PHI-02", path.name, detail="it is no CSV") from None
    finally:
        csv.field_size_limit(usual)  # it holds for the whole process
    if not rows or not {"kind", "value"} <= rows[0].keys():
        raise PalmaresError("E-PHI-02", path.name, detail="it has no columns kind and value, or no row")
    found = [Known((row["kind"] or "").strip(), (row["value"] or "").strip()) for row in rows]
    if wrong := sum(one.kind not in KINDS or not one.value for one in found):
        raise PalmaresError(
            "E-PHI-02",
            path.name,
            count=wrong,
            detail=f"rows without a value or of another kind than {', '.join(KINDS)}",
        )
    return found


def write_known(known: Iterable[Known], path: Path) -> int:
    """Write a list, each identifier once, readable by its owner alone; in place of what stood there. Returns how many."""
    rows = sorted({one for one in known if one.value.strip()})
    path = Path(path)
    with machine_errors(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.unlink(missing_ok=True)
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(Known._fields)
                writer.writerows(rows)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return len(rows)


def gather(site: "Site") -> Iterator[Known]:
    """What the sources of a site hold of its patients. A source that tells nothing of this is passed over.

    Raises what opening and reading the sources raises.
    """
    from omop_etl.stages import source_of

    for number, settings in enumerate(site.sources):
        kind_of_source, path = settings.get("kind"), settings.get("path")
        if kind_of_source == "dicom_folder" and isinstance(path, str):
            pairs = of_dicom(site.folder / path)
        else:
            identifiers = getattr(source_of(site, number), "identifiers", None)
            pairs = identifiers() if callable(identifiers) else iter(())
        for kind, value in pairs:
            yield Known(kind if kind in KINDS else "other", " ".join(str(value).split()))


def silent(site: "Site") -> list[str]:
    """The sources of a site that cannot tell what identifies: number and kind. The hospital adds theirs by a list of its own."""
    from fhir_adapters.base import adapter_class

    kinds_ = [str(settings.get("kind")) for settings in site.sources]
    tells = {kind for kind in kinds_ if kind == "dicom_folder" or hasattr(adapter_class(kind), "identifiers")}
    return [f"{number} ({kind})" for number, kind in enumerate(kinds_, 1) if kind not in tells]


def kinds(known: Iterable[Known]) -> Mapping[str, int]:
    """How many of each kind."""
    counted: dict[str, int] = {}
    for one in known:
        counted[one.kind] = counted.get(one.kind, 0) + 1
    return dict(sorted(counted.items()))
