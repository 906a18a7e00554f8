"""Finds what a server's pages have lost, by counting in windows of `_lastUpdated`.

The server's count of a window is held against the different resources that came of it; where they differ, the window is halved,
until one fits on a page, where nothing can slip, and is fetched again. The first round goes down only where the counts differ. A
resource that was changed meanwhile can hide another's loss there (it stands here in its old window, there in its new one),
so when the sum still does not fit, a second round fetches every window.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from fhir_adapters.fhir_web.gathered import ids_table
from fhir_adapters.fhir_web.spool import Strand

EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
_NARROWEST = timedelta(seconds=1)  # the precision of the coarsest servers

Bound = datetime | None
Fetch = Callable[[Bound, Bound], None]


class Unheeded(Exception):
    """The server's count of a window is not that of its halves: it does not heed `_lastUpdated`, and nothing is found by it."""


class Mender:
    """One round of mending. `count` and `fetch` ask the server for a window: from the first bound, to before the second."""

    def __init__(
        self, count: Callable[[Bound, Bound], int | None], fetch: Fetch, *, page: int, now: datetime, every: bool
    ) -> None:
        self._count = count
        self._fetch = fetch
        self._fits = max(1, page // 2)
        self._end = now + timedelta(days=1)
        self._every = every

    def mend(self, strand: Strand, resource_type: str, since: Bound) -> None:
        """Fetch again what the strand lacks of a type. Raises Unheeded."""
        with _held(strand, resource_type, self._fits) as (cuts, held):
            self._walk(since, None, cuts, held, self._count(since, None))

    def _walk(
        self,
        low: Bound,
        high: Bound,
        cuts: Sequence[datetime],
        held: Callable[[Bound, Bound], int],
        counted: int | None,
    ) -> None:
        if counted == 0 or (counted is not None and not self._every and held(low, high) >= counted):
            return
        if counted is not None and counted <= self._fits:
            self._fetch(low, high)
            return
        cuts = [cut for cut in cuts if (low is None or cut > low) and (high is None or cut < high)]
        if cuts:
            middle = cuts[len(cuts) // 2]
        else:
            first, last = low or EARLIEST, high or self._end
            if last - first <= _NARROWEST:
                self._fetch(low, high)  # so many at one moment: nothing is left but to page through them
                return
            middle = _whole(first + (last - first) / 2)
        halves = self._count(low, middle), self._count(middle, high)
        # what is written meanwhile makes a few more; a server that does not know windows counts all of it in both
        if counted is None or halves[0] is None or halves[1] is None or halves[0] + halves[1] > 1.5 * counted:
            raise Unheeded
        self._walk(low, middle, cuts, held, halves[0])
        self._walk(middle, high, cuts, held, halves[1])


def _whole(at: datetime) -> datetime:
    """To the millisecond: what is counted here and what the server is asked must be the same window."""
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


@contextmanager
def _held(
    strand: Strand, resource_type: str, step: int
) -> Iterator[tuple[list[datetime], Callable[[Bound, Bound], int]]]:
    """Where to cut (every `step`th moment of what came), and how many resources came of a window."""
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("CREATE TABLE came (id VARCHAR, moment TIMESTAMPTZ)")
        if strand.ids.exists() and strand.ids.stat().st_size:
            connection.execute(
                f"INSERT INTO came SELECT id, max(try_cast(updated AS TIMESTAMPTZ)) FROM {ids_table([strand.ids])}"
                " WHERE mark = 'm' AND resource_type = ? GROUP BY id",
                [resource_type],
            )
        rows = connection.execute(
            "SELECT DISTINCT epoch_ms(moment) FROM (SELECT moment, row_number() OVER (ORDER BY moment) AS place FROM came WHERE moment IS NOT NULL)"
            " WHERE place % ? = 0 ORDER BY 1",
            [step],
        ).fetchall()
        cuts = [datetime.fromtimestamp(row[0] / 1000, UTC) for row in rows]

        def held(low: Bound, high: Bound) -> int:
            row = connection.execute(
                "SELECT count(*) FROM came WHERE (?::VARCHAR IS NULL OR moment >= ?::TIMESTAMPTZ)"
                " AND (?::VARCHAR IS NULL OR moment < ?::TIMESTAMPTZ)",
                [
                    low and low.isoformat(),
                    low and low.isoformat(),
                    high and high.isoformat(),
                    high and high.isoformat(),
                ],
            ).fetchone()
            return int(row[0]) if row else 0

        yield cuts, held
