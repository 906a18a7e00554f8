"""A new site's settings: for every kind of source, commented, without a secret, and read back as they were meant."""

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fhir_adapters.base import ADAPTERS, adapter_class
from fhir_adapters.errors import PalmaresError
from omop_etl.cli import app
from omop_etl.config import load_site
from omop_etl.onboarding.new_site import NewSite, NewSource, ask, kinds, parse_source, write_site


@pytest.mark.parametrize("kind", sorted(ADAPTERS))
def test_every_kind_of_source_is_described(tmp_path: Path, kind: str) -> None:
    site = write_site(NewSite("prova", "Ospedale di Prova", sources=[NewSource(kind)]), tmp_path)
    assert site.name == "Ospedale di Prova" and site.sources[0]["kind"] == kind
    text = (tmp_path / "prova.toml").read_text()
    declared: Any = adapter_class(kind)
    for name, setting in declared.settings.items():
        assert f"{name} = " in text and setting.meaning in text
    assert set(site.sources[0]) == {"kind", *(name for name, one in declared.settings.items() if one.required)}
    # a comment can be taken off: what stands behind it is TOML
    tomllib.loads("\n".join(line.removeprefix("# ") if " = " in line else line for line in text.splitlines()))
    assert kinds()[kind]


def test_the_key_is_made_once_and_is_its_owners(tmp_path: Path) -> None:
    site = write_site(NewSite("prova", "x"), tmp_path)
    assert site.key_file is not None and site.key_file.stat().st_mode & 0o777 == 0o600
    before = site.key_file.read_text()
    (tmp_path / "prova.toml").unlink()
    write_site(NewSite("prova", "x"), tmp_path)
    assert site.key_file.read_text() == before
    assert before.strip() not in (tmp_path / "prova.toml").read_text()
    assert not (tmp_path / "other" / "keys").exists()
    write_site(NewSite("prova", "x"), tmp_path / "other", key=False)
    assert not (tmp_path / "other" / "keys").exists()


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (lambda at: write_site(NewSite("../x", "x"), at), "E-SITE-02"),
        (lambda at: write_site(NewSite("x", "x", "Europe/Roma"), at), "E-SITE-02"),
        (lambda at: (write_site(NewSite("x", "x"), at), write_site(NewSite("x", "x"), at)), "E-SITE-03"),
        (lambda at: parse_source("nothing"), "E-SRC-01"),
        (lambda at: parse_source("fhir_files:file=x"), "E-SRC-02"),
        (lambda at: parse_source("fhir_files:path"), "E-SRC-02"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, act: Callable[[Path], object], code: str) -> None:
    with pytest.raises(PalmaresError) as caught:
        act(tmp_path)
    assert caught.value.code == code


def test_a_name_with_quotes_and_accents(tmp_path: Path) -> None:
    name = 'Ospedale "Niguarda" \\ Città'
    assert write_site(NewSite("prova", name), tmp_path).name == name


def test_by_flags(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app,
        ["site", "init", "prova", "--name", "Prova", "--folder", str(tmp_path), "--source", "fhir_files:path=/data/export,code_systems=urn:a+urn:b",
         "--source", "dicom_folder:path=/data/dicom,instances=yes"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    site = load_site("prova", tmp_path)
    assert [dict(one) for one in site.sources] == [
        {"kind": "fhir_files", "path": "/data/export", "code_systems": ["urn:a", "urn:b"]},
        {"kind": "dicom_folder", "path": "/data/dicom", "instances": True},
    ]


def test_by_answers() -> None:
    answers = {"Name of the hospital": "Prova", "Time zone of its clocks": "Europe/Rome"}
    new = ask(
        "prova",
        lambda text, **_: answers.get(text, "/data"),
        lambda text: text.startswith(("fhir_files", "dicom_folder")),
    )
    assert [(one.kind, dict(one.settings)) for one in new.sources] == [
        ("fhir_files", {"path": "/data"}),
        ("dicom_folder", {"path": "/data"}),
    ]
    assert new.name == "Prova"


def test_no_secret_is_taken_from_the_command_line() -> None:
    for kind in ADAPTERS:
        declared: Any = adapter_class(kind)
        for name in declared.settings:
            assert "password" not in name
    assert "PALMARES_SITE_KEY" not in os.environ
