"""A small registry for tests of cohorts and releases: patients who pass, patients who do not, patients of two sites."""

from datetime import date, timedelta
from pathlib import Path

from tests.warehouses import Event, write

INDEX = date(2021, 6, 1)


def patient(
    person: int, site: str = "s01", drug: str = "palbociclib", index: date = INDEX, **changes: str
) -> list[Event]:
    """An eligible patient; `changes` replace values (er, ihc) or leave something out (""): sample, partner, drug."""
    said = {"er": "90", "pgr": "40", "ihc": "1+", "partner": "letrozole", "sample": "yes"} | changes

    def on(days: int) -> str:
        return (index + timedelta(days=days)).isoformat()

    found = [
        Event(person, "born", f"{1930 + person % 50}-{person % 12 + 1:02}", site=site),
        Event(person, "sex", value="F", site=site),
        Event(person, "primary ILC" if person % 5 == 0 else "primary NST", on(-1800), site=site),
        Event(person, "bone metastasis", on(-40), site=site),
        Event(person, drug, on(0), site=site),
        Event(person, "visit", on(400 + person), site=site),
        Event(person, "menopause", on(-20), value="post", site=site),
        Event(person, "ECOG", on(-3), value="1", site=site),
        Event(person, "weight", on(-3), value="65.5", site=site),
        Event(person, "height", on(-3), value="160", site=site),
    ]
    if said["sample"]:
        found += [
            Event(person, "ER of primary", on(-30), value=said["er"], site=site),
            Event(person, "PgR of primary", on(-30), value=said["pgr"], site=site),
            Event(person, "HER2 IHC of primary", on(-30), value=said["ihc"], site=site),
            Event(person, "grade", on(-30), value="2", site=site),
        ]
    if said["partner"]:
        found.append(Event(person, said["partner"], on(0), site=site))
    return found


def registry() -> list[Event]:
    """60 persons at three sites: 40 ordinary patients, 12 HER2 3+, 3 without partner, 2 to be asked about, a pair, a stranger."""
    found: list[Event] = []
    for person in range(1, 41):
        found += patient(person, f"s0{person % 3 + 1}", ("palbociclib", "ribociclib", "abemaciclib")[person % 3])
    found += [Event(7, "death", "2023-05-06", site="s02"), Event(9, "death", "2025-05-06", site="s01")]
    for person in range(41, 53):
        found += patient(person, "s02", ihc="3+")
    for person in range(53, 56):
        found += patient(person, "s01", partner="")
    found += patient(56, "s01", ihc="2+") + patient(57, "s03", er="5", pgr="")
    found += patient(58, "s01", index=date(2022, 1, 1)) + patient(59, "s02", index=date(2022, 3, 1))
    found += [Event(58, "linkage token", value="t", site="s01"), Event(59, "linkage token", value="t", site="s02")]
    found += [Event(59, "death", "2024-02-03", site="s02"), Event(60, "known", site="s03")]
    return found


def registry_file(folder: Path) -> Path:
    """The registry as a warehouse file."""
    return write(registry(), folder / "warehouse.duckdb")
