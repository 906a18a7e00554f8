"""The adapters' contract is checked at import, a site's settings before anything runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fhir_adapters import base
from fhir_adapters.base import ContractError, Extraction, Setting, Source, adapter, open_source
from fhir_adapters.errors import PalmaresError
from fhir_adapters.landing.rules import resource_types


class Sound:
    kind: ClassVar[str] = "test_source"
    yields: ClassVar[frozenset[str]] = frozenset({"Patient"})
    needs_key: ClassVar[bool] = False
    settings: ClassVar[Mapping[str, Setting]] = {
        "path": Setting(Path, "where", required=True),
        "many": Setting(int, "how many", 7),
    }

    def __init__(self, settings: Mapping[str, Any], *, folder: Path, key: object = None) -> None:
        self.given, self.key = settings, key

    def extract(self, out: Path, *, progress: object = None) -> Extraction:
        return Extraction(self.kind, 0, 0)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "ADAPTERS", {**base.ADAPTERS, "test_source": __name__})
    for kind in base.ADAPTERS:
        if kind != "test_source":
            base.adapter_class(kind)
    monkeypatch.setattr(base, "_registry", dict(base._registry))
    adapter(Sound)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"kind": "nowhere"}, "kind"),
        ({"kind": None}, "kind"),
        ({"yields": {"Patient"}}, "yields"),
        ({"settings": {"path": str}}, "settings"),
        ({"needs_key": None}, "needs_key"),
        ({"extract": None}, "extract"),
    ],
)
def test_a_class_that_does_not_keep_the_contract_fails_at_import(change: dict, word: str) -> None:
    with pytest.raises(ContractError, match=word):
        adapter(type("Broken", (Sound,), change))


@pytest.mark.parametrize("kind", sorted(base.ADAPTERS))
def test_each_adapter_keeps_it(kind: str) -> None:
    cls = base.adapter_class(kind)
    assert cls.kind == kind
    assert cls.yields <= resource_types()
    assert all(setting.meaning for setting in cls.settings.values())


def test_settings_are_checked_and_paths_are_beside_the_toml(tmp_path: Path) -> None:
    source = open_source({"kind": "test_source", "path": "export"}, folder=tmp_path)
    assert isinstance(source, Source)
    assert source.given == {"path": tmp_path / "export", "many": 7}  # type: ignore[attr-defined]
    absolute = open_source({"kind": "test_source", "path": "/export", "many": 3}, folder=tmp_path)
    assert absolute.given == {"path": Path("/export"), "many": 3}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"kind": "nowhere"}, "E-SRC-01"),
        ({}, "E-SRC-02"),
        ({"kind": 5}, "E-SRC-02"),
        ({"kind": "test_source"}, "E-SRC-02"),
        ({"kind": "test_source", "path": 5}, "E-SRC-02"),
        ({"kind": "test_source", "path": "x", "SECRET": 1}, "E-SRC-02"),
        ({"kind": "test_source", "path": "x", "many": "SECRET"}, "E-SRC-02"),
        ({"kind": "test_source", "path": "x", "many": True}, "E-SRC-02"),
    ],
)
def test_settings_that_do_not_fit(settings: dict, code: str, tmp_path: Path) -> None:
    with pytest.raises(PalmaresError) as caught:
        open_source(settings, folder=tmp_path)
    assert caught.value.code == code
    assert "SECRET" not in str(caught.value)


def test_a_source_that_meets_identifiers_needs_the_key(tmp_path: Path) -> None:
    adapter(type("Keyed", (Sound,), {"needs_key": True}))
    with pytest.raises(PalmaresError) as caught:
        open_source({"kind": "test_source", "path": "x"}, folder=tmp_path)
    assert caught.value.code == "E-SRC-03"
    key: Any = object()
    assert open_source({"kind": "test_source", "path": "x"}, folder=tmp_path, key=key).key is key  # type: ignore[attr-defined]
