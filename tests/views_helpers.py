"""A plain-Python view runner: the specification's processing model over dotted paths, to compare the compiler with.

It knows paths of names, `$this`, `%rowIndex` and string literals, no operators or functions.
"""

from itertools import product
from typing import Any


def items(path: str, focus: Any) -> list[Any]:
    """The collection that a dotted path leads to from one node."""
    found = [] if focus is None else [focus]
    for name in [] if path == "$this" else path.split("."):
        onward = [node.get(name) for node in found if isinstance(node, dict)]
        found = [one for node in onward for one in (node if isinstance(node, list) else [node]) if one is not None]
    return found


def names(select: dict[str, Any]) -> list[str]:
    """The columns of a select, in order."""
    found = [column["name"] for column in select.get("column", [])]
    for inner in select.get("select", []):
        found += names(inner)
    return found + (names(select["unionAll"][0]) if select.get("unionAll") else [])


def _cell(column: dict[str, Any], focus: Any, index: int) -> Any:
    path = column["path"]
    if path == "%rowIndex":
        return str(index) if column.get("type") == "string" else index
    values = [path[1:-1]] if path.startswith("'") else items(path, focus)
    if column.get("collection"):
        return values
    assert len(values) < 2, "the generated view is wrong"
    return values[0] if values else None


def _walk(paths: list[str], focus: Any) -> list[Any]:
    found = []
    for path in paths:
        for one in items(path, focus):
            found += [one, *_walk(paths, one)]
    return found


def _blank_indexes(select: dict[str, Any]) -> dict[str, Any]:
    """The columns that are 0 in the row of an empty forEachOrNull: its `%rowIndex`, and those of its like inside."""
    found = {
        column["name"]: _cell(column, None, 0) for column in select.get("column", []) if column["path"] == "%rowIndex"
    }
    for inner in select.get("select", []):
        if "forEach" not in inner and "repeat" not in inner:
            found |= _blank_indexes(inner)
    return found


def rows(select: dict[str, Any], focus: Any, index: int = 0) -> list[dict[str, Any]]:
    """The rows of a select over one node."""
    foci, blank = [focus], False
    if "forEach" in select:
        foci = items(select["forEach"], focus)
    elif "forEachOrNull" in select:
        foci = items(select["forEachOrNull"], focus)
        blank = not foci
    elif "repeat" in select:
        foci = _walk(select["repeat"], focus)
    if blank:
        return [dict.fromkeys(names(select)) | _blank_indexes(select)]
    iterates = bool({"forEach", "forEachOrNull", "repeat"} & set(select))
    found = []
    for position, one in enumerate(foci):
        here = position if iterates else index
        parts = [[{column["name"]: _cell(column, one, here)}] for column in select.get("column", [])]
        parts += [rows(inner, one, here) for inner in select.get("select", [])]
        if select.get("unionAll"):
            parts.append([row for branch in select["unionAll"] for row in rows(branch, one, here)])
        for combination in product(*parts):
            found.append({key: value for part in combination for key, value in part.items()})
    return found
