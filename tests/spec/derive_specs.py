"""How the tables of tests/spec/lines and tests/spec/endpoints are read: what happened, and after `->` what follows from it.

    -> line 1 2021-02-01..2021-12-25 letrozole+palbociclib progression [flag, flag]; line 2 2022-01-10.. capecitabine
    -> no line;  disagreement start-differs
    -> RWPFS progression 2021-07-10;  RWPFS censored 2021-04-20 last-assessment;  RWPFS none;  … entry 100 [flag]
    -> state endocrine-resistance sensitive

A row of `*` is everyone in the table; `at DATE:` gives another cut-off. Of a patient whose lines are named all are named.
"""

import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from tests.warehouses import Event, event, read_table

LINE = re.compile(
    r"line (?P<number>\d+) (?P<start>[\d-]+)\.\.(?P<end>[\d-]*) (?P<regimen>[a-z0-9+ ]*?)"
    r"(?: (?P<reason>progression|toxicity|other|death|patient-choice|next-line|not-recorded))?(?: \[(?P<flags>.*)\])?"
)
ENDPOINT = re.compile(
    r"(?P<paramcd>[A-Z0-9]+) (?:none|(?:censored (?P<censored>[\d-]+) (?P<why>[a-z-]+)|(?P<event>[a-z-]+) (?P<day>[\d-]+))"
    r"(?: from (?P<start>[\d-]+))?(?: entry (?P<entry>\w+))?(?: \[(?P<flags>.*)\])?)"
)


@dataclass(frozen=True)
class Answer:
    """What is said of one person: `words` as written, without what holds for the whole row."""

    person: int
    words: str


@dataclass(frozen=True)
class Spec:
    """One table: its heading, what happened, what is to follow at which cut-off."""

    file: str
    heading: str
    events: tuple[Event, ...]
    answers: tuple[tuple[date | None, Answer], ...]


def read(folder: Path) -> list[Spec]:
    """Every table of a folder's Markdown files."""
    found = []
    for path in sorted(folder.glob("*.md")):
        heading = ""
        for part in re.split(r"(^#+ .*\n|(?:^ {4}.*\n)+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
            if part.startswith("#"):
                heading = part.strip("# \n")
            elif part.startswith("    "):
                found.append(_spec(path.name, heading, part))
    return found


def _spec(file: str, heading: str, text: str) -> Spec:
    rows = read_table(text)
    persons = list(dict.fromkeys(row["person"] for row in rows if row["person"] != "*"))
    everyone = [row | {"person": person, "->": ""} for person in persons for row in rows if row["person"] == "*"]
    own = [row for row in rows if row["person"] != "*"]
    answers: list[tuple[date | None, Answer]] = []
    for row in own:
        words, cut_off = row["->"], None
        if words.startswith("at "):
            day, _, words = words[3:].partition(": ")
            cut_off = date.fromisoformat(day)
        answers += [(cut_off, Answer(int(row["person"]), one.strip())) for one in words.split(";") if one.strip()]
    return Spec(file, heading, tuple(event(row) for row in everyone + own), tuple(answers))
