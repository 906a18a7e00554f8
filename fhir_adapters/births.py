"""How a date of birth passes: cut to its month, and to its year for the very old; by the rule that all sources keep.

The rule stands in `fhir_elements.toml` under [birth]: the day goes for everybody, who turns 90 before the study's cut-off keeps
the year only, and years of birth before the oldest that a release tells apart become that one.
"""

from functools import cache

from fhir_adapters.fhir_elements import document


@cache
def _rule() -> tuple[str, str, str]:
    birth = document()["birth"]
    return birth["year_only_before"], birth["oldest"], birth["impossible_before"]


def birth_date(iso: str) -> str:
    """What passes of a FHIR date, partial or whole."""
    year_only, oldest, impossible = _rule()
    year = iso[:4]
    if year < year_only:
        return year if year < impossible else max(year, oldest)
    return iso[:7]
