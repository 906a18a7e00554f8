"""The words of the quality pages, and what a page of one site holds of a document of all."""

import re
from pathlib import Path
from typing import Any, cast

import pytest

from fhir_adapters.knowledge import table
from omop_etl.gates.definitions import definitions
from omop_etl.gates.profile import settings
from omop_etl.reports.quality import pages
from omop_etl.reports.quality.collecting import conditions
from omop_etl.reports.quality.shape import QualityData
from tests.quality_documents import SITES, document


def test_every_word_stands_in_both_languages_and_is_used() -> None:
    english, italian = (pages.words(language) for language in pages.LANGUAGES)
    assert set(english) == set(italian)
    assert [key for key in english if not italian[key]] == []
    assert [key for key in english if not english[key]] == []
    sources = "".join(
        path.read_text() for path in Path(pages.__file__).parent.iterdir() if path.suffix in (".py", ".html")
    )
    unused = {key for key in english if not re.search(rf"\bw\.{key}\b|[\"']{key}[\"']", sources)}
    by_the_data = ("previous", "others", "unit_", "kahn_", "why_", "kind_", "figure_", "state_", "funnel_")
    assert [key for key in sorted(unused) if not key.startswith(by_the_data)] == []


def test_every_check_has_its_words_in_italian() -> None:
    checks = definitions().checks
    assert [check.code for check in checks if check.italian is None] == []
    same = {check.family for check in checks for name in ("title", "explanation", "remedy")
            if getattr(check.text("it"), name) == getattr(check, name)}  # fmt: skip
    assert same == set(), "a text that was only copied"
    holes = re.compile(r"\{\w+\}")
    assert [check.code for check in checks if holes.search("".join(vars(check.text("it")).values()))] == []
    words = pages.words("it")
    assert {check.unit for check in checks} <= {key.removeprefix("unit_") for key in words if key.startswith("unit_")}


def test_every_reason_of_a_loss_has_its_words_in_italian() -> None:
    told = {
        row["code"]
        for row in table("explanations", "reasons.csv")
        if row["outcome"] in ("excluded", "quarantined", "merged", "unmapped")
    }
    italian = {row["code"]: row["explanation"] for row in table("explanations", "reasons.it.csv")}
    assert told - set(italian) == set()
    assert set(italian) - told == set()
    assert all(italian.values())


def test_the_words_of_profile_and_readiness_are_there_in_italian() -> None:
    assert [one["code"] for one in settings()["variable"] if not one.get("name_it")] == []
    assert [one["code"] for one in conditions() if set(one.get("it", {})) != {"title", "text"}] == []


def real() -> QualityData:
    """The document with checks that exist, and what the centre says of them."""
    data = document()
    family = {
        **data["families"][0],
        "code": "G-DEATH-02",
        "title": "nothing happens after death",
        "remedy": "Mend the date of death.",
    }
    data["families"] = [cast(Any, family)]
    for one in [*data["results"], *data["mend"], *data["changes"], *data["comparison"]]:
        one["code"] = "G-DEATH-02"
        if "title" in one:
            one["title"] = family["title"]  # type: ignore[typeddict-item]
    for one in data["matrix"]:
        one["family"], one["worst"] = "G-DEATH-02", "G-DEATH-02"
    for one in data["results"]:
        one["family"] = "G-DEATH-02"
    data["mend"][0]["remedy"] = family["remedy"]
    moved = {
        **data["results"][2],
        "code": "C-DRIFT-01-index-drug",
        "family": "C-DRIFT-01",
        "title": "a variable looks as before: index-drug",
    }
    data["results"].append(cast(Any, moved))
    data["drift"][0]["variable"] = "index-drug"
    data["changes"][0]["text"] = "3 records before, 30 now"
    data["changes"].append({**data["changes"][0], "text": "WARN before; nothing to look at now", "kind": "gone"})
    data["changes"].append(
        {**data["changes"][0], "code": "persons", "title": "patients", "text": "20 before, 30 now", "kind": "count"}
    )
    data["readiness"]["conditions"][0] |= {"code": "R-CUTOFF", "title": "every site's data reach the cut-off"}
    data["losses"][0]["reason"] = "X-NO-DATE"
    return data


def test_the_italian_page_is_in_italian(tmp_path: Path) -> None:
    pages.write(real(), tmp_path)
    whole, site = (
        (tmp_path / name).read_text(encoding="utf-8").partition("<script>")[0]
        for name in ("index.it.html", "site-cervo.it.html")
    )
    for page in (whole, site):
        for english in ("nothing happens after death", "Mend the date", "looks as before", "every site", "The event has no date", "records",
                        "Plausibility", ">applied", "before", ">index-drug<"):  # fmt: skip
            assert english not in page, english
        assert "niente accade dopo il decesso" in page
        assert "Farmaco indice" in page
    assert "i dati di ogni centro arrivano al cut-off" in whole
    assert "Correggere nella fonte la data di decesso" in site
    assert "blocca l&#39;invio: 30 record con eventi dopo il decesso (15 % di 200)" in site
    assert "prima 3 record, ora 30" in site
    assert "prima WARN; ora non c&#39;è niente da controllare" in site
    assert "prima 20, ora 30" in site
    assert "applicata" in whole
    assert "L&#39;evento non ha data" in whole
    english = (tmp_path / "site-cervo.html").read_text(encoding="utf-8")
    assert "nothing happens after death" in english and "decesso" not in english


def test_a_check_of_another_release_keeps_its_own_words(tmp_path: Path) -> None:
    data = document()
    for one in (data["families"][0], data["results"][0], data["results"][1], data["results"][2], data["mend"][0]):
        one["code"] = "G-ELSEWHERE-09"
        one["title"] = "said elsewhere"
    pages.write(data, tmp_path)
    assert "said elsewhere" in (tmp_path / "site-cervo.it.html").read_text(encoding="utf-8")


def test_a_page_of_one_site_says_nothing_of_another(tmp_path: Path) -> None:
    whole = document()
    pages.write(whole, tmp_path)
    text = (tmp_path / "site-alba.html").read_text(encoding="utf-8")
    for part in ("brera", "cervo"):
        assert part not in text
    one = pages.of_site(whole, "cervo")
    assert one["verdicts"] == {"PASS": 0, "WARN": 0, "BLOCK": 1}
    assert {row["site"] for row in one["results"]} == {"cervo"}


def test_the_same_document_gives_the_same_pages(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        pages.write(document(), tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize(
    "part",
    ["trend", "recency", "completeness", "funnels", "unmapped_codes", "drift", "mend", "changes", "matrix", "results"],
)
def test_a_part_without_anything_is_said_to_be_empty(part: str, tmp_path: Path) -> None:
    data = document()
    data[part] = []  # type: ignore[literal-required]
    pages.write(data, tmp_path)
    assert len(list(tmp_path.glob("*.html"))) == 2 * (1 + len(SITES))
