"""The page for site managers: its examples open, and it names every setting."""

import re
import tomllib
from pathlib import Path

import pytest

from fhir_adapters.base import adapter_class, open_source
from fhir_adapters.deidentify import SETTINGS
from fhir_adapters.pseudonyms import SiteKey
from omop_etl.config import load_site

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "sources-fhir.md"
EXAMPLES = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
KEY = SiteKey(b"a key for tests, thirty-two bytes or more")


@pytest.mark.parametrize("text", EXAMPLES)
@pytest.mark.parametrize("commented", [False, True])
def test_the_examples_open(text: str, commented: bool, tmp_path: Path) -> None:
    if commented:
        text = re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE)
    for source in tomllib.loads(text)["source"]:
        assert open_source(source, folder=tmp_path, key=KEY, time_zone="Europe/Rome").kind == source["kind"]


SITES = GUIDE.parent / "examples" / "sites"


@pytest.mark.parametrize("name", sorted(path.stem for path in SITES.glob("*.toml")))
def test_the_example_sites_open(name: str) -> None:
    site = load_site(name, SITES)
    for source in site.sources:
        assert open_source(source, folder=SITES, key=KEY, time_zone=site.time_zone).kind == source["kind"]


@pytest.mark.parametrize("kind", ["fhir_server", "fhir_bulk", "fhir_files"])
def test_every_setting_is_told(kind: str) -> None:
    text = "\n".join(EXAMPLES)
    told = set(adapter_class(kind).settings) - set(SETTINGS)  # those of de-identification stand in privacy.md
    missing = [name for name in sorted(told) if not re.search(rf"^(# |\[source\.)?{name}\b", text, re.M)]
    assert not missing
