"""Mending: whatever pages lost, the windows bring it; and windows whose counts agree are not fetched."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from fhir_adapters.fhir_server.mending import Bound, Mender, Unheeded
from fhir_adapters.fhir_web.gathered import distinct
from fhir_adapters.fhir_web.spool import Strand

START = datetime(2024, 3, 1, tzinfo=UTC)
NOW = datetime(2024, 6, 1, tzinfo=UTC)


class Store:
    """A server's records of one type: id → when it was last updated. Its pages hold `page` of a window, and no more."""

    def __init__(self, records: dict[str, datetime], page: int) -> None:
        self.records = records
        self.page = page
        self.fetched: list[tuple[Bound, Bound]] = []
        self.counted = 0

    def within(self, low: Bound, high: Bound) -> list[str]:
        found = [one for one, at in self.records.items() if (low is None or at >= low) and (high is None or at < high)]
        return sorted(found)

    def count(self, low: Bound, high: Bound) -> int:
        self.counted += 1
        return len(self.within(low, high))


def write(strand: Strand, records: dict[str, datetime], ids: Sequence[str]) -> None:
    lines = "".join(f"m\tA\t{one}\t{records[one].isoformat()}\n" for one in ids)
    strand.append(b"{}\n" * len(ids), lines.encode())


MOMENTS = st.one_of(st.integers(0, 40), st.sampled_from([7, 7_000_000, -3_000_000_000])).map(
    lambda seconds: START + timedelta(seconds=seconds)
)


@given(
    moments=st.lists(MOMENTS, min_size=1, max_size=40),
    came=st.sets(st.integers(0, 39)),
    moved=st.dictionaries(st.integers(0, 39), MOMENTS, max_size=3),
    page=st.integers(2, 10),
)
@hypothesis(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_everything_comes(
    tmp_path_factory: pytest.TempPathFactory,
    moments: list[datetime],
    came: set[int],
    moved: dict[int, datetime],
    page: int,
) -> None:
    """Some came, some were changed after they came; two rounds bring the rest."""
    before = {f"r{number}": at for number, at in enumerate(moments)}
    strand = Strand(tmp_path_factory.mktemp("strand"), "A")
    write(strand, before, [one for one in before if int(one[1:]) in came])
    store = Store(before | {f"r{one}": at for one, at in moved.items() if f"r{one}" in before}, page)

    def fetch(low: Bound, high: Bound) -> None:
        found = store.within(low, high)
        crowded = len({store.records[one] for one in found}) == 1
        assert len(found) <= page or crowded, "a window fits on a page, or is one moment"
        store.fetched.append((low, high))
        write(strand, store.records, found)

    for every in (False, True):
        if distinct([strand], "A") < len(store.records):
            Mender(store.count, fetch, page=page, now=NOW, every=every).mend(strand, "A", None)
    strand.close()
    assert distinct([strand], "A") == len(store.records)


def test_only_what_differs_is_fetched(tmp_path: Path) -> None:
    records = {f"r{number}": START + timedelta(minutes=number) for number in range(400)}
    strand = Strand(tmp_path, "A")
    write(strand, records, [one for one in records if one != "r123"])
    store = Store(records, 20)

    def fetch(low: Bound, high: Bound) -> None:
        store.fetched.append((low, high))
        write(strand, records, store.within(low, high))

    Mender(store.count, fetch, page=20, now=NOW, every=False).mend(strand, "A", None)
    strand.close()
    assert distinct([strand], "A") == 400
    assert len(store.fetched) == 1
    assert store.counted < 20


@pytest.mark.parametrize("answers", [30, None])
def test_a_server_that_does_not_know_windows_is_not_asked_for_ever(tmp_path: Path, answers: int | None) -> None:
    """It counts all of it in every window, or counts no window at all."""
    strand, asked = Strand(tmp_path, "A"), 0

    def count(low: Bound, high: Bound) -> int | None:
        nonlocal asked
        asked += 1
        return answers if (low, high) != (None, None) else 30

    with pytest.raises(Unheeded):
        Mender(count, lambda *_: None, page=10, now=NOW, every=False).mend(strand, "A", None)
    assert asked == 3
