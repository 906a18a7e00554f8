"""A quality document in the words of another language.

What a check is called and what is to be done stands in `mappings/quality/` in both languages; a document (`data.json`) is in English and
is translated by the numbers of its checks. What was written by a person (who lets a check through, and why) stays as it is, and so does
a check of another release that is not known here.
"""

import copy
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

from fhir_adapters.knowledge import table
from omop_etl.config import LANGUAGES
from omop_etl.gates.definitions import Check, Text, covers, definitions, family_title
from omop_etl.gates.overrides import APPLIED, EXPIRED
from omop_etl.gates.profile import settings
from omop_etl.reports.quality.collecting import conditions
from omop_etl.reports.quality.shape import QualityData

_SUFFIXES = (" è noto", " è nota", " sono noti", " sono note", " ci sono")


@cache
def _checks() -> dict[str, Check]:
    return {check.code: check for check in definitions().checks}


@cache
def _first_of_family() -> dict[str, Check]:
    found: dict[str, Check] = {}
    for check in definitions().checks:
        found.setdefault(check.family, check)
    return found


def text_of(code: str, language: str) -> Text | None:
    """The words of a check; those of a family for its number; of drift, which is made once for each variable, those of its rule."""
    while code and code not in _checks() and code not in _first_of_family():
        code = code.rpartition("-")[0]
    check = _checks().get(code) or _first_of_family().get(code)
    return check.text(language) if check else None


def variable_name(code: str, language: str) -> str:
    """What a variable of the profile is called."""
    for one in settings()["variable"]:
        if one["code"] == code:
            return str(one.get(f"name_{language}", one["name"]))
    return code


def reasons(language: str) -> dict[str, str]:
    """Why a resource is not in the CDM, by code."""
    found = {row["code"]: row["explanation"] for row in table("explanations", "reasons.csv")}
    if language != LANGUAGES[0]:
        found |= {row["code"]: row["explanation"] for row in table("explanations", f"reasons.{language}.csv")}
    return found


def translated(data: QualityData, language: str, words: Mapping[str, str]) -> QualityData:
    """The document with its words in a language; itself in English. `words` are those of the pages."""
    made = cast(dict[str, Any], copy.deepcopy(data))
    for one in made["changes"]:
        one["is_count"] = one["kind"] == "count"
    for one in made["drift"]:
        one["variable"] = variable_name(one["variable"], language)
    if language == LANGUAGES[0]:
        return cast(QualityData, made)
    categories = settings().get(f"categories_{language}", {})
    for one in made["families"]:
        one["title"] = _family(one["code"], language) or one["title"]
        one["category"] = words.get(f"kahn_{one['category']}", one["category"])
    numbers = {(one["site"], one["code"]): one for one in made["results"]}
    for one in made["results"]:
        _result(one, language, words)
    for one in made["mend"]:
        found = text_of(one["code"], language)
        result = numbers.get((one["site"], one["code"]))
        one["title"] = _title(one["code"], one["title"], language)
        one["remedy"] = found.remedy if found else one["remedy"]
        if result:
            one["why"] = f"{words['why_' + one['verdict']]}: {_counted(result, words, found.finding if found else '')}"
    for one in made["changes"]:
        known = words.get(f"figure_{one['code']}")
        one["title"] = known or _title(one["code"], one["title"], language)
        one["text"] = _change(one, words)
        one["kind"] = words[f"kind_{one['kind']}"]
    for one in made["variables"]:
        found = text_of(one["code"], language)
        one["name"] = _known(found.title) if found else one["name"]
    for one in made["funnels"]:
        one["title"] = _title(one["code"], one["title"], language)
    for one in made["drift"]:
        for side in ("here", "there"):
            one[side] = {categories.get(name, name): share for name, share in one[side].items()}
    said = {one["code"]: one.get(language, one) for one in conditions()}
    for one in made["readiness"]["conditions"]:
        if one["code"] in said:
            one["title"], one["text"] = said[one["code"]]["title"], said[one["code"]]["text"]
    for one in [*made["overrides"], *(result["override"] for result in made["results"] if result["override"])]:
        one["note"] = _note(one, words)
        one["state"] = words[f"state_{one['state'].replace(' ', '_')}"]
    for one in made["losses"]:
        one["outcome"] = words.get(one["outcome"], one["outcome"]).lower()
    return cast(QualityData, made)


def _family(code: str, language: str) -> str:
    first = _first_of_family().get(code)
    if first is None:
        return ""
    return first.text(language).title if first.code == code else family_title(code, language)


def _title(code: str, otherwise: str, language: str) -> str:
    found = text_of(code, language)
    if found is None:
        return otherwise
    _, _, variable = code.partition("C-DRIFT-")
    named = f": {variable_name(variable.partition('-')[2], language)}" if variable.partition("-")[2] else ""
    return found.title + named


def _result(one: dict[str, Any], language: str, words: Mapping[str, str]) -> None:
    found = text_of(one["code"], language)
    if found is None:
        return
    one["title"] = _title(one["code"], one["title"], language)
    one["message"] = f"{one['code']}: {_counted(one, words, found.finding)}. {found.remedy}"


def _counted(result: Mapping[str, Any], words: Mapping[str, str], finding: str) -> str:
    """`5 persone con eventi dopo il decesso (100 % di 5)`."""
    unit = _unit(result["unit"], result["numerator"], words)
    share = result["share"]
    of = (
        f" ({100 * share:.3g} {words['of_all']} {result['denominator']})".replace(".", ",") if share is not None else ""
    )
    return " ".join(filter(None, (str(result["numerator"]), unit, finding))) + of


def _unit(unit: str, number: float | str, words: Mapping[str, str]) -> str:
    """`persona` or `persone`: the word for one and that for many stand side by side."""
    one, _, many = words.get(f"unit_{unit}", f"{unit}/{unit}").partition("/")
    return one if str(number) == "1" else many


def _known(title: str) -> str:
    """The variable's name out of the title of its check of completeness."""
    for suffix in _SUFFIXES:
        title = title.removesuffix(suffix)
    for article in ("lo ", "la ", "le ", "il ", "gli ", "l'"):
        if title.startswith(article):
            title = title.removeprefix(article)
            break
    return title


def _change(one: Mapping[str, Any], words: Mapping[str, str]) -> str:
    """`PASS before, BLOCK now`: what stands around the comma is a verdict or a number with its unit."""
    before, _, now = one["text"].partition(" before, ")
    if not now:
        verdict = before.partition(" before;")[0]
        return f"{words['was']} {verdict}; {words['nothing_now']}"
    number, _, unit = before.partition(" ")
    return (
        f"{words['was']} {number} {_unit(unit, number, words)}".rstrip()
        + f", {words['is_now']} {now.removesuffix(' now')}"
    )


def _note(one: Mapping[str, Any], words: Mapping[str, str]) -> str:
    if one["state"] == APPLIED:
        return words["note_applied"] if one["note"] else ""
    if one["state"] == EXPIRED:
        return words["note_expired"]
    if not one["note"]:
        return ""
    never = any(covers(code, one["check"]) or covers(one["check"], code) for code in definitions().never_overridden)
    return words["note_never"] if never else words["note_long"]
