"""`palmares explain CODE`: one place that knows every number a person may meet."""

import tomllib

from fhir_adapters.errors import PalmaresError
from fhir_adapters.knowledge import mappings_folder, table


def explanations() -> dict[str, dict[str, str]]:
    """Every error number, outcome reason, check and eligibility reason, with what it means and what to do."""
    known: dict[str, dict[str, str]] = {}
    for row in table("explanations", "errors.csv"):
        known[row["code"]] = {"what": row["rule"], "meaning": row["explanation"], "next": row["next"]}
    for row in table("explanations", "reasons.csv"):
        known[row["code"]] = {"what": row["outcome"], "meaning": row["explanation"], "next": row["remedy"]}
    for study in sorted(mappings_folder().glob("studies/*/reasons.csv")):
        for row in table("studies", study.parent.name, "reasons.csv"):
            meaning = {"what": row["answer"], "meaning": row["explanation"], "next": row["remedy"]}
            known.setdefault(row["code"], meaning)
    checks = mappings_folder() / "quality" / "checks.toml"
    for check in tomllib.loads(checks.read_text(encoding="utf-8")).get("check", []):
        known[check["code"]] = {"what": check["title"], "meaning": check["explanation"], "next": check["remedy"]}
    return known


def explanation(code: str, language: str = "en") -> dict[str, str]:
    """What this number means and what to do about it; in another language as far as there are words in it. Raises E-EXPLAIN-01 when
    there is none."""
    known = explanations()
    if code.startswith(("G-", "C-")):
        from omop_etl.gates import explain

        found, asked = explain(code, language), code
        while (
            found is None and asked.count("-") > 2
        ):  # drift is made once for each variable, whose name may hold a dash
            asked = asked.rpartition("-")[0]
            found = explain(asked, language)
        if found:
            words = {"title": "what", "explanation": "meaning", "remedy": "next"}
            return {words.get(name, name): said for name, said in found.items()}
    if code not in known:
        raise PalmaresError("E-EXPLAIN-01", code)
    meanings = (
        {}
        if language == "en"
        else {row["code"]: row["explanation"] for row in table("explanations", f"reasons.{language}.csv")}
    )
    return {"code": code} | known[code] | ({"meaning": meanings[code]} if code in meanings else {})
