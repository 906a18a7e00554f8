"""The columns of our SELECTs as they are written: expression, name, and the comment that stands beside it.

clauses(sql) -> (title, [Clause])           of the outermost SELECT, in order
choices(sql, name) -> [comment]             the comments that led to a column, also those in the SELECTs within
"""

import re
from dataclasses import dataclass, replace

# a comment, a text, a quoted name, a bracket, a comma, a word, anything else
_PIECE = re.compile(r"--[^\n]*|'(?:[^']|'')*'|\"[^\"]*\"|[()\[\]{},]|\w+|\s+|.", re.DOTALL)
_END = frozenset(["FROM", "WHERE", "GROUP", "HAVING", "QUALIFY", "ORDER", "LIMIT", "UNION"])
_ALIAS = re.compile(r"\sAS\s+\"?(\w+)\"?$", re.IGNORECASE)
_WORD = re.compile(r"\b(?:[a-z]+\.)?[a-z_]+\b")
_LAST = re.compile(r"\"?(\w+)\"?$")


@dataclass(frozen=True)
class Clause:
    """One column of a SELECT. `comment` is what stands above or behind it."""

    name: str
    expression: str
    comment: str


def clauses(sql: str) -> tuple[str, list[Clause]]:
    """The comment above a SELECT, and its columns in order."""
    title: list[str] = []
    found: list[Clause] = []
    here: list[str] = []
    depth, inside = 0, False
    for piece in _PIECE.findall(sql):
        comment = piece.startswith("--")
        if not inside:
            title += [_text(piece)] if comment else []
            inside = piece.upper() == "SELECT"
            continue
        if comment and found and not "".join(here).strip() and "\n" not in "".join(here):
            # behind the comma, on the line of the column before
            found[-1] = replace(found[-1], comment=f"{found[-1].comment} {_text(piece)}".strip())
            continue
        depth += (piece in "([{") - (piece in ")]}")
        if depth < 0 or (depth == 0 and piece.upper() in _END):
            break
        if depth == 0 and piece == ",":
            found.append(_clause(here))
            here = []
        else:
            here.append(piece)
    return " ".join(title), [*found, _clause(_without_tail(here))] if "".join(here).strip() else found


def _text(comment: str) -> str:
    return comment.removeprefix("--").strip()


def _without_tail(pieces: list[str]) -> list[str]:
    """The last column without the comments on lines below it: they speak of what follows."""
    last = max((n for n, piece in enumerate(pieces) if piece.strip() and not piece.startswith("--")), default=-1)
    end = next((n for n, piece in enumerate(pieces) if n > last and "\n" in piece), len(pieces))
    return pieces[:end]


def _clause(pieces: list[str]) -> Clause:
    whole = " ".join("".join(piece for piece in pieces if not piece.startswith("--")).split())
    comment = " ".join(_text(piece) for piece in pieces if piece.startswith("--"))
    alias = _ALIAS.search(whole)
    if alias:
        return Clause(alias.group(1), whole[: alias.start()].strip(), comment)
    last = _LAST.search(whole)
    return Clause(last.group(1) if last else "", whole, comment)


def every_clause(sql: str) -> dict[str, list[Clause]]:
    """Name → the columns of that name, of every SELECT in the text."""
    found: dict[str, list[Clause]] = {}
    at = 0
    for piece in _PIECE.findall(sql):
        if piece.upper() == "SELECT":
            for one in clauses(sql[at:])[1]:
                found.setdefault(one.name, []).append(one)
        at += len(piece)
    return found


def choices(sql: str, name: str, beneath: str = "") -> list[str]:
    """The comments beside a column and beside the columns, within the same text, that it is computed from.

    `beneath` is the text of the rows that the SELECT reads: a column with a table's name before it (`r.start_datetime`) stands there.
    """
    said: list[str] = []
    every, seen, waiting = every_clause(sql), set[str](), [name]
    while waiting:
        here = waiting.pop(0)
        # that a date was imputed is another matter than the date
        if here in seen or (here.endswith("_imputed") and here != name):
            continue
        seen.add(here)
        for one in every.get(here, ()):
            said.append(one.comment)
            for word in _WORD.findall(one.expression):
                table, _, column = word.rpartition(".")
                if table:
                    said += choices(beneath, column) if beneath and not column.endswith("_imputed") else []
                elif column in every:
                    waiting.append(column)
        if here == name and here not in every:
            said += choices(beneath, name) if beneath else []
    return [one for one in dict.fromkeys(said) if one]
