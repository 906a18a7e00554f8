"""Errors carry number, object, rule, count and the next command, and never a value."""

import errno
import pickle
import re

import pytest

from fhir_adapters.errors import Exit, PalmaresError, catalogue, machine_errors


def test_the_message_says_number_object_rule_count_and_next_command() -> None:
    error = PalmaresError("E-LAND-02", "Observation.ndjson", count=3)
    assert str(error).startswith("E-LAND-02 Observation.ndjson: the file is no JSON (3). Fetch the file again")
    assert error.exit_code == Exit.INPUT


@pytest.mark.parametrize("code", sorted(catalogue()))
def test_every_number_is_complete(code: str) -> None:
    entry = catalogue()[code]
    assert re.fullmatch(r"E-[A-Z]+(-[A-Z]+)*-\d\d", code)
    assert entry["exit"] in Exit.__members__
    assert all(entry[part] for part in ("rule", "explanation", "next"))
    assert not entry["rule"].endswith("."), "the message adds the full stop"


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "E-DISK-01"),
        (PermissionError(errno.EACCES, "Permission denied"), "E-DISK-02"),
        (IsADirectoryError(errno.EISDIR, "Is a directory"), "E-DISK-02"),
        (RuntimeError("IO Error: Could not write file: No space left on device"), "E-DISK-01"),
    ],
)
def test_the_machines_troubles_have_numbers(raised: Exception, code: str) -> None:
    with pytest.raises(PalmaresError) as caught, machine_errors("slice"):
        raise raised
    assert caught.value.code == code
    assert caught.value.exit_code == Exit.MACHINE


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(ValueError, match="mine"), machine_errors("slice"):
        raise ValueError("mine")


def test_it_passes_between_processes_whole() -> None:
    error = PalmaresError("E-BALANCE-01", "measurement", count=3, detail="rows less rows in the ledger")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(again), again.code, again.subject, again.count, again.exit_code) == (
        str(error),
        "E-BALANCE-01",
        "measurement",
        3,
        error.exit_code,
    )
