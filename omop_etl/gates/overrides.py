"""Overrides: a check that someone lets through, by name, with a reason and an end. They stand in the site's TOML:

    [[override]]
    check = "G-DEATH-02"                # a check, or a family of them
    by = "M. Rossi, data manager"
    reason = "Letters are dated by their dispatch; the ward corrects it with release 4.2"
    until = 2026-03-31                  # the last day on which it holds; at most [overrides] most_days ahead

An override turns that check's BLOCK into a WARN: the finding stays in view. It never makes a PASS, it never reaches a check that says
that the files themselves are wrong, and when its day has passed it is ignored and the verdict says so.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from fhir_adapters.errors import PalmaresError
from omop_etl.gates.definitions import Definitions, covers

_TEXTS = ("check", "by", "reason")
APPLIED, NOT_NEEDED, EXPIRED, REFUSED = "applied", "not needed", "expired", "refused"


@dataclass(frozen=True)
class Override:
    """One entry, held against the day and the rules. `state` is applied, not needed, expired or refused; `note` says why."""

    check: str
    by: str
    reason: str
    until: str
    state: str = NOT_NEEDED
    note: str = ""


def read(entries: Iterable[dict[str, Any]], defined: Definitions, site: str, today: date) -> list[Override]:
    """The site's overrides on this day. Raises E-GATE-04 for an entry that lacks its name, reason or end, or names no check."""
    found = []
    for entry in entries:
        override = _whole(entry, site)
        if not any(covers(override.check, check.code) for check in defined.checks):
            raise PalmaresError("E-GATE-04", site, detail="an override names a check that does not exist")
        found.append(_held(override, defined, today))
    return found


def _whole(entry: dict[str, Any], site: str) -> Override:
    texts = [entry.get(key) for key in _TEXTS]
    until = entry.get("until")
    if set(entry) - {*_TEXTS, "until"}:
        raise PalmaresError("E-GATE-04", site, detail="an override holds an entry that is not known")
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise PalmaresError("E-GATE-04", site, detail="an override lacks check, by or reason")
    if type(until) is not date:
        raise PalmaresError("E-GATE-04", site, detail="an override has no date in until")
    check, by, reason = (str(text).strip() for text in texts)
    return Override(check, by, reason, until.isoformat())


def _held(override: Override, defined: Definitions, today: date) -> Override:
    def become(state: str, note: str) -> Override:
        return Override(override.check, override.by, override.reason, override.until, state, note)

    until = date.fromisoformat(override.until)
    if any(covers(never, override.check) or covers(override.check, never) for never in defined.never_overridden):
        return become(REFUSED, f"{override.check} is about the files themselves and cannot be let through")
    if until < today:
        return become(
            EXPIRED, f"it ended on {override.until} and is ignored; renew it or mend what {override.check} finds"
        )
    if until > today + timedelta(days=defined.override_days):
        return become(REFUSED, f"it would last longer than {defined.override_days} days; give an earlier until")
    return override


def applied(overrides: Sequence[Override], code: str) -> Override | None:
    """The override that lets this check through, the most exact one; None when there is none that holds."""
    fitting = [one for one in overrides if one.state in (APPLIED, NOT_NEEDED) and covers(one.check, code)]
    return max(fitting, key=lambda one: len(one.check), default=None)


def messages(overrides: Iterable[Override]) -> list[str]:
    """What a person has to know of overrides that were not taken."""
    return [
        f"override of {one.check} by {one.by}: {one.state}, {one.note}"
        for one in overrides
        if one.state in (EXPIRED, REFUSED)
    ]
