"""Two slices into one: of the old one the rows of patients who are kept, of the part all rows.

The tables `gone` (resource_type, resource_id), `gone_person` (person) and `chosen` (person) say whose rows are not kept. Each file is
written in the order that a run over all gives it.
"""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import duckdb

from fhir_adapters.errors import PalmaresError
from omop_etl.cdm import duckdb_columns
from omop_etl.mapping import memory, slice
from omop_etl.mapping.codesets import literal
from omop_etl.mapping.recipes import cdm_selects
from omop_etl.mapping.workers import side_by_side

# a place of residence has one row for all who live there: that row names the first of them
_RESIDENCE = "resource_type = 'Patient' AND cdm_table = 'location'"
_PLACE = "resource_key(resource_type, coalesce(resource_id, ''))"
_NOT_GONE = "ANTI JOIN gone g ON g.resource_type = o.resource_type AND g.resource_id = o.resource_id"
_SAME = "IS NOT DISTINCT FROM"


def merge(connection: duckdb.DuckDBPyConnection, old: Path, part: Path, out: Path) -> dict[str, int]:
    """Write the CDM tables, the ledger and `side/` of the merged slice; rows per CDM table. Leaves the table `tally` of its counts.

    Raises MapAll when a new row's id is that of a row that is kept.
    """
    of_persons = [name for name in cdm_selects() if "person_id" in duckdb_columns(name)]
    whole = [name for name in cdm_selects() if name not in of_persons and name != "location"]
    (out / "side").mkdir()
    for name in whole:
        shutil.copyfile(part / f"{name}.parquet", out / f"{name}.parquet")
    gone = " UNION ALL ".join(
        f"SELECT {literal(name)} AS cdm_table, {slice.key_of(name)} AS cdm_id FROM {_rows(old, name)} WHERE person_id IN (FROM gone_person)"
        for name in of_persons
    )
    connection.execute(f"CREATE TABLE gone_row AS {gone}")
    counts = {"person": _table(connection, old, part, out, "person")}
    _tell_residents(connection, old, part, out)
    copies = {
        "ledger": _ledger(old, part),
        "location": _locations(old, part),
        **{f"side/{name}": select for name, select in _side(old, part).items()},
    }
    tasks: dict[str, Callable[[duckdb.DuckDBPyConnection], int]] = {
        name: partial(slice.copy, select=select, path=out / f"{name}.parquet") for name, select in copies.items()
    }
    for name in of_persons:
        if name != "person":
            tasks[name] = partial(_table, old=old, part=part, out=out, name=name)
    names = sorted(tasks, key=lambda name: name not in ("ledger", "measurement", "side/members"))
    done = dict(zip(names, side_by_side(connection, lambda cursor, name: tasks[name](cursor), names), strict=True))
    connection.execute(f"CREATE TABLE tally AS SELECT * FROM {_rows(out, 'side/tallies')}")
    counts |= {name: done[name] for name in ("location", *of_persons) if name in done}
    for name in whole:
        counts[name] = _count(connection, _rows(out, name))
    return {name: counts[name] for name in cdm_selects()}


def _rows(folder: Path, name: str) -> str:
    return f"read_parquet({literal(str(folder / f'{name}.parquet'))})"


def _count(connection: duckdb.DuckDBPyConnection, what: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {what}").fetchone()
    return row[0] if row else 0


def _table(cursor: duckdb.DuckDBPyConnection, old: Path, part: Path, out: Path, name: str) -> int:
    key = slice.key_of(name)
    kept = f"SELECT * FROM {_rows(old, name)} WHERE person_id NOT IN (FROM gone_person)"
    if _count(cursor, f"({kept}) SEMI JOIN {_rows(part, name)} USING ({key})"):
        raise memory.MapAll("an id is taken by two rows")
    return slice.copy(
        cursor, f"{kept} UNION ALL SELECT * FROM {_rows(part, name)} ORDER BY {key}", out / f"{name}.parquet"
    )


def _tell_residents(connection: duckdb.DuckDBPyConnection, old: Path, part: Path, out: Path) -> None:
    """The table `patient` (person, resource_id, key) and the view `residence` (location_id, resource_id) of the merged slice."""
    connection.execute(
        "CREATE TABLE patient AS SELECT id_of(key) AS person, resource_id, key FROM ("
        "SELECT resource_id, resource_key('Patient', resource_id) AS key FROM ("
        f"SELECT resource_type, resource_id FROM {_rows(old, 'side/members')} ANTI JOIN gone USING (resource_type, resource_id) "
        f"UNION ALL SELECT resource_type, resource_id FROM {_rows(part, 'side/members')}) WHERE resource_type = 'Patient')"
    )
    connection.execute(
        "CREATE VIEW residence AS SELECT p.location_id, min_by(n.resource_id, n.key) AS resource_id "
        f"FROM {_rows(out, 'person')} p JOIN patient n ON n.person = p.person_id WHERE p.location_id IS NOT NULL GROUP BY 1"
    )


def _locations(old: Path, part: Path) -> str:
    return (
        f"SELECT * FROM (SELECT * FROM {_rows(part, 'location')} ANTI JOIN (SELECT cdm_id AS location_id FROM {_rows(part, 'side/trace')} "
        f"WHERE {_RESIDENCE}) USING (location_id) UNION ALL SELECT * FROM (SELECT * FROM {_rows(old, 'location')} UNION "
        f"SELECT * FROM {_rows(part, 'location')}) SEMI JOIN residence USING (location_id)) ORDER BY location_id"
    )


def _ledger(old: Path, part: Path) -> str:
    others = f"(SELECT * FROM {{}} WHERE NOT coalesce({_RESIDENCE}, false))"
    new = others.format(_rows(part, "ledger"))
    kept = f"SELECT o.* FROM {others.format(_rows(old, 'ledger'))} o {_NOT_GONE} WHERE o.outcome"
    return (
        f"SELECT * EXCLUDE (place) FROM (SELECT *, {_PLACE} AS place FROM ("
        # what was refused as it was read stands in both
        f"{kept} = 'written' UNION ALL {kept} <> 'written' AND NOT EXISTS (FROM {new} n WHERE n.outcome <> 'written' "
        f"AND n.resource_type {_SAME} o.resource_type AND n.resource_id {_SAME} o.resource_id AND n.reason = o.reason) "
        f"UNION ALL SELECT * FROM {new} UNION ALL "
        "SELECT 'Patient', resource_id, 'written', NULL, 'location', count(*) FROM residence GROUP BY resource_id)) "
        "ORDER BY place, resource_type, resource_id, cdm_table, reason"
    )


def _side(old: Path, part: Path) -> dict[str, str]:
    """File of `side/` → its SELECT."""

    def both(name: str, kept: str, order: str = "") -> str:
        stays = f"SELECT * FROM {_rows(old, f'side/{name}')} o {kept}"
        return f"SELECT * FROM ({stays} UNION ALL SELECT * FROM {_rows(part, f'side/{name}')}){f' ORDER BY {order}' if order else ''}"

    others = "ANTI JOIN gone_row g ON g.cdm_table = o.cdm_table AND g.cdm_id = o.cdm_id"
    of_persons = "WHERE person NOT IN (FROM gone_person)"
    trace = (
        f"SELECT * FROM (SELECT * FROM (FROM {_rows(old, 'side/trace')} WHERE NOT ({_RESIDENCE})) o {_NOT_GONE} "
        f"UNION ALL SELECT * FROM {_rows(part, 'side/trace')} WHERE NOT ({_RESIDENCE}) "
        "UNION ALL SELECT 'location', location_id, 'Patient', resource_id FROM residence) "
        "ORDER BY cdm_table, cdm_id, resource_type, resource_id"
    )
    return {
        "trace": trace,
        "person_link": both("person_link", "WHERE person_id NOT IN (FROM gone_person)", "person_id"),
        "imputed": both("imputed", others, "cdm_table, cdm_id"),
        "visit_by_date": both("visit_by_date", others, "cdm_table, cdm_id"),
        "members": both("members", _NOT_GONE),
        "linked": both("linked", "WHERE label NOT IN (FROM chosen)", "ALL"),
        "uses": both("uses", of_persons, "ALL"),
        "reach": both("reach", "WHERE person NOT IN (FROM chosen)", "person"),
        "tallies": both("tallies", "WHERE person IS NOT NULL AND person NOT IN (FROM gone_person)", "ALL"),
    }


def balance(connection: duckdb.DuckDBPyConnection, out: Path, counts: dict[str, int]) -> dict[str, dict[str, int]]:
    """Hold the merged ledger against the resources and the rows; resources by type and outcome. Leaves the view `ledger`.

    Raises E-BALANCE-01.
    """
    connection.execute(f"CREATE VIEW ledger AS SELECT * FROM {_rows(out, 'ledger')}")
    lost = _count(
        connection,
        f"{_rows(out, 'side/members')} ANTI JOIN (SELECT resource_type, resource_id FROM ledger) USING (resource_type, resource_id)",
    )
    if lost:
        raise PalmaresError("E-BALANCE-01", "ledger", count=lost, detail="resources read less resources settled")
    rows = dict(
        connection.execute(
            "SELECT cdm_table, sum(row_count)::BIGINT FROM ledger WHERE cdm_table IS NOT NULL GROUP BY 1"
        ).fetchall()
    )
    for name in cdm_selects():
        if name not in (*slice.DERIVED, "cdm_source") and counts[name] != rows.get(name, 0):
            raise PalmaresError(
                "E-BALANCE-01", name, count=counts[name] - rows.get(name, 0), detail="rows less rows in the ledger"
            )
    found: dict[str, dict[str, int]] = {}
    for kind, outcome, count in connection.execute(
        "SELECT resource_type, outcome, count(DISTINCT coalesce(resource_id, '')) FROM ledger GROUP BY 1, 2 ORDER BY 1, outcome <> 'written', 2"
    ).fetchall():
        found.setdefault(kind, {})[outcome] = count
    return found
