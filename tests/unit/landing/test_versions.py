"""Which version is the newest: the SQL and the plain Python say the same, whatever the order and the precision."""

import random

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_adapters.landing import (
    DELETED_SQL,
    LAST_UPDATED_SQL,
    VERSION_NUMBER_SQL,
    VERSION_ORDER_SQL,
    Delete,
    Version,
    newest,
)
from tests.landing_helpers import DERANDOMIZE, EXAMPLES

_connection = duckdb.connect(config={"threads": 1})
_connection.execute("SET TimeZone = 'Asia/Kathmandu'")
_connection.execute(
    "CREATE TABLE version (last_updated_text VARCHAR, version_text VARCHAR, delivery INT, content_md5 VARCHAR);"
    "CREATE TABLE deleted (deleted_at_text VARCHAR, delivery INT)"
)


def by_sql(versions: list[Version], deletes: list[Delete]) -> Version | None:
    _connection.execute("DELETE FROM version; DELETE FROM deleted")
    for one in versions:
        row = [one.last_updated, one.version_id, one.delivery, one.content_md5]
        _connection.execute("INSERT INTO version VALUES (?, ?, ?, ?)", row)
    for two in deletes:
        _connection.execute("INSERT INTO deleted VALUES (?, ?)", [two.deleted_at, two.delivery])
    deleted_at = LAST_UPDATED_SQL.replace("last_updated_text", "deleted_at_text")
    row = _connection.execute(f"""
        WITH v AS (
            SELECT *, {LAST_UPDATED_SQL} AS last_updated, {VERSION_NUMBER_SQL} AS version_number FROM version
        ), first AS (
            SELECT * FROM v ORDER BY {VERSION_ORDER_SQL} LIMIT 1
        ), d AS (
            SELECT {deleted_at} AS deleted_at, delivery FROM deleted
        )
        SELECT last_updated_text, version_text, delivery, content_md5 FROM first AS v
        WHERE NOT EXISTS (SELECT 1 FROM d WHERE {DELETED_SQL})
    """).fetchone()
    return Version(*row) if row else None


_instants = st.sampled_from(
    [
        None,
        "2024-03-01T10:00:00Z",
        "2024-03-01T11:00:00+01:00",
        "2024-03-01T10:00:00.0000001Z",
        "2024-03-01T10:00:00.000001Z",
        "2024-03-01T10:00:00.123456789Z",
        "2024-03-01T10:00:00.1234569Z",
        "2024-03-01T09:59:59.999999Z",
        "2024-02-30T10:00:00Z",
        "2024-03-01",
        "2024-03-01T10:00:00",
        "yesterday",
        "",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
    ]
)
_numbers = st.sampled_from([None, "1", "2", "10", "010", "1.5", "W/1", "", "999999999999999999", "9" * 30])
_versions = st.builds(Version, _instants, _numbers, st.integers(1, 3), st.sampled_from(["0a", "0b", "f0"]))
_deletes = st.builds(Delete, _instants, st.integers(1, 3))


@given(st.lists(_versions, max_size=5), st.lists(_deletes, max_size=2), st.randoms(use_true_random=False))
@settings(max_examples=EXAMPLES * 2, deadline=None, derandomize=DERANDOMIZE)
def test_sql_and_python_agree_in_any_order(
    versions: list[Version], deletes: list[Delete], shuffler: random.Random
) -> None:
    expected = newest(versions, deletes)
    found = by_sql(versions, deletes)
    shuffler.shuffle(versions)
    shuffler.shuffle(deletes)
    again = newest(versions, deletes)
    for other in (found, again):
        assert (other is None) == (expected is None)
        if other and expected:  # equal in all that is compared: "10" and "010" are the same number
            assert (other.delivery, other.content_md5) == (expected.delivery, expected.content_md5)


def _v(updated: str | None, number: str | None = None, delivery: int = 1, md5: str = "0") -> Version:
    return Version(updated, number, delivery, md5)


@pytest.mark.parametrize(
    ("loser", "winner"),
    [
        (_v("2024-03-01T10:30:00+01:00", delivery=2), _v("2024-03-01T10:00:00Z")),  # later instant, earlier text
        (_v(None, "9", 9), _v("2020-01-01T00:00:00Z")),  # no time is older than any
        (_v("2024-03-01T10:00:00Z", "9"), _v("2024-03-01T10:00:00Z", "10")),  # a number, not a text
        (_v("2024-03-01T10:00:00Z", "x", 2), _v("2024-03-01T10:00:00Z", "1")),
        (_v(None, None, 1, "f"), _v(None, None, 2, "0")),
        (_v(None, None, 1, "0"), _v(None, None, 1, "f")),
    ],
)
def test_the_order(loser: Version, winner: Version) -> None:
    assert newest([loser, winner]) == newest([winner, loser]) == winner


@pytest.mark.parametrize(
    ("version", "delete", "is_deleted"),
    [
        (_v("2024-03-01T10:00:00Z"), Delete("2024-03-02T00:00:00Z", 1), True),
        (_v("2024-03-03T10:00:00Z"), Delete("2024-03-02T00:00:00Z", 9), False),  # made again after the delete
        (_v("2024-03-01T10:00:00Z"), Delete("2024-03-01T10:00:00Z", 1), True),
        (_v("2024-03-01T10:00:00Z", delivery=2), Delete(None, 2), True),
        (_v("2024-03-01T10:00:00Z", delivery=3), Delete(None, 2), False),
        (_v(None, delivery=2), Delete("2024-03-01T10:00:00Z", 3), True),
    ],
)
def test_deletes(version: Version, delete: Delete, is_deleted: bool) -> None:
    assert (newest([version], [delete]) is None) == is_deleted
    assert newest([], [delete]) is None
