"""Where `mappings/` stands and how its tables are read. Knowledge lives there; packages hold only mechanism."""

import csv
import json
import os
from functools import cache
from pathlib import Path


def mappings_folder() -> Path:
    """The folder of knowledge: `PALMARES_MAPPINGS`, else the one beside the packages."""
    return Path(os.environ.get("PALMARES_MAPPINGS") or Path(__file__).resolve().parents[1] / "mappings")


@cache
def _rows(path: Path) -> tuple[dict[str, str], ...]:
    with path.open(encoding="utf-8", newline="") as lines:
        return tuple(csv.DictReader(lines))


def table(*parts: str) -> tuple[dict[str, str], ...]:
    """The rows of a CSV file below `mappings/`, e.g. `table("explanations", "errors.csv")`."""
    return _rows(mappings_folder().joinpath(*parts))


@cache
def _viewed(folder: Path) -> frozenset[str]:
    return frozenset(json.loads(path.read_text(encoding="utf-8"))["resource"] for path in folder.glob("*.json"))


def viewed_types() -> frozenset[str]:
    """The resource types that have a view: of another nothing is read but that it is there."""
    return _viewed(mappings_folder() / "views")
