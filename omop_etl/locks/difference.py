"""Two locks side by side: who came, who went, whose endpoint changed, and why. Counts are shown; persons stay inside.

Persons are known by the id that the warehouse gives them, which is the same in every lock; released ids are not. A count that is
small, or that would give a small one away by what the two locks themselves show, is hidden.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from fhir_adapters.folders import whole_file
from omop_etl.cohorts.small_cells import HIDDEN, protect
from omop_etl.locks.place import COHORT, DERIVED, read_lock
from omop_etl.locks.provenance import differences
from omop_etl.study.reading import literal
from omop_etl.study.rules import load_study

# why a person's endpoint is another one, in the order in which it is asked
_WHY = """
    CASE
        WHEN before.person_id IS NULL THEN 'given-now'
        WHEN after.person_id IS NULL THEN 'withheld-now'
        WHEN before.start_date <> after.start_date THEN 'day-0-moved'
        WHEN before.cnsr = 1 AND after.cnsr = 0 AND after.end_date > {cut_off} THEN 'event-after-the-first-cut-off'
        WHEN before.cnsr = 1 AND after.cnsr = 0 THEN 'event-recorded-since'
        WHEN before.cnsr = 0 AND after.cnsr = 1 AND before.end_date > {later_cut_off} THEN 'event-after-the-second-cut-off'
        WHEN before.cnsr = 0 AND after.cnsr = 1 THEN 'event-withdrawn'
        WHEN before.cnsr = 0 AND before.end_date <> after.end_date THEN 'event-moved'
        WHEN before.cnsr = 0 AND before.evntdesc IS DISTINCT FROM after.evntdesc THEN 'event-of-another-kind'
        WHEN before.cnsr = 1 AND after.end_date > before.end_date AND after.end_date > {cut_off} THEN 'followed-longer'
        WHEN before.cnsr = 1 AND after.end_date > before.end_date THEN 'follow-up-recorded-since'
        WHEN before.cnsr = 1 AND after.end_date < before.end_date AND before.end_date > {later_cut_off} THEN 'cut-off-earlier'
        WHEN before.cnsr = 1 AND after.end_date < before.end_date THEN 'follow-up-withdrawn'
        WHEN before.cnsdtdsc IS DISTINCT FROM after.cnsdtdsc THEN 'censored-for-another-reason'
        WHEN before.entry_day IS DISTINCT FROM after.entry_day THEN 'entry-moved'
    END
"""


@dataclass(frozen=True)
class Difference:
    """Two locks side by side, as it may be shown: a hidden number reads '*'. `made_of` says what else differs between them."""

    first: str
    second: str
    cut_offs: list[str]
    small_cells: int
    patients: dict[str, int | str]
    came: dict[str, int | str]
    went: dict[str, int | str]
    endpoints: dict[str, dict[str, int | str]]
    made_of: list[str]


def diff(home: Path, first: str, second: str, *, persons: Path | None = None) -> Difference:
    """What changed from the lock `first` to the lock `second`.

    `persons`, when given, is a CSV file that is written for the secure environment: a line per person who came, went, or whose
    endpoint changed, with the reason. Raises E-LOCK-03, E-LOCK-05, E-DISK-*.
    """
    (one, before), (other, after) = read_lock(home, first), read_lock(home, second)
    study = load_study(after["study"])
    threshold = study.thresholds["public"]
    with duckdb.connect() as connection:
        _read(connection, one, other, before, after)
        moves = connection.execute("SELECT direction, why, count(*) FROM moved GROUP BY ALL ORDER BY ALL").fetchall()
        stayed = connection.execute("SELECT count(*) FROM stayed").fetchall()[0][0]
        changes = connection.execute(
            "SELECT paramcd, why, count(*) FROM changed WHERE why IS NOT NULL GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        codes = [row[0] for row in connection.execute("SELECT DISTINCT paramcd FROM changed ORDER BY ALL").fetchall()]
        if persons is not None:
            _write_persons(connection, persons)
    came = {why: count for direction, why, count in moves if direction == "came"}
    went = {why: count for direction, why, count in moves if direction == "went"}
    shown, shown_came, shown_went = _moves(first, second, stayed, came, went, threshold)
    gone = sum(went.values())
    endpoints = {
        code: _endpoint(
            {why: count for paramcd, why, count in changes if paramcd == code}, stayed, gone, shown, threshold
        )
        for code in codes
    }
    return Difference(
        first=first,
        second=second,
        cut_offs=[before["cut_off"], after["cut_off"]],
        small_cells=threshold,
        patients=shown,
        came=shown_came,
        went=shown_went,
        endpoints=endpoints,
        made_of=_made_of(before, after),
    )


def _read(
    connection: duckdb.DuckDBPyConnection, one: Path, other: Path, before: Mapping[str, Any], after: Mapping[str, Any]
) -> None:
    for word, folder, manifest in (("first", one, before), ("second", other, after)):
        for name, source in (("persons", folder / COHORT / "persons"), ("endpoint", folder / DERIVED / "endpoint")):
            connection.execute(f"CREATE VIEW {word}_{name} AS FROM read_parquet({literal(f'{source}.parquet')})")
        sites = [site["site"] for site in manifest["sites"]]
        connection.execute(f"CREATE TABLE {word}_site AS SELECT unnest(?) AS site", [sites])
    connection.execute(
        """
        CREATE TABLE stayed AS
        SELECT person_id FROM first_persons JOIN second_persons USING (person_id)
        WHERE first_persons.eligible AND second_persons.eligible;

        CREATE TABLE moved AS
        SELECT
            after.person_id, after.site, 'came' AS direction,
            CASE
                WHEN before.person_id IS NOT NULL THEN 'was ' || before.failed_reason
                WHEN after.site NOT IN (SELECT site FROM first_site) THEN 'new-site'
                ELSE 'recorded-since'
            END AS why
        FROM second_persons AS after
        LEFT JOIN first_persons AS before USING (person_id)
        WHERE after.eligible AND NOT coalesce(before.eligible, FALSE)
        UNION ALL
        SELECT
            before.person_id, before.site, 'went',
            CASE
                WHEN after.person_id IS NOT NULL THEN 'is ' || after.failed_reason
                WHEN before.site NOT IN (SELECT site FROM second_site) THEN 'site-left'
                ELSE 'record-withdrawn'
            END
        FROM first_persons AS before
        LEFT JOIN second_persons AS after USING (person_id)
        WHERE before.eligible AND NOT coalesce(after.eligible, FALSE);
        """
    )
    why = _WHY.format(cut_off=f"DATE '{before['cut_off']}'", later_cut_off=f"DATE '{after['cut_off']}'")
    connection.execute(
        f"""
        CREATE TABLE changed AS
        SELECT person_id, paramcd, {why} AS why
        FROM (FROM first_endpoint SEMI JOIN stayed USING (person_id)) AS before
        FULL JOIN (FROM second_endpoint SEMI JOIN stayed USING (person_id)) AS after USING (person_id, paramcd)
        """
    )


def _moves(
    first: str, second: str, stayed: int, came: Mapping[str, int], went: Mapping[str, int], threshold: int
) -> tuple[dict[str, int | str], dict[str, int | str], dict[str, int | str]]:
    """Who stayed, came and went, as it may be shown; the sizes of both cohorts are shown by the locks themselves."""
    leaves = [stayed, *went.values(), *came.values()]
    gone = list(range(1, 1 + len(went)))
    new = list(range(1 + len(went), len(leaves)))
    sums = [[leaf] for leaf in range(len(leaves))] + [gone, new, [0, *gone], [0, *new]]
    totals = [sum(leaves[leaf] for leaf in members) for members in sums[-2:]]
    fixed = {len(sums) - 2 + place for place, total in enumerate(totals) if total >= threshold}
    hidden = protect(leaves, sums, threshold=threshold, fixed=fixed)
    said = [
        _say(sum(leaves[leaf] for leaf in members), is_hidden) for members, is_hidden in zip(sums, hidden, strict=True)
    ]
    names_gone = dict(zip(went, said[1 : 1 + len(went)], strict=True))
    names_new = dict(zip(came, said[1 + len(went) : len(leaves)], strict=True))
    patients = {first: said[-2], "went": said[-4], "stayed": said[0], "came": said[-3], second: said[-1]}
    return patients, names_new, names_gone


def _endpoint(
    why: Mapping[str, int], stayed: int, went: int, patients: Mapping[str, int | str], threshold: int
) -> dict[str, int | str]:
    """The changes of one endpoint among those who stayed: together with those who went they are the first lock's patients."""
    leaves = [stayed - sum(why.values()), *why.values(), went]
    cells = list(range(len(leaves) - 1))
    sums = [[leaf] for leaf in cells]
    fixed = set()
    for total, members in zip(list(patients.values())[:3], (range(len(leaves)), [len(leaves) - 1], cells), strict=True):
        if total != HIDDEN:  # shown above
            fixed.add(len(sums))
            sums.append(list(members))
    hidden = protect(leaves, sums, threshold=threshold, fixed=fixed)
    said = [_say(leaves[leaf], hidden[leaf]) for leaf in cells]
    return dict(zip(("unchanged", *why), said, strict=True))


def _say(count: int, hidden: bool) -> int | str:
    return HIDDEN if hidden else count


def _made_of(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What else differs: sites, their submissions, the vocabulary, mappings, code and environment."""
    one, other = ({site["site"]: site for site in manifest["sites"]} for manifest in (before, after))
    found = [f"site came: {site}" for site in sorted(other.keys() - one.keys())]
    found += [f"site went: {site}" for site in sorted(one.keys() - other.keys())]
    found += [
        f"submission: {site} {one[site]['submission']} → {other[site]['submission']}, extracted to {other[site]['extracted_to']}"
        for site in sorted(one.keys() & other.keys())
        if one[site]["submission"] != other[site]["submission"]
    ]
    if before["vocabulary"]["sha256"] != after["vocabulary"]["sha256"]:
        found.append("vocabulary")
    return found + differences(before, after)


def _write_persons(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    rows: Sequence[tuple[Any, ...]] = connection.execute(
        """
        SELECT person_id, site, direction AS what, why FROM moved
        UNION ALL
        SELECT person_id, site, paramcd, why FROM changed JOIN second_persons USING (person_id) WHERE why IS NOT NULL
        ORDER BY ALL
        """
    ).fetchall()
    with whole_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as lines:
        partial.chmod(0o600)
        out = csv.writer(lines, lineterminator="\n")
        out.writerow(["person_id", "site", "what", "why"])
        out.writerows(rows)
