"""The columns of our SELECTs as they are written: expression, name, and the comment that stands beside it.

clauses(sql) -> (title, [Clause])           of the outermost SELECT, in order
choices(sql, name) -> [comment]             the comments that led to a column, also those in the SELECTs within
"""

import re
from dataclasses import dataclass

# a comment, a text, a quoted name, a bracket, a comma, a word, anything else
_PIECE = re.compile(r"--[^\n]*|'(?:[^']|'')*'|\"[^\"]*\"|[()\[\]{},]|\w+|\s+|.", re.DOTALL)
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
    title, found = [], list[Clause]()
    words: list[str] = []
    comments: list[str] = []
    depth, inside = 0, False
    for piece in _PIECE.findall(sql):
        if piece.startswith("--"):
            note = piece.removeprefix("--").strip()
            if not inside:
                title.append(note)
            elif found and not "".join(words).strip() and not _new_line(words):
                found[-1] = Clause(found[-1].name, found[-1].expression, f"{found[-1].comment} {note}".strip())
            else:
                comments.append(note)
            continue
        if not inside:
            inside = piece.upper() == "SELECT"
            continue
        depth += (piece in "([{") - (piece in ")]}")
        if depth < 0:
            break
        if depth == 0 and (piece == "," or piece.upper() == "FROM"):
            found.append(_clause(words, comments))
            words, comments = [], []
            if piece != ",":
                return " ".join(title), found
            continue
        words.append(piece)
    if "".join(words).strip():
        found.append(_clause(words, comments))
    return " ".join(title), found


def _new_line(words: list[str]) -> bool:
    return any("\n" in word for word in words)


def _clause(words: list[str], comments: list[str]) -> Clause:
    whole = " ".join("".join(words).split())
    alias = _ALIAS.search(whole)
    if alias:
        return Clause(alias.group(1), whole[: alias.start()].strip(), " ".join(comments))
    last = _LAST.search(whole)
    return Clause(last.group(1) if last else "", whole, " ".join(comments))


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
