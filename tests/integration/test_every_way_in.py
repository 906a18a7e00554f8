"""The same hundred patients by every way in: FHIR files, a FHIR search server, a bulk export, eCRF tables, HL7 v2 with tables.

Every CDM table is compared, column by column, with what the files give; links are compared by what they point to. What a way
cannot carry is listed in `mappings/studies/palmares2/ecrf/not_carried.csv`, and only that may differ.
"""

import csv
import gzip
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from fhir_adapters.base import extract_from, open_source
from fhir_adapters.knowledge import mappings_folder
from fhir_adapters.landing import land
from fhir_adapters.pseudonyms import SiteKey
from fhir_adapters.validation import validate
from omop_etl.cdm import tables
from omop_etl.config import Site, load_site
from omop_etl.mapping import map_site, origins
from omop_etl.synthetic import generate
from tests.servers.medplum_server import medplum, needs_server

pytestmark = pytest.mark.long

PATIENTS = 100
WAYS = ["server", "bulk", "tables", "hl7v2"]
# what the study rests on (issue: persons, drug exposures, receptor measurements, progressions, deaths), and what surrounds it
TABLES = [
    "person",
    "death",
    "drug_exposure",
    "measurement",
    "condition_occurrence",
    "procedure_occurrence",
    "observation",
    "specimen",
    "visit_occurrence",
    "observation_period",
]


@contextmanager
def linkage(root: Path) -> Iterator[None]:
    """The linkage key in the environment, as the centre gives it to the hospitals."""
    before = os.environ.get("PALMARES_LINKAGE_KEY")
    os.environ["PALMARES_LINKAGE_KEY"] = (root / "sites" / "keys" / "linkage.key").read_text(encoding="ascii").strip()
    try:
        yield
    finally:
        if before is None:
            del os.environ["PALMARES_LINKAGE_KEY"]
        else:
            os.environ["PALMARES_LINKAGE_KEY"] = before


def way_in(root: Path, way: str) -> Path:
    """Generate, extract, land, validate and map by one way; returns the slice."""
    form = way if way in ("tables", "hl7v2") else "files"
    hospitals = root / form
    if not hospitals.exists():
        generate(hospitals, sites=1, patients=PATIENTS, seed=3, dirty=False, jobs=1, formats=form)
    site = load_site("site01", hospitals / "sites")
    key = SiteKey.load(site.key_file)
    extracted = []
    with linkage(hospitals):
        for number, described in enumerate(sources(site, way)):
            if described["kind"] == "dicom_folder":
                continue
            with served(described, hospitals) as given:
                out = root / way / f"extracted-{number}"
                source = open_source(given, folder=site.folder, key=key, time_zone=site.time_zone)
                extract_from(source, out)
                extracted.append(out)
    land(extracted, root / way / "landed", jobs=1)
    validate(root / way / "landed", root / way / "accepted", verdicts=root / "verdicts", jobs=1)
    map_site(site, root / way / "accepted", root / way / "slice", vocabulary=None, jobs=1)
    return root / way / "slice"


def sources(site: Site, way: str) -> list[dict[str, Any]]:
    if way not in ("server", "bulk"):
        return list(site.sources)
    kind = {"server": "fhir_server", "bulk": "fhir_bulk"}[way]
    return [{"kind": kind, "url": "", "pseudonyms": "hospital"}]


@contextmanager
def served(described: dict[str, Any], hospitals: Path) -> Iterator[dict[str, Any]]:
    """The source's settings; for a server, a running one that holds the hospital's resources."""
    if described.get("url") != "":
        yield described
        return
    with medplum() as server:
        for path in sorted((hospitals / "hospitals" / "site01" / "fhir").iterdir()):
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            server.load(map(json.loads, content.splitlines()))
        yield described | {"url": server.url}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ways")


_SLICES: dict[tuple[Path, str], Path] = {}


def slice_by(root: Path, way: str) -> Path:
    if (root, way) not in _SLICES:
        _SLICES[root, way] = way_in(root, way)
    return _SLICES[root, way]


@cache
def columns(table: str) -> tuple[str, ...]:
    """The columns that are compared: all but the row's own id; the person is compared by pseudonym."""
    return tuple(column.name for column in tables()[table].columns if column.name not in (f"{table}_id", "person_id"))


@cache
def opened(slice_: Path) -> duckdb.DuckDBPyConnection:
    """The slice's tables, with the pseudonym of each person and what links point to."""
    base = duckdb.connect()
    base.execute(
        f"CREATE TABLE who AS SELECT cdm_id AS person_id, resource_id AS patient FROM {origins(slice_)} "
        "WHERE cdm_table = 'person' AND resource_type = 'Patient'"
    )
    for name, shown in (
        ("visit_occurrence", "visit_concept_id || visit_start_datetime"),
        ("condition_occurrence", "condition_concept_id || condition_start_date"),
    ):
        base.execute(
            f"CREATE TABLE {name}_shown AS SELECT {name}_id AS id, {shown} AS shown FROM '{slice_ / f'{name}.parquet'}'"
        )
    return base


@cache
def content(slice_: Path, table: str, chosen: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """A table's rows without ids: pseudonym, columns, and for links what they point to."""
    shown, joins = [], ""
    for column in chosen:
        if column == "visit_occurrence_id":
            shown.append("v.shown")
            joins += f" LEFT JOIN visit_occurrence_shown v ON v.id = t.{column}"
        elif column in ("measurement_event_id", "observation_event_id"):
            shown.append("c.shown")
            joins += f" LEFT JOIN condition_occurrence_shown c ON c.id = t.{column}"
        elif column in (
            "care_site_id",
            "provider_id",
            "location_id",
            "visit_detail_id",
            "preceding_visit_occurrence_id",
        ):
            shown.append(f"t.{column} IS NOT NULL")
        elif column != "person_source_value":
            shown.append(f"t.{column}")
    return (
        opened(slice_)
        .execute(
            f"SELECT patient, {', '.join(shown)} FROM '{slice_ / f'{table}.parquet'}' t JOIN who USING (person_id){joins} ORDER BY ALL"
        )
        .fetchall()
    )


def not_carried(way: str) -> set[tuple[str, str]]:
    path = mappings_folder() / "studies" / "palmares2" / "ecrf" / "not_carried.csv"
    with path.open(encoding="utf-8", newline="") as lines:
        return {(row["cdm_table"], row["column"]) for row in csv.DictReader(lines) if row["way"] == way}


@pytest.mark.parametrize("way", WAYS)
@needs_server()
def test_the_same_patients_give_the_same_rows(root: Path, way: str) -> None:
    files, other = slice_by(root, "files"), slice_by(root, way)
    listed = not_carried(way)
    different = set()
    for table in TABLES:
        kept = tuple(column for column in columns(table) if (table, column) not in listed)
        wanted = content(files, table, kept)
        assert wanted, table
        assert content(other, table, kept) == wanted, table
        for column in columns(table):
            if (table, column) in listed and content(other, table, (column,)) != content(files, table, (column,)):
                different.add((table, column))
    # what is listed differs indeed: the list says neither too much nor too little
    assert different == {one for one in listed if one[0] in TABLES}


@pytest.mark.parametrize("way", WAYS)
@needs_server()
def test_the_same_patients_are_linked_by_the_same_tokens(root: Path, way: str) -> None:
    def tokens(slice_: Path) -> set[str]:
        return set(pq.read_table(slice_ / "side" / "person_link.parquet")["linkage_token"].to_pylist())

    assert len(tokens(slice_by(root, "files"))) == PATIENTS
    assert tokens(slice_by(root, way)) == tokens(slice_by(root, "files"))


@pytest.mark.parametrize("way", ["tables", "hl7v2"])
def test_nothing_of_forms_and_messages_that_identifies_is_written(root: Path, way: str) -> None:
    slice_by(root, way)
    slice_by(root, "tables")
    with (root / "tables" / "hospitals" / "site01" / "tables" / "pazienti.csv").open(
        encoding="cp1252", newline=""
    ) as lines:
        rows = list(csv.DictReader(lines, delimiter=";"))
    names = {row[column] for row in rows for column in ("cartella", "codice_fiscale", "cognome") if row[column]}
    made = [path for name in ("extracted-*", "landed", "accepted", "slice") for path in (root / way).glob(name)]
    texts = b"".join(path.read_bytes() for folder in made for path in folder.rglob("*") if path.is_file()).upper()
    assert len(rows) == PATIENTS
    assert not [name for name in names if name.upper().encode() in texts]
