"""From the warehouse to the derived folder."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Derived:
    """What a run derived: patients with a day 0, rows per table, lines where the site and the rule disagree."""

    indexed: int
    rows: dict[str, int]
    disagreements: int
    out: str


def derive(
    warehouse: Path,
    out: Path,
    *,
    study: str = "palmares2",
    cut_off: date | None = None,
    progress: Progress | None = None,
) -> Derived:
    """Derive everything that the study's rules say, write the folder `out`, and put the CDM tables into the warehouse.

    `cut_off` is the study's own unless given; nothing dated later enters. Raises E-STUDY-01 and -03, E-WAREHOUSE-01,
    E-DISK-01 and -02.
    """
    raise NotImplementedError
