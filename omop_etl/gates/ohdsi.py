"""What OHDSI's Data Quality Dashboard checks, as numbers: `mappings/quality/dqd.csv`, and how it is made from a release.

    check, cdm_table, cdm_field, concept_id, argument, threshold

One row per check of the dashboard: which table and field it is made for, what it is held against (`argument`: the domain, the
bound, the other column, the concept ids of the sex or of the units that fit) and the percentage above which it fails. No text of
OHDSI's stands there; titles, explanations and SQL are ours (checks.toml). What a check counts, and of what, follows the
dashboard's own definition, so that both give the same two numbers.

    python -m omop_etl.gates.ohdsi FOLDER        take over the numbers of another release (its inst/csv folder)
"""

import csv
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fhir_adapters.errors import PalmaresError
from fhir_adapters.knowledge import mappings_folder

FILE = "dqd.csv"
COLUMNS = ("check", "cdm_table", "cdm_field", "concept_id", "argument", "threshold")
# by default the dashboard leaves these tables out, and the column whose name is a reserved word
_LEFT_OUT = {
    "concept", "vocabulary", "concept_ancestor", "concept_relationship", "concept_class", "concept_synonym", "relationship",
    "domain",
}  # fmt: skip
_RESERVED = "offset"
_FLAGS = (
    "isRequired",
    "isPrimaryKey",
    "measureValueCompleteness",
    "isStandardValidConcept",
    "standardConceptRecordCompleteness",
    "sourceConceptRecordCompleteness",
    "plausibleDuringLife",
    "withinVisitDates",
    "plausibleAfterBirth",
    "plausibleBeforeDeath",
)
_SEXES = {"Male": "male", "Female": "female"}


@dataclass(frozen=True)
class Row:
    """One check of the dashboard. `concept_id` may be several ids with commas; `threshold` is in percent, None for "any"."""

    check: str
    cdm_table: str
    cdm_field: str
    concept_id: str
    argument: str
    threshold: float | None


@cache
def rows(folder: Path | None = None) -> tuple[Row, ...]:
    """Every row of dqd.csv. Raises E-GATE-03 when the file is missing or does not read."""
    path = (folder or mappings_folder() / "quality") / FILE
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            return tuple(
                Row(**(line | {"threshold": float(line["threshold"]) if line["threshold"] else None}))  # type: ignore[arg-type]
                for line in csv.DictReader(lines)
            )
    except FileNotFoundError:
        raise PalmaresError("E-GATE-03", FILE, detail="the file is missing") from None
    except (ValueError, TypeError, KeyError, UnicodeDecodeError):
        raise PalmaresError("E-GATE-03", FILE, detail="its columns or numbers do not read") from None


def made_from(release: Path) -> str:
    """The text of dqd.csv from a release's three CSV files (`OMOP_CDMv5.4_{Table,Field,Concept}_Level.csv`)."""
    found = sorted(
        _table_level(release) + _field_level(release) + _concept_level(release), key=lambda row: (row[0], row[1:4])
    )
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(found)
    return out.getvalue()


_Line = tuple[str, str, str, str, str, str]


def _read(release: Path, level: str) -> Iterator[dict[str, str]]:
    with (release / f"OMOP_CDMv5.4_{level}_Level.csv").open(encoding="utf-8-sig", newline="") as lines:
        for line in csv.DictReader(lines):
            if line["cdmTableName"].lower() not in _LEFT_OUT:
                yield line


def _table_level(release: Path) -> list[_Line]:
    found: list[_Line] = []
    for line in _read(release, "Table"):
        table = line["cdmTableName"].lower()
        found.append(("cdmTable", table, "", "", "", ""))
        for check in (
            "measurePersonCompleteness",
            "measureConditionEraCompleteness",
            "measureObservationPeriodOverlap",
        ):
            if line[check] == "Yes":
                found.append((check, table, "", "", "", line[f"{check}Threshold"]))
    return found


def _field_level(release: Path) -> list[_Line]:
    found: list[_Line] = []
    for line in _read(release, "Field"):
        table, field = line["cdmTableName"].lower(), line["cdmFieldName"].lower().strip('"')
        if field == _RESERVED:
            continue

        def add(
            check: str, argument: str = "", line: dict[str, str] = line, at: tuple[str, str] = (table, field)
        ) -> None:
            found.append((check, *at, "", argument, line.get(f"{check}Threshold", "")))

        add("cdmField")
        for check in _FLAGS:
            if line[check] == "Yes":
                add(check)
        if line["cdmDatatype"] == "integer":
            add("cdmDatatype")
        if line["isForeignKey"] == "Yes":
            add("isForeignKey", f"{line['fkTableName']}.{line['fkFieldName']}".lower())
            for check in ("fkDomain", "fkClass"):
                if line[check]:
                    add(check, line[check])
        if line["sourceValueCompleteness"] == "Yes":
            add("sourceValueCompleteness", line["standardConceptFieldName"].lower())
        for check in ("plausibleValueLow", "plausibleValueHigh"):
            if line[check]:
                add(check, _bound(line[check]))
        if line["plausibleTemporalAfter"] == "Yes":
            other = f"{line['plausibleTemporalAfterTableName']}.{line['plausibleTemporalAfterFieldName']}"
            add("plausibleTemporalAfter", other.lower())
        if line["plausibleStartBeforeEnd"] == "Yes":
            add("plausibleStartBeforeEnd", line["plausibleStartBeforeEndFieldName"].lower())
    return found


def _bound(text: str) -> str:
    """A bound as we write it: a number, a day as YYYY-MM-DD, `tomorrow`, or `next-year`."""
    day = text.strip("'")
    if text.startswith("'"):
        return f"{day[:4]}-{day[4:6]}-{day[6:]}"
    return {"DATEADD(dd,1,GETDATE())": "tomorrow", "YEAR(GETDATE())+1": "next-year"}.get(text, text)


def _concept_level(release: Path) -> list[_Line]:
    found: list[_Line] = []
    for line in _read(release, "Concept"):
        at = (line["cdmTableName"].lower(), line["cdmFieldName"].lower(), line["conceptId"].replace(" ", ""))
        for check in ("plausibleGender", "plausibleGenderUseDescendants"):
            if line[check]:
                found.append((check, *at, _SEXES[line[check]], line[f"{check}Threshold"]))
        if line["plausibleUnitConceptIdsThreshold"]:
            units = line["plausibleUnitConceptIds"].replace(" ", "")
            found.append(("plausibleUnitConceptIds", *at, units, line["plausibleUnitConceptIdsThreshold"]))
    return found


def main() -> int:
    """Write dqd.csv anew from the release in the folder named on the command line."""
    (mappings_folder() / "quality" / FILE).write_text(made_from(Path(sys.argv[1])), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
