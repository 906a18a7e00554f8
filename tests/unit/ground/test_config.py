"""A site's settings: what is read, and what is refused with a number."""

from pathlib import Path

import pytest

from fhir_adapters.errors import PalmaresError
from omop_etl.config import load_site, site_ids


def test_a_site_is_its_toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "h1.toml").write_text('name = "H1"\ncodes = "codes/h1"\n[[source]]\nkind = "fhir_files"\npath = "in"\n')
    site = load_site("h1", tmp_path)
    assert (site.name, site.time_zone, site.codes) == ("H1", "Europe/Rome", tmp_path / "codes" / "h1")
    assert site.sources == ({"kind": "fhir_files", "path": "in"},)
    monkeypatch.setenv("PALMARES_TIME_ZONE", "UTC")
    assert load_site("h1", tmp_path).time_zone == "UTC"
    assert site_ids(tmp_path) == ["h1"]


@pytest.mark.parametrize("name", ["nosuch", "../h1", "", "h1.toml", "a/b"])
def test_an_unknown_site_is_a_usage_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(PalmaresError, match="E-SITE-01") as caught:
        load_site(name, tmp_path)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("name = ", "no TOML"),
        ('nmae = "x"', "unknown setting nmae"),
        ("name = 1", "name has the wrong type"),
        ('time_zone = "Europe/Atlantis"', "no IANA zone"),
        ('time_zone = "../etc/passwd"', "no IANA zone"),
    ],
)
def test_settings_that_do_not_fit(tmp_path: Path, text: str, detail: str) -> None:
    (tmp_path / "h1.toml").write_text(text)
    with pytest.raises(PalmaresError, match="E-SITE-02") as caught:
        load_site("h1", tmp_path)
    assert detail in str(caught.value)


def test_the_sites_that_come_with_the_project_load() -> None:
    assert {"golden", "synthea", "mcode"} <= {load_site(one).id for one in site_ids()}
    assert load_site("golden").time_zone == "UTC"
