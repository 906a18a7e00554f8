"""Small vocabularies in Athena's layout, small code maps, and one question to `attach`."""

import csv
from pathlib import Path

import duckdb

from omop_etl.config import Site
from omop_etl.vocabulary import attach, open_vocabulary
from omop_etl.vocabulary.code_maps import USAGI_COLUMNS

CONCEPT = (
    "concept_id",
    "concept_name",
    "domain_id",
    "vocabulary_id",
    "concept_class_id",
    "standard_concept",
    "concept_code",
    "valid_start_date",
    "valid_end_date",
    "invalid_reason",
)
RELATIONSHIP = (
    "concept_id_1",
    "concept_id_2",
    "relationship_id",
    "valid_start_date",
    "valid_end_date",
    "invalid_reason",
)
VOCABULARY = (
    "vocabulary_id",
    "vocabulary_name",
    "vocabulary_reference",
    "vocabulary_version",
    "vocabulary_concept_id",
)
ANCESTOR = ("ancestor_concept_id", "descendant_concept_id", "min_levels_of_separation", "max_levels_of_separation")


def concept(id_, vocabulary, code, *, domain="Condition", standard="S", invalid="", name=""):
    """One line of CONCEPT.csv."""
    return (id_, name or f"concept {id_}", domain, vocabulary, "Class", standard, code, "19700101", "20991231", invalid)


def relation(id_1, id_2, name="Maps to", *, invalid=""):
    """One line of CONCEPT_RELATIONSHIP.csv."""
    return (id_1, id_2, name, "19700101", "20991231", invalid)


def write(path: Path, header, rows, *, end="\n", start=""):
    """A tab-separated file without quoting, as Athena writes it."""
    lines = ["\t".join(str(value) for value in row) for row in (header, *rows)]
    path.write_bytes((start + "".join(line + end for line in lines)).encode("utf-8"))


def write_athena(folder: Path, concepts, relations=(), *, release="v-test", ancestors=None, **options) -> Path:
    """A folder in Athena's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "CONCEPT.csv", CONCEPT, concepts, **options)
    write(folder / "CONCEPT_RELATIONSHIP.csv", RELATIONSHIP, relations, **options)
    if release:
        write(folder / "VOCABULARY.csv", VOCABULARY, [("None", "OMOP", "test", release, 0)], **options)
    if ancestors is not None:
        write(folder / "CONCEPT_ANCESTOR.csv", ANCESTOR, [(*pair, 1, 1) for pair in ancestors], **options)
    return folder


def write_maps(folder: Path, files: dict[str, tuple[str, list[dict]]]) -> Path:
    """A folder of code maps: file → (system, rows); a row needs `sourceCode` and `conceptId`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "_systems.csv").open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(["file", "system", "vocabulary_id"])
        writer.writerows([name, system, ""] for name, (system, _) in files.items())
    for name, (_, rows) in files.items():
        with (folder / name).open("w", encoding="utf-8", newline="") as lines:
            writer = csv.DictWriter(lines, USAGI_COLUMNS, restval="")
            writer.writeheader()
            writer.writerows({"mappingStatus": "APPROVED", "mappingType": "MAPS_TO", **row} for row in rows)
    return folder


def site_with(codes: Path) -> Site:
    """A site whose code maps stand in `codes`."""
    return Site(id="prova", name="Prova", time_zone="Europe/Rome", folder=codes.parent, codes=codes)


def resolve(vocabulary, codes, *, site=None) -> dict[tuple[str, str], list[dict]]:
    """(system, code) → the rows of `code_concept`, in rank order."""
    vocabulary = open_vocabulary(vocabulary) if isinstance(vocabulary, Path) or vocabulary is None else vocabulary
    connection = duckdb.connect()
    connection.execute("CREATE TABLE used (system VARCHAR, code VARCHAR)")
    if codes:  # as literals: bound parameters would make DuckDB import pandas
        quoted = [", ".join("'" + text.replace("'", "''") + "'" for text in pair) for pair in codes]
        connection.execute(f"INSERT INTO used VALUES ({'), ('.join(quoted)})")
    attach(connection, vocabulary, site=site, codes_used="used")
    answer = connection.execute("FROM code_concept ORDER BY system, code, map_rank")
    names = [column[0] for column in answer.description]
    found: dict[tuple[str, str], list[dict]] = {}
    for row in answer.fetchall():
        values = dict(zip(names, row, strict=True))
        found.setdefault((values["system"], values["code"]), []).append(values)
    return found
