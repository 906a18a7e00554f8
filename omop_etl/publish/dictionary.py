"""The dictionary of a dataset: one row per variable, its type enforced, its missing share counted; as JSON and as a page."""

import csv
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fhir_adapters.errors import PalmaresError

if TYPE_CHECKING:
    import pandas

TYPES = ("id", "category", "ordered", "integer", "number", "boolean")


@dataclass(frozen=True)
class Variable:
    """One variable. `values` are the categories in their order; `when` the window around the index that it is taken from."""

    variable: str
    label: str
    type: str
    unit: str
    values: tuple[str, ...]
    when: str
    omop: str
    fhir: str


def read_dictionary(path: Path, parameters: Mapping[str, int | str]) -> tuple[Variable, ...]:
    """The variables of a dataset, in the order of its columns, with the study's windows filled in. Raises E-PUBLISH-03."""
    with path.open(encoding="utf-8", newline="") as lines:
        rows = [{key: text.format(**parameters) for key, text in row.items()} for row in csv.DictReader(lines)]
    variables = tuple(
        Variable(**{key: text for key, text in row.items() if key != "values"}, values=_split(row["values"]))
        for row in rows
    )
    for one in variables:
        if one.type not in TYPES:
            raise PalmaresError("E-PUBLISH-03", f"{path.name}/{one.variable}", detail=f"unknown type {one.type}")
    return variables


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split("|")) if text else ()


def typed(frame: "pandas.DataFrame", variables: Sequence[Variable]) -> "pandas.DataFrame":
    """The same rows with the dictionary's types: categories with all their values in order, integers and booleans that may
    be missing (Int64, boolean), or plain int64 where nothing is.

    Raises E-PUBLISH-03 when columns and dictionary differ, or a value is not among a variable's.
    """
    import pandas as pd

    names = [one.variable for one in variables]
    if list(frame.columns) != names:
        odd = sorted(set(frame.columns) ^ set(names)) or ["their order"]
        raise PalmaresError("E-PUBLISH-03", "columns", detail=", ".join(odd))
    columns: dict[str, Any] = {}
    for one in variables:
        column = frame[one.variable]
        if one.type in ("category", "ordered"):
            values = one.values or tuple(sorted(column.dropna().unique()))
            strange = int((~column.dropna().isin(values)).sum())
            if strange:
                raise PalmaresError("E-PUBLISH-03", one.variable, count=strange, detail="values that it does not list")
            columns[one.variable] = column.astype(pd.CategoricalDtype(list(values), ordered=one.type == "ordered"))
        elif one.type == "integer":
            columns[one.variable] = column.astype("Int64" if column.isna().any() else "int64")
        elif one.type == "boolean":
            columns[one.variable] = column.astype("boolean" if column.isna().any() else "bool")
        elif one.type == "number":
            columns[one.variable] = column.astype("float64")
        else:
            columns[one.variable] = column.astype("str")
    return pd.DataFrame(columns, columns=names)


def describe(frame: "pandas.DataFrame", variables: Sequence[Variable]) -> list[dict[str, Any]]:
    """Each variable as plain values, with the share of rows in which it is missing (0 to 1, three decimals)."""
    rows = []
    for one in variables:
        missing = round(float(frame[one.variable].isna().mean()), 3) if len(frame) else None
        entry = {key: value for key, value in vars(one).items() if key != "values"} | {"values": list(one.values)}
        rows.append(entry | {"missing_share": missing, "pandas": str(frame[one.variable].dtype)})
    return rows


def write(name: str, title: str, rows: int | None, described: Sequence[dict[str, Any]], folder: Path) -> None:
    """Write `dictionary.json` and `dictionary.html`; `rows` is None where their number may not be shown."""
    table = {"dataset": name, "study": title, "rows": rows, "variables": list(described)}
    (folder / "dictionary.json").write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "dictionary.html").write_text(_page(name, title, rows, described), encoding="utf-8")


def _page(name: str, title: str, rows: int | None, described: Sequence[dict[str, Any]]) -> str:
    head = ("variable", "label", "type", "unit", "values", "when", "missing", "OMOP", "FHIR")
    body = "\n".join(
        "<tr>"
        + "".join(
            f"<td>{html.escape(str(text))}</td>"
            for text in (
                one["variable"], one["label"], one["type"], one["unit"], ", ".join(one["values"]), one["when"],
                "" if one["missing_share"] is None else f"{one['missing_share']:.1%}", one["omop"], one["fhir"],
            )
        )
        + "</tr>"
        for one in described
    )  # fmt: skip
    count = "" if rows is None else f"{rows:,} rows, "
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(name)}: data dictionary</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1f2933; margin: 2rem auto; max-width: 90rem; padding: 0 1rem }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid #d9e2ec }}
th {{ position: sticky; top: 0; background: #f5f7fa }}
td:first-child {{ font-family: ui-monospace, monospace; white-space: nowrap }}
</style></head><body>
<h1>{html.escape(name)}</h1>
<p>{html.escape(title)}</p>
<p>{count}one per patient. Day 0 is the index; days count from it; a missing value is unknown.
<code>pandas.read_parquet("{html.escape(name)}.parquet")</code></p>
<table><thead><tr>{"".join(f"<th>{word}</th>" for word in head)}</tr></thead><tbody>
{body}
</tbody></table></body></html>
"""
