"""Which version of a resource is the newest, and when it counts as deleted: the rule once as SQL and once as plain Python.

Among the versions of one (resource_type, id) the newest has the latest meta.lastUpdated (as an instant; a version without one is
older than any that has one), then the greatest meta.versionId (as a number; one that is no number is smaller than any), then
the latest delivery, then the greatest md5 of its line. The line's place in its file never counts, so shuffling changes nothing.

A delete removes that newest version when it is not older than it: by time when both have one, else by delivery. Both at the
same time: deleted.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

# an instant as DuckDB TIMESTAMPTZ and a version as a number, from texts in columns of these names
LAST_UPDATED_SQL = r"""CASE WHEN regexp_full_match(last_updated_text,
    '\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)')
    THEN try_cast(last_updated_text AS TIMESTAMPTZ) END"""
VERSION_NUMBER_SQL = r"CASE WHEN regexp_full_match(version_text, '\d{1,18}') THEN CAST(version_text AS BIGINT) END"

# ORDER BY over columns last_updated, version_number, delivery, content_md5 (lower-case hex of the line's bytes)
VERSION_ORDER_SQL = (
    "last_updated DESC NULLS LAST, version_number DESC NULLS LAST, delivery DESC, content_md5 DESC NULLS LAST"
)

# whether the delete `d` (deleted_at, delivery) removes the newest version `v` (last_updated, delivery)
DELETED_SQL = (
    "CASE WHEN d.deleted_at IS NULL OR v.last_updated IS NULL THEN d.delivery >= v.delivery"
    " ELSE d.deleted_at >= v.last_updated END"
)

_INSTANT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")


def instant(text: str | None) -> datetime | None:
    """A FHIR instant, to the microsecond; None for anything else."""
    match = _INSTANT.fullmatch(text or "")
    if match is None:
        return None
    micros = (match[2] or "").ljust(6, "0")[:6]
    try:
        return datetime.fromisoformat(f"{match[1]}.{micros}{match[3]}")
    except ValueError:
        return None


@dataclass(frozen=True)
class Version:
    """One version of a resource as it was landed."""

    last_updated: str | None
    version_id: str | None
    delivery: int
    content_md5: str


@dataclass(frozen=True)
class Delete:
    """One delete of a resource; `deleted_at` an ISO instant or None."""

    deleted_at: str | None
    delivery: int


def _rank(version: Version) -> tuple[bool, float, bool, int, int, str]:
    at = instant(version.last_updated)
    number = version.version_id if re.fullmatch(r"[0-9]{1,18}", version.version_id or "") else None
    return (
        at is not None,
        at.timestamp() if at else 0.0,
        number is not None,
        int(number or 0),
        version.delivery,
        version.content_md5,
    )


def newest(versions: Iterable[Version], deletes: Iterable[Delete] = ()) -> Version | None:
    """The version that counts, or None when there is none or it is deleted."""
    best = max(versions, key=_rank, default=None)
    if best is None:
        return None
    updated = instant(best.last_updated)
    for delete in deletes:
        deleted = instant(delete.deleted_at)
        undated = deleted is None or updated is None
        if (undated and delete.delivery >= best.delivery) or (deleted and updated and deleted >= updated):
            return None
    return best
