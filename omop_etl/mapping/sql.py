"""The SQL files beside this module."""

import re
from pathlib import Path

_COMMENT = re.compile(r"--[^\n]*")


def text(name: str) -> str:
    """A file as it stands."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def statements(name: str, **values: str) -> list[str]:
    """The statements of a file, in order, with `{name}` replaced by the values. No literal of ours holds a semicolon."""
    body = text(name)
    for key, value in values.items():
        body = body.replace("{" + key + "}", value)
    return [one for one in body.split(";\n") if _COMMENT.sub("", one).strip()]
