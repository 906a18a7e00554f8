"""The words of the quality pages, and what a page of one site holds of a document of all."""

import re
from pathlib import Path

import pytest

from omop_etl.reports.quality import pages
from tests.quality_documents import SITES, document


def test_every_word_stands_in_both_languages_and_is_used() -> None:
    english, italian = (pages.words(language) for language in pages.LANGUAGES)
    assert set(english) == set(italian)
    assert [key for key in english if not italian[key]] == []
    assert [key for key in english if not english[key]] == ["english_checks"]  # only who reads Italian is told
    sources = "".join(
        path.read_text() for path in Path(pages.__file__).parent.iterdir() if path.suffix in (".py", ".html")
    )
    unused = {key for key in english if not re.search(rf"\bw\.{key}\b|[\"']{key}[\"']", sources)}
    assert unused - {"previous", "others"} == set()  # named by the data


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
