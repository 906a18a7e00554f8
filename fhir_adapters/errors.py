"""Errors that say object, rule, count and the next command; each has a stable number.

The rule, the explanation and the next command of each number stand in `mappings/explanations/errors.csv`, so that
`palmares explain NUMBER` and the message cannot disagree. A message names files, tables, columns and counts; never a patient's
value or id.
"""

import errno
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Any

from fhir_adapters.knowledge import table


class Exit(IntEnum):
    """What a command's exit code tells without the logs."""

    UNEXPECTED = 1
    USAGE = 2  # an argument, a site, a vocabulary or a setting is wrong
    INPUT = 3  # the input cannot be read as a whole
    MACHINE = 4  # disk, permission, memory, a server that does not answer
    BLOCKED = 5  # a gate said BLOCK
    BALANCE = 6  # rows do not balance: a defect of ours


def catalogue() -> dict[str, dict[str, str]]:
    """Every error number with `exit`, `rule`, `explanation` and `next`."""
    return {row["code"]: row for row in table("explanations", "errors.csv")}


class PalmaresError(Exception):
    """A numbered error.

    Parameters: `code` from the catalogue; `subject`, the object (a file, table, site or setting; never a value);
    `count`, how many records it concerns; `detail`, a few words more; the other keywords fill the placeholders of the
    catalogue's next command.
    """

    def __init__(
        self, code: str, subject: str, *, count: int | None = None, detail: str = "", **placeholders: object
    ) -> None:
        entry = catalogue()[code]
        self._said = (code, subject), {"count": count, "detail": detail, **placeholders}
        self.code = code
        self.subject = subject
        self.count = count
        self.exit_code = int(Exit[entry["exit"]])
        self.rule = entry["rule"]
        self.next_command = entry["next"].format(code=code, subject=subject, **placeholders)
        many = f" ({count})" if count is not None else ""
        more = f": {detail}" if detail else ""
        super().__init__(f"{code} {subject}: {self.rule}{many}{more}. {self.next_command}")

    def __reduce__(self) -> tuple[Any, ...]:
        """It passes between processes as what it was made of."""
        return _made, (type(self), *self._said)


def _made(kind: type[PalmaresError], words: tuple[str, str], more: dict[str, Any]) -> PalmaresError:
    return kind(*words, **more)


_MACHINE_ERRORS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "E-DISK-01"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR), "E-DISK-02"),
}


def unexpected(error: BaseException, subject: str) -> PalmaresError:
    """An error of a library as one that shows no value: its kind, and the last place of ours that it came through."""
    ours = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if {"fhir_adapters", "omop_etl"} & set(Path(frame.filename).parts)
    ]
    where = f" in {Path(ours[-1].filename).name}, line {ours[-1].lineno}" if ours else ""
    return PalmaresError("E-UNEXPECTED-01", subject, detail=f"{type(error).__name__}{where}")


@contextmanager
def machine_errors(subject: str) -> Iterator[None]:
    """Turn a full disk or a refused write, as Python or DuckDB report it, into a numbered error about `subject`."""
    try:
        yield
    except OSError as error:
        if error.errno in _MACHINE_ERRORS:
            raise PalmaresError(_MACHINE_ERRORS[error.errno], subject) from None
        raise
    except Exception as error:
        # DuckDB and Arrow report these as text only
        text = str(error)
        if "No space left on device" in text or "not enough disk space" in text.lower():
            raise PalmaresError("E-DISK-01", subject) from None
        if "Permission denied" in text or "Read-only file system" in text:
            raise PalmaresError("E-DISK-02", subject) from None
        raise
