"""All studies of an archive that gives only so many answers to one question: asked by windows of study date, then of time.

Many archives cut an answer off at a number of their own and do not say so. So an answer is believed to be whole only when it is
shorter than one that the same archive has given before (or than the limit that the settings name); any other is asked again
as two halves, cut at the median of what it brought. An archive without a limit costs two questions more, one with a limit
about two per full answer.

Studies without a date are in no window: they come with the first question, as far as its answer goes.
"""

from collections.abc import Callable, Iterable
from datetime import date, timedelta
from typing import NamedTuple

FEWEST = 10  # no archive cuts off at fewer

_FIRST_TIME, _LAST_TIME = "000000", "235959"


class Window(NamedTuple):
    """Study dates from `first` to `last`, both taken, None: open; of one day, times from `begin` to `end` as HHMMSS."""

    first: date | None = None
    last: date | None = None
    begin: str = ""
    end: str = ""

    @property
    def dates(self) -> str:
        """As a DICOM query says it: `20210101-20210131`, `20210101-`, `20210101`, or nothing for all."""
        first = f"{self.first:%Y%m%d}" if self.first else ""
        last = f"{self.last:%Y%m%d}" if self.last else ""
        return first if first == last else f"{first}-{last}"

    @property
    def times(self) -> str:
        """As a DICOM query says it; nothing for the whole day."""
        return f"{self.begin}-{self.end}.999999" if self.begin else ""

    def holds(self, day: date | None, time: str) -> bool:
        """Whether a study of this day and time (HHMMSS, may be empty) lies in the window."""
        if day is None:
            return self == Window()
        if (self.first and day < self.first) or (self.last and day > self.last):
            return False
        return not self.begin or self.begin <= (time or _FIRST_TIME) <= self.end


class Told(NamedTuple):
    """A study as the archive tells it; without a UID it is none, and still one of the answers that an archive counts."""

    uid: str
    day: date | None
    time: str  # HHMMSS, or empty


class Unsplittable(Exception):
    """The archive holds more than it gives, and there is no narrower question."""


class Listing(NamedTuple):
    """What asking brought. `limited`: the archive cuts answers off; then studies without a date may be missing."""

    studies: dict[str, Told]
    questions: int
    limited: bool


def all_studies(
    ask: Callable[[Window], tuple[Iterable[Told], bool]], *, since: date | None = None, limit: int = 0
) -> Listing:
    """Every study from `since` on. `ask` gives the answers to a window, and whether the archive says that it holds more.

    `limit`: the most answers that the archive gives, 0 when that is not known. Raises Unsplittable when an answer is cut off, as
    the archive or the limit says, and there is no narrower question.
    """
    found: dict[str, Told] = {}
    most = 0  # the longest answer so far: any that is shorter is whole
    questions, first_answer = 0, 0
    waiting = [Window(first=since)]
    while waiting:
        window = waiting.pop()
        answers, more = ask(window)
        listed = list(answers)
        told = {one.uid: one for one in listed if one.uid}
        questions += 1
        if questions == 1:
            first_answer = len(told)
        found.update(told)
        # an archive that tells a study twice counts it twice
        whole = len(listed) < (limit or max(most, FEWEST))
        most = max(most, len(listed))
        if more or not whole:
            inside = [one for one in told.values() if one.day is not None and window.holds(one.day, one.time)]
            heeded = len(inside) == sum(one.day is not None for one in told.values())
            # an archive that answers beside the question cannot be asked a narrower one
            narrower = _split(window, inside) if heeded else []
            if not narrower and (more or limit):
                raise Unsplittable
            waiting += narrower
    return Listing(found, questions, len(found) > first_answer)


def _split(window: Window, told: list[Told]) -> list[Window]:
    """Windows that together are this one, each with about half of what was told; none when there is no narrower one."""
    if window.first is not None and window.first == window.last:
        return _split_day(window, sorted(one.time or _FIRST_TIME for one in told))
    days = sorted(one.day for one in told if one.day is not None)
    if not days or days[0] == date.min:
        return []
    middle = days[len(days) // 2]
    if middle == days[0]:  # half of them or more on the first day: it gets a window of its own
        parts = [(window.first, _before(middle)), (middle, middle), (_after(middle), window.last)]
    else:
        parts = [(window.first, _before(middle)), (middle, window.last)]
    return [Window(first, last) for first, last in parts if _is_any(first, last)]


def _split_day(window: Window, times: list[str]) -> list[Window]:
    begin, end = window.begin or _FIRST_TIME, window.end or _LAST_TIME
    if not times or begin == end:
        return []
    middle = times[len(times) // 2]
    if middle == times[0]:
        parts = [(begin, _second(middle, -1)), (middle, middle), (_second(middle, 1), end)]
    else:
        parts = [(begin, _second(middle, -1)), (middle, end)]
    return [Window(window.first, window.last, first, last) for first, last in parts if begin <= first <= last <= end]


def _before(day: date) -> date:
    return day - timedelta(1)


def _after(day: date) -> date:
    return min(day, date.max - timedelta(1)) + timedelta(1)


def _is_any(first: date | None, last: date | None) -> bool:
    return first is None or last is None or first <= last


def _second(time: str, step: int) -> str:
    """The second before or after; beyond the day, a time that sorts outside it."""
    seconds = int(time[:2]) * 3600 + int(time[2:4]) * 60 + min(int(time[4:6]), 59) + step
    if seconds < 0:
        return ""
    return f"{seconds // 3600:02}{seconds // 60 % 60:02}{seconds % 60:02}"
