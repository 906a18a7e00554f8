"""The quality pages in a real Chromium: from disk, without a request, sorted, filtered, printed, narrow, dark, accessible."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omop_etl.reports.quality.pages import write
from tests.quality_documents import SITES, document, document_with_one_more

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (.ci/run installs it)")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
PAGES = ("index.html", "index.it.html", "site-cervo.html", "site-cervo.it.html")
BLOCKED = ("blocked/index.html", "blocked/site-duomo.it.html")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quality")
    (folder / "blocked").mkdir()
    write(document_with_one_more(), folder / "blocked")
    assert set(PAGES) <= set(write(document(), folder))
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Any, pages: Path) -> Iterator[Any]:
    """Opens a page; at the end nothing was said in the console and nothing but pages of the folder was asked for."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    said: list[str] = []
    asked: list[str] = []

    def page(name: str) -> Any:
        one = context.new_page()
        one.on("console", lambda message: said.append(message.text))
        one.on("pageerror", lambda error: said.append(str(error)))
        one.on("request", lambda request: asked.append(request.url))
        one.goto((pages / name).as_uri())
        return one

    yield page
    context.close()
    assert said == []
    assert [url for url in asked if not url.startswith((pages.as_uri(), "data:"))] == []


def column(page: Any, table: str, place: int) -> list[str]:
    return page.eval_on_selector_all(
        f"#{table} tbody tr:not([hidden])", f"rows => rows.map(row => row.cells[{place}].textContent.trim())"
    )


def test_it_sorts_by_number_and_says_so(opened: Any) -> None:
    page = opened("index.html")
    head = page.locator("#t-sites thead th", has_text="Persons")
    head.get_by_role("button").click()
    assert column(page, "t-sites", 3) == ["80", "140", "200"]
    assert head.get_attribute("aria-sort") == "ascending"
    head.get_by_role("button").press("Enter")
    assert column(page, "t-sites", 3) == ["200", "140", "80"]
    assert page.locator("#t-sites [aria-sort]").count() == 1


def test_it_filters_by_words_and_verdict(opened: Any) -> None:
    page = opened("index.html")
    form = page.locator("form[data-for=t-sites]")
    form.get_by_role("searchbox").fill("hospital bre")
    assert len(column(page, "t-sites", 0)) == 1
    assert form.locator("output").text_content() == "1 / 3 rows shown"
    form.get_by_role("searchbox").fill("")
    form.get_by_role("combobox").select_option("BLOCK")
    assert [text.split()[0] for text in column(page, "t-sites", 0)] == ["cervo"]
    page.locator("form[data-for=t-matrix]").get_by_role("combobox").select_option("WARN")
    assert len(column(page, "t-matrix", 0)) == 1


def test_from_all_sites_to_one_and_back_in_both_languages(opened: Any) -> None:
    page = opened("index.html")
    page.locator("#t-sites").get_by_role("link", name="cervo").click()
    assert page.locator("h1").text_content() == "Data quality of site cervo"
    assert "Look at the report of pathology." in page.locator("#mend").text_content()
    assert set(column(page, "t-findings", 0)) == {"cervo"}
    page.get_by_role("link", name="Italiano").click()
    assert page.locator("html").get_attribute("lang") == "it"
    assert page.locator("h1").text_content() == "Qualità dei dati del centro cervo"
    page.get_by_role("link", name="Tutti i centri").click()
    assert page.locator("h1").text_content() == "Qualità dei dati di tutti i centri"


def test_what_sites_say_is_text_never_markup(opened: Any) -> None:
    page = opened("index.html")
    assert "<between>" in page.locator("#t-findings").text_content()


def test_the_funnel_names_the_site_outside_and_stands_as_a_table(opened: Any) -> None:
    page = opened("index.html")
    assert page.locator("#funnel svg text", has_text="cervo").count() == 1
    page.locator("#funnel summary").click()
    assert [text.split()[0] for text in column(page, "t-C-FUNNEL-01", 0)] == list(SITES)


@pytest.mark.parametrize("name", PAGES + BLOCKED)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(name: str, scheme: str, opened: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = opened(name)
    page.emulate_media(color_scheme=scheme)
    found = Axe().run(page).response["violations"]
    assert [
        (one["id"], one["nodes"][0]["html"][:120]) for one in found if one["impact"] in ("serious", "critical")
    ] == []


def test_the_colours_change_and_stay(opened: Any) -> None:
    page = opened("index.html")
    page.locator("#theme").click()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(16, 23, 30)"


@pytest.mark.parametrize("name", PAGES + BLOCKED)
def test_a_narrow_screen_scrolls_one_way(name: str, opened: Any) -> None:
    page = opened(name)
    page.set_viewport_size({"width": 380, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 380


def test_print_leaves_out_what_is_to_be_clicked(opened: Any) -> None:
    page = opened("index.html")
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert not page.locator("form.filters").first.is_visible()
    assert page.locator("#t-sites").is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflow") == "visible"


def test_without_script_everything_is_there(browser: Any, pages: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((pages / "index.html").as_uri())
    assert page.locator("#t-sites tbody tr").count() == 3
    context.close()


def test_a_blocked_site_is_shown_and_what_is_not_known_of_it_is_no_number(opened: Any) -> None:
    page = opened("blocked/index.html")
    rows = {
        name: page.locator("#t-sites tbody tr").filter(has=page.get_by_role("link", name=name))
        for name in ("cervo", "duomo")
    }
    for name, words in (
        ("cervo", "Blocked since 2025-01-16. Its older submission stands in the warehouse (received 2025-01-15"),
        ("duomo", "Blocked since 2025-01-16. Nothing of it is in the warehouse"),
    ):
        text = rows[name].inner_text()
        assert "BLOCK" in text and "Blocked since 2025-01-16" in text
        assert words in page.locator(".blocked li", has_text=name).inner_text()
    assert page.locator(".blocked li").count() == 2
    cells = rows["duomo"].locator("td").all_inner_texts()
    assert cells.count("no data") == 5, "persons, on a CDK4/6 inhibitor, rows, unmapped, quarantined"
    assert "0" not in cells[2:5]
    form = page.locator('form[data-for="t-sites"]')
    form.get_by_role("combobox").select_option("BLOCK")
    assert [one.split()[0] for one in column(page, "t-sites", 0)] == ["cervo", "duomo"]
    page.locator("#t-sites thead th").nth(3).get_by_role("button").click()
    form.get_by_role("combobox").select_option("")
    assert column(page, "t-sites", 0)[-1].startswith("duomo"), "what is not known is sorted last"
    heads = page.locator("#t-matrix thead th").all_inner_texts()
    place = next(at for at, head in enumerate(heads) if "duomo" in head)
    assert "✕" in page.locator("#t-matrix tbody tr").first.locator("th, td").nth(place).inner_text()
    heat = page.locator("#completeness tbody tr", has_text="duomo").locator("td").all_inner_texts()
    assert heat == ["no data"] * 2
    for part in ("recency", "funnel", "unmapped", "balance"):
        assert "No data of: duomo." in page.locator(f"#{part}").inner_text(), part
    rows["duomo"].get_by_role("link", name="duomo").click()
    assert "Nothing of it is in the warehouse: no submission has come yet." in page.locator("#overview").inner_text()
    assert "BLOCK" in page.locator("#mend li").first.inner_text()
    for part in ("recency", "completeness", "unmapped", "balance", "queries"):
        assert "no data" in page.locator(f"#{part}").inner_text().lower(), part


def test_a_blocked_site_in_italian(opened: Any) -> None:
    page = opened("blocked/index.it.html")
    text = page.locator("#overview").inner_text()
    assert "Bloccato dal 2025-01-16. Nel warehouse resta il suo invio precedente" in text
    assert "Nel warehouse non c'è nulla di questo centro" in text
    assert text.count("nessun dato") == 5
