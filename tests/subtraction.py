"""A reader who has every table of a release and a linear program: what can be told of the numbers that are hidden.

Knows nothing of how numbers are hidden: only what the tables say of each other (rows add up, a named analysis is a row of table
one, a share of missing values is a count) and that counts are not negative.
"""

import json
import random
from collections import defaultdict
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linprog

from tests.cohort_helpers import patient
from tests.warehouses import Event

ALL = "all"
# analysis: the variable of table one, and which of its values are members, others, or say nothing
SAME = {
    "lobular": ("histology", {"ILC": "persons", "NST": "others", "other": "others", "unspecified": "unknown", "missing": "unknown"}),
    "her2-low": ("her2_group", {"low": "persons", "zero": "others", "missing": "unknown"}),
    "her2-zero": ("her2_group", {"zero": "persons", "low": "others", "missing": "unknown"}),
    "endocrine-sensitive": ("endocrine_sensitivity", {"sensitive": "persons", "missing": "unknown"}),
    "endocrine-resistant": ("endocrine_sensitivity", {"sensitive": "others", "missing": "unknown"}),
    "bone-only": ("bone_only", {"yes": "persons", "no": "others", "missing": "unknown"}),
    "visceral": ("visceral", {"yes": "persons", "no": "others", "missing": "unknown"}),
    "premenopausal": ("menopausal_status", {"pre": "persons", "missing": "unknown"}),
}  # fmt: skip


class Reader:
    """Named quantities, what is shown of them, and what is known between them."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.shown: dict[str, float] = {}
        self.hidden: set[str] = set()
        self.equal: list[dict[str, float]] = []

    def see(self, name: str, value: Any) -> None:
        self.numbers.setdefault(name, len(self.numbers))
        if isinstance(value, int | float):
            self.shown[name] = value
        else:
            self.hidden.add(name)

    def know(self, total: str, parts: Iterable[str]) -> None:
        """`total` is the sum of `parts`."""
        row: dict[str, float] = defaultdict(float)
        row[total] += 1
        for part in parts:
            row[part] -= 1
        for name in row:
            self.numbers.setdefault(name, len(self.numbers))
        self.equal.append(row)

    def told(self, threshold: int) -> dict[str, float]:
        """The hidden numbers that are small and that can be told exactly."""
        rows = [*self.equal, *({name: 1.0} for name in self.shown)]
        values = [0.0] * len(self.equal) + list(self.shown.values())
        matrix = np.zeros((len(rows), len(self.numbers)))
        for place, row in enumerate(rows):
            for name, factor in row.items():
                matrix[place, self.numbers[name]] = factor
        found = {}
        for name in sorted(self.hidden - self.shown.keys()):
            goal = np.zeros(len(self.numbers))
            goal[self.numbers[name]] = 1
            ends = []
            for sign in (1, -1):
                answer = linprog(sign * goal, A_eq=matrix, b_eq=values, bounds=(0, None), method="highs")
                assert answer.status in (0, 3), "the tables contradict each other"
                ends.append(np.inf if answer.status == 3 else sign * answer.fun)
            if ends[1] - ends[0] < 0.5 and 0.5 < ends[0] < threshold - 0.5:
                found[name] = float(ends[0])
        return found


def recovered(folder: Path) -> dict[str, float]:
    """The small numbers that can be told from all tables of a release (or, inside, from those of a cohort folder)."""
    reader = Reader()
    attrition = json.loads((folder / "attrition.json").read_text())
    reader.see("N", attrition["eligible"])
    came = "persons"
    reader.see(came, attrition["persons"])
    for step in attrition["steps"]:
        name = f"step {step['criterion']}"
        reader.see(f"{name} came", step["came"])
        reader.know(f"{name} came", [came])
        reader.see(f"{name} excluded", step["excluded"])
        reader.see(f"{name} left", step["left"])
        reasons = [f"{name} {one['reason']}" for one in step["reasons"]]
        for one, reason in zip(step["reasons"], reasons, strict=True):
            reader.see(reason, one["persons"])
        reader.know(f"{name} excluded", reasons)
        reader.know(f"{name} came", [f"{name} excluded", f"{name} left"])
        came = f"{name} left"
    reader.know("N", [came])
    for one in attrition["analyses"]:
        parts = [f"{one['analysis']} {part}" for part in ("persons", "others", "unknown")]
        for part, word in zip(parts, ("persons", "others", "unknown"), strict=True):
            reader.see(part, one[word])
        reader.know("N", parts)
    reader.know("endocrine-sensitive unknown", ["endocrine-resistant unknown"])
    reader.know("endocrine-sensitive others", ["endocrine-resistant persons"])
    reader.know("her2-low persons", ["her2-zero others"])
    reader.know("her2-zero persons", ["her2-low others"])
    if (folder / "table_one.json").is_file():
        _table_one(reader, json.loads((folder / "table_one.json").read_text()))
        _dictionary(reader, json.loads((folder / "dictionary.json").read_text()))
        _at_risk(reader, json.loads((folder / "at_risk.json").read_text()))
    return reader.told(attrition["small_cells"])


def _table_one(reader: Reader, table: dict[str, Any]) -> None:
    groups = table["groups"]
    for name, size in table["patients"].items():
        reader.see("N" if name == ALL else f"size {name}", size)
    reader.know("N", [f"size {name}" for name in groups])
    for one in table["variables"]:
        values = []
        for row in one["rows"]:
            value = "known" if "median" in row["value"] else row["value"]
            values.append(value)
            for name in (*groups, ALL):
                cell = row.get(name)
                reader.see(f"{one['variable']} {value} {name}", cell["n"] if isinstance(cell, dict) else cell or "*")
            reader.know(f"{one['variable']} {value} {ALL}", [f"{one['variable']} {value} {name}" for name in groups])
        for name in groups:
            reader.know(f"size {name}", [f"{one['variable']} {value} {name}" for value in values])
    for analysis, (variable, values_) in SAME.items():
        for part in ("persons", "others", "unknown"):
            cells = [f"{variable} {value} {ALL}" for value, said in values_.items() if said == part]
            if cells and not (analysis in ("endocrine-sensitive", "premenopausal") and part == "others"):
                reader.know(f"{analysis} {part}", cells)


def _dictionary(reader: Reader, said: dict[str, Any]) -> None:
    baseline = next(one for one in said["datasets"] if one["dataset"] == "baseline")
    rows = baseline["rows"]
    if rows is None:
        return
    reader.see("N", rows)
    for one in baseline["variables"]:
        name = f"{one['variable']} missing {ALL}"
        if one["missing_share"] is not None and rows <= 500:
            reader.see(name, round(one["missing_share"] * rows))
    for one, other in (("days_primary_to_advanced", "de_novo"), ("her2_ihc", "her2_group")):
        if one == "days_primary_to_advanced":
            reader.know(f"{one} missing {ALL}", [f"{other} missing {ALL}"])
    times = next(one for one in said["datasets"] if one["dataset"] == "time_to_event")
    if times["rows"] is not None:  # eleven endpoints of everyone whose death is not in doubt, and one of some
        parts = ["beyond-progression persons"] + ["with endpoints"] * 11
        reader.see("rows of time_to_event", times["rows"])
        reader.know("rows of time_to_event", parts)
    reader.know("N", ["with endpoints", "beyond-progression unknown"])


def _at_risk(reader: Reader, table: dict[str, Any]) -> None:
    groups = sorted({row["group"] for row in table["rows"]} - {ALL})
    for row in table["rows"]:
        before = None
        for month, number in row["at_risk"].items():
            name = f"{row['PARAMCD']} {row['group']} {month}"
            reader.see(name, number)
            if before:  # it never rises
                reader.know(before, [name, f"left {name}"])
            before = name
    for code in {row["PARAMCD"] for row in table["rows"]}:
        months = next(row["at_risk"] for row in table["rows"] if row["PARAMCD"] == code)
        for month in months:
            reader.know(f"{code} {ALL} {month}", [f"{code} {group} {month}" for group in groups])
        everyone = "beyond-progression persons" if code == "RWPFSBP" else "with endpoints"
        reader.know(everyone, [f"{code} {ALL} 0"])


def registry(seed: int) -> list[Event]:
    """A registry in which many numbers are small: some values are rare, some unknown, and few are counted out."""
    rng = random.Random(seed)
    size = rng.choice([14, 30, 60, 90])
    rare = {
        name: rng.choice([0.03, 0.08, 0.2, 0.5])
        for name in ("ILC", "zero", "negative", "pre", "liver", "tamoxifen", "none")
    }
    found: list[Event] = []
    for person in range(1, size + 1):
        index = date(2021, 1, 1) + timedelta(days=rng.randrange(700))

        def on(days: int, index: date = index) -> str:
            return (index + timedelta(days=days)).isoformat()

        ihc = "0" if rng.random() < rare["zero"] else "negative" if rng.random() < rare["negative"] else "1+"
        drug = rng.choices(["palbociclib", "ribociclib", "abemaciclib"], [5, 4, rng.choice([0, 1, 3])])[0]
        events = [
            one
            for one in patient(person, f"s0{person % 3 + 1}", drug, index, ihc=ihc)
            if not (one.event.startswith("primary") or one.event in ("menopause", "bone metastasis", "weight", "ECOG"))
            or (one.event in ("weight", "ECOG") and rng.random() > rare["none"])
        ]
        if rng.random() > rare["none"]:
            events.append(Event(person, "primary ILC" if rng.random() < rare["ILC"] else "primary NST", on(-1800)))
        if rng.random() > rare["none"]:
            events.append(Event(person, "menopause", on(-20), value="pre" if rng.random() < rare["pre"] else "post"))
        site = "unspecified" if rng.random() < rare["none"] else "liver" if rng.random() < rare["liver"] else "bone"
        events.append(Event(person, f"{site} metastasis", on(-40)))
        if rng.random() < rare["tamoxifen"]:
            events.append(Event(person, "tamoxifen", on(-800), on(-60)))
        if rng.random() < 0.4:
            events.append(Event(person, "PD", on(rng.randrange(60, 300))))
        if rng.random() < 0.3:
            events.append(Event(person, "death", on(rng.choice([-3, 200, 420]) if rng.random() < 0.1 else 420)))
        found += [Event(one.person, one.event, one.on, one.until, one.value, f"s0{person % 3 + 1}") for one in events]
    for person in range(size + 1, size + 1 + rng.choice([0, 1, 3, 12])):
        found += patient(person, "s01", **rng.choice([{"ihc": "3+"}, {"partner": ""}, {"sample": ""}, {"ihc": "2+"}]))
    return found
