"""Paging by date: whatever an archive cuts off, every dated study is found, and the questions stay few."""

from collections.abc import Iterable
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_adapters.dicom.windows import FEWEST, Told, Unsplittable, Window, all_studies

DAYS = st.dates(date(2020, 1, 1), date(2020, 3, 1)) | st.sampled_from([date(2020, 2, 2)])
TIMES = st.sampled_from(["", "000000", "120000", "120001", "235959"])


class Archive:
    """Studies, and a limit that it keeps to itself; `says`: it tells when it cut an answer off."""

    def __init__(self, studies: Iterable[Told], limit: int | None = None, *, says: bool = False) -> None:
        self.studies = list(studies)
        self.limit = limit
        self.says = says
        self.asked: list[Window] = []

    def ask(self, window: Window) -> tuple[list[Told], bool]:
        self.asked.append(window)
        found = [one for one in self.studies if window.holds(one.day, one.time)]
        return found[: self.limit], self.says and self.limit is not None and len(found) > self.limit


def studies(days: Iterable[tuple[date | None, str]]) -> list[Told]:
    return [Told(f"1.{number}", day, time) for number, (day, time) in enumerate(days)]


@given(st.lists(st.tuples(DAYS, TIMES), max_size=120), st.integers(FEWEST, 30))
def test_no_dated_study_is_lost_as_long_as_a_second_holds_fewer_than_the_limit(days, limit) -> None:
    held = studies(days)
    moments = [(one.day, one.time or "000000") for one in held]
    if any(moments.count(moment) >= limit for moment in moments):
        return
    assert all_studies(Archive(held, limit).ask).studies.keys() == {one.uid for one in held}
    assert all_studies(Archive(held, limit).ask, limit=limit).studies.keys() == {one.uid for one in held}


@pytest.mark.parametrize("many", [0, 1, 9, 10, 1000])
def test_an_archive_without_a_limit_costs_two_questions_more(many) -> None:
    archive = Archive(studies((date(2020, 1, 1) + timedelta(number), "101010") for number in range(many)))
    listing = all_studies(archive.ask)
    assert len(listing.studies) == many and not listing.limited
    assert listing.questions == (1 if many < FEWEST else 3)


def test_an_archive_with_a_limit() -> None:
    archive = Archive(studies((date(2020, 1, 1) + timedelta(number), "101010") for number in range(1000)), 100)
    listing = all_studies(archive.ask)
    assert len(listing.studies) == 1000 and listing.limited
    assert listing.questions < 45


def test_studies_without_a_date_come_with_the_first_answer() -> None:
    held = studies([(None, ""), *((date(2020, 1, 1) + timedelta(number), "") for number in range(30))])
    listing = all_studies(Archive(held, 20).ask)
    assert listing.studies.keys() == {one.uid for one in held} and listing.limited


def test_since() -> None:
    archive = Archive(studies((date(2020, 1, 1) + timedelta(number), "") for number in range(100)))
    assert len(all_studies(archive.ask, since=date(2020, 3, 1)).studies) == 40
    assert archive.asked[0].dates == "20200301-"


def test_more_in_one_second_than_the_archive_gives() -> None:
    held = studies([(date(2020, 1, 1), "101010")] * 50)
    with pytest.raises(Unsplittable):
        all_studies(Archive(held, 20, says=True).ask)


def test_more_in_one_second_than_the_limit_that_the_settings_name() -> None:
    held = studies([(date(2020, 1, 1), "101010")] * 50)
    with pytest.raises(Unsplittable):
        all_studies(Archive(held, 20).ask, limit=20)


@pytest.mark.parametrize("limit", [0, 20])
def test_an_answer_that_is_none_counts_for_the_limit(limit: int) -> None:
    """An answer of which a part is of no use is as long as the archive gave it."""
    held = studies((date(2020, 1, 1) + timedelta(number), "") for number in range(200))
    archive = Archive(held, 20)

    def ask(window: Window) -> tuple[list[Told], bool]:
        answers, more = archive.ask(window)
        return [one if place % 5 else Told("", one.day, one.time) for place, one in enumerate(answers)], more

    found = all_studies(ask, limit=limit).studies
    assert "" not in found
    # each study comes at some place that is not the first of five, or it is alone in its window
    assert len(found) > 150


def test_an_archive_that_heeds_no_date_ends_the_questions() -> None:
    held = studies((date(2020, 1, 1) + timedelta(number), "101010") for number in range(50))
    asked = []

    def ask(window: Window) -> tuple[list[Told], bool]:
        asked.append(window)
        return held, False

    assert len(all_studies(ask).studies) == 50
    assert len(asked) == 3


def test_how_a_window_is_asked_for() -> None:
    day = date(2021, 3, 4)
    assert Window().dates == "" and Window(day, day).dates == "20210304"
    assert Window(day, None).dates == "20210304-" and Window(None, day).dates == "-20210304"
    assert Window(day, day, "101010", "121212").times == "101010-121212.999999"
