"""The page of the DICOM sources: its TOML is one that a site can copy, and names every setting."""

import re
import tomllib
from pathlib import Path

import pytest

from fhir_adapters.base import adapter_class, open_source
from fhir_adapters.pseudonyms import SiteKey

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "sources-dicom.md").read_text(encoding="utf-8")
BLOCKS = {
    tomllib.loads(block)["source"][0]["kind"]: block for block in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
}
OF_THE_WEB = {"token_url", "scope"}  # docs/sources-fhir.md says how to sign in


def test_every_kind_has_its_block() -> None:
    assert BLOCKS.keys() == {"dicom_folder", "dicomweb", "dicom_query"}


@pytest.mark.parametrize("kind", BLOCKS)
def test_the_block_opens_a_source(kind, monkeypatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_PACS", '{"login": "palmares", "password": "x"}')
    # with what is commented out, too
    whole = re.sub(r"^# (\w+ = )", r"\1", BLOCKS[kind], flags=re.MULTILINE).replace("ca_file = ", "# ca_file = ")
    for text in (BLOCKS[kind], whole):
        [settings] = tomllib.loads(text)["source"]
        settings = {name: value for name, value in settings.items() if name != "tls"}
        assert open_source(settings, folder=Path(), key=SiteKey(bytes(32))).kind == kind


@pytest.mark.parametrize("kind", BLOCKS)
def test_every_setting_is_named(kind) -> None:
    named = set(re.findall(r"\w+", BLOCKS[kind]))
    assert set(adapter_class(kind).settings) - OF_THE_WEB <= named
