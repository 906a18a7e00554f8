"""The columns of a SELECT of `mappings/omop` as they are written: expression, name, and the comment that stands beside it."""

import re
from dataclasses import dataclass

# a comment, a text, a quoted name, a bracket, a comma, a word, anything else
_PIECE = re.compile(r"--[^\n]*|'(?:[^']|'')*'|\"[^\"]*\"|[()\[\]{},]|\w+|\s+|.", re.DOTALL)
_ALIAS = re.compile(r"\sAS\s+\"?(\w+)\"?$", re.IGNORECASE)
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
