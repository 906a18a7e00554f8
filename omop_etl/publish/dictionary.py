"""The dictionary of the datasets: one row per variable, its share of missing values; as JSON and as a page."""

import csv
import html
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fhir_adapters.errors import PalmaresError

if TYPE_CHECKING:
    from omop_etl.publish.datasets import Made

TYPES = ("id", "text", "category", "ordered", "integer", "number", "boolean")


@dataclass(frozen=True)
class Variable:
    """One variable. `values` are the categories in their order; `when` the window that it is taken from."""

    variable: str
    label: str
    type: str
    unit: str
    values: tuple[str, ...]
    when: str
    omop: str
    fhir: str


def read_dictionary(path: Path, parameters: Mapping[str, int | float | str]) -> tuple[Variable, ...]:
    """The variables of a dataset, in the order of its columns, with the study's windows filled in. Raises E-PUBLISH-03."""
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            rows = [{key: text.format(**parameters) for key, text in row.items()} for row in csv.DictReader(lines)]
        variables = tuple(
            Variable(**{key: text for key, text in row.items() if key != "values"}, values=_split(row["values"]))
            for row in rows
        )
    except (OSError, KeyError, TypeError, AttributeError, ValueError, IndexError):
        raise PalmaresError("E-PUBLISH-03", path.name, detail="the dictionary cannot be read") from None
    for one in variables:
        if one.type not in TYPES:
            raise PalmaresError("E-PUBLISH-03", f"{path.name}/{one.variable}", detail=f"unknown type {one.type}")
    return variables


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split("|")) if text else ()


def describe(
    made: "Made", *, threshold: int, patients: int, even: bool = True, hidden: Collection[str] = ()
) -> dict[str, Any]:
    """A dataset as plain values: its variables, each with the share of rows in which it is missing (0 to 1, three decimals).

    A share that stands for fewer rows than the threshold, missing or not, is hidden. Nothing is said of the rows
    of fewer patients than that. `even`: everyone has as many rows; else their number would tell of the few who have more
    or none, so it is not said, and shares have two decimals. `hidden` names variables whose share would give a number of
    another table away: it is hidden here too.
    """
    few = 0 < patients < threshold
    variables = []
    for one in made.dataset.variables:
        missing = made.missing[one.variable]
        small = few or 0 < missing < threshold or 0 < made.rows - missing < threshold
        entry = {key: value for key, value in vars(one).items() if key != "values"}
        entry["values"] = list(made.values.get(one.variable, one.values))
        kept = one.variable in hidden
        silent = small or kept or not made.rows
        entry["missing_share"] = None if silent else round(missing / made.rows, 3 if even else 2)
        # which of the hidden ones are small would give some of them away
        entry["missing"] = f"fewer than {threshold} patients" if few else "hidden" if silent and made.rows else ""
        variables.append(entry)
    about = made.dataset
    return {
        "dataset": about.name,
        "title": about.title,
        "row": about.rows,
        "key": list(about.key),
        "rows": made.rows if even and not few else None,
        "variables": variables,
    }


def write(study: str, title: str, described: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write `dictionary.json` and `dictionary.html` of the datasets that `describe` described."""
    table = {"study": study, "title": title, "datasets": list(described)}
    (folder / "dictionary.json").write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "dictionary.html").write_text(_page(title, described), encoding="utf-8")


HEAD = ("variable", "label", "type", "unit", "values", "when", "missing", "OMOP", "FHIR")
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; margin: 2rem auto; max-width: 90rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid #d9e2ec }
thead th { position: sticky; top: 0; background: #f5f7fa }
td:first-child { font-family: ui-monospace, monospace; white-space: nowrap }
nav a { margin-right: 1rem }
"""


def _page(title: str, described: Sequence[Mapping[str, Any]]) -> str:
    links = " ".join(f'<a href="#{one["dataset"]}">{html.escape(one["dataset"])}</a>' for one in described)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Data dictionary</title>
<style>{STYLE}</style></head><body>
<h1>Data dictionary</h1>
<p>{html.escape(title)}</p>
<p>Day 0 is the index; days count from it, negative before. A missing value is unknown. No date leaves.</p>
<nav aria-label="Datasets">{links}</nav>
{"".join(_section(one) for one in described)}
</body></html>
"""


def _section(one: Mapping[str, Any]) -> str:
    body = "\n".join(
        "<tr>"
        + "".join(
            f"<td>{html.escape(str(text))}</td>"
            for text in (
                row["variable"], row["label"], row["type"], row["unit"], ", ".join(row["values"]), row["when"],
                row["missing"] if row["missing_share"] is None else f"{row['missing_share']:.1%}", row["omop"], row["fhir"],
            )
        )
        + "</tr>"
        for row in one["variables"]
    )  # fmt: skip
    count = "" if one["rows"] is None else f"{one['rows']:,} rows, "
    name = html.escape(one["dataset"])
    return f"""<section id="{name}">
<h2>{name}</h2>
<p>{html.escape(one["title"])}</p>
<p>{count}{html.escape(one["row"])}; key: {html.escape(", ".join(one["key"]))}. <code>pandas.read_parquet("{name}.parquet")</code></p>
<table><thead><tr>{"".join(f'<th scope="col">{word}</th>' for word in HEAD)}</tr></thead><tbody>
{body}
</tbody></table></section>
"""
