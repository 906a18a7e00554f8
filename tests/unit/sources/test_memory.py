"""What a source remembers moves on only after landing; a full run in which a source fails loses nothing of it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import orjson
import pytest

from fhir_adapters import base
from fhir_adapters.base import ContractError, Extraction, Setting, adapter, extract_from, open_source
from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import whole_folder
from fhir_adapters.landing import read_manifest
from fhir_adapters.memory import Memory, Remembered, of_extraction
from omop_etl import stages
from omop_etl.config import Site

IDS = {"way": "first key"}
RECORDS: dict[str, list[tuple[int, str]]] = {}  # a source's (clock, id) pairs; the clock is the state


class Clocked:
    """A source with a clock: it gives the records after `state["after"]`."""

    kind: ClassVar[str] = "clocked"
    yields: ClassVar[frozenset[str]] = frozenset()
    needs_key: ClassVar[bool] = False
    settings: ClassVar[Mapping[str, Setting]] = {"name": Setting(str, "which", required=True)}

    def __init__(self, settings: Mapping[str, Any], *, folder: Path, key: object = None) -> None:
        self._name = settings["name"]

    def extract(self, out: Path, *, full: bool = False, state: Mapping[str, Any] | None = None) -> Extraction:
        if self._name not in RECORDS:
            raise PalmaresError("E-SRC-04", self.kind)
        after = 0 if full or state is None else state["after"]
        found = [(at, one) for at, one in RECORDS[self._name] if at > after]
        with whole_folder(out) as partial:
            (partial / "fhir").mkdir()
            if found:
                lines = [orjson.dumps({"resourceType": "Patient", "id": one}) for _, one in found]
                (partial / "fhir" / "Patient.ndjson").write_bytes(b"\n".join(lines) + b"\n")
            newest = max([at for at, _ in found], default=after)
            done = Extraction(self.kind, 1, 0, full=full or state is None, state={"after": newest, "ids": IDS["way"]})
            done.write(partial)
        return done


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> stages.SitePlace:
    monkeypatch.setattr(base, "ADAPTERS", {**base.ADAPTERS, "clocked": __name__})
    monkeypatch.setattr(base, "_registry", dict(base._registry))
    adapter(Clocked)
    RECORDS.clear()
    RECORDS.update(a=[(1, "a1"), (2, "a2")], b=[(1, "b1")])
    sources = ({"kind": "clocked", "name": "a"}, {"kind": "clocked", "name": "b"})
    return stages.SitePlace(tmp_path / "home", Site("prova", "Prova", "Europe/Rome", tmp_path, sources=sources))


def extract(place: stages.SitePlace, **options: bool) -> list[str]:
    """Every source that can be read, as the DAG's mapped tasks do it."""
    done = []
    for number in range(len(place.site.sources)):
        try:
            done.append(stages.extract(place, number, **options)["out"])
        except PalmaresError:
            continue
    return done


def landed(place: stages.SitePlace) -> list[str]:
    shards = read_manifest(place.landed).shards
    lines = [line for shard in shards for line in (place.landed / shard.path).read_bytes().splitlines()]
    return sorted(orjson.loads(line)["id"] for line in lines)


def test_increments_by_default(place: stages.SitePlace) -> None:
    stages.land(place, extract(place))
    RECORDS["a"].append((3, "a3"))
    out = extract(place)
    assert (Path(out[0]) / "fhir" / "Patient.ndjson").read_bytes().count(b"\n") == 1
    assert not list((Path(out[1]) / "fhir").iterdir())
    stages.land(place, out)
    assert landed(place) == ["a1", "a2", "a3", "b1"]
    assert [delivery.number for delivery in read_manifest(place.landed).deliveries] == [1, 2]


def test_nothing_new_leaves_what_had_landed(place: stages.SitePlace) -> None:
    stages.land(place, extract(place))
    before = (place.landed / "manifest.json").stat().st_ino
    counts = stages.land(place, extract(place))
    assert counts == {"added": False}
    assert (place.landed / "manifest.json").stat().st_ino == before


def test_the_memory_stays_when_landing_fails(place: stages.SitePlace) -> None:
    out = extract(place)
    (Path(out[0]) / "fhir" / "Patient.ndjson").write_bytes(b"no json\n")
    with pytest.raises(PalmaresError, match="E-LAND"):
        stages.land(place, out)
    assert not (place.folder / "sources").exists()
    stages.land(place, extract(place))
    assert landed(place) == ["a1", "a2", "b1"]
    assert json.loads((place.folder / "sources" / "1.json").read_text()) == {
        "kind": "clocked",
        "state": {"after": 2, "ids": "first key"},
    }


def test_a_source_that_fails_keeps_its_place_and_its_data(place: stages.SitePlace) -> None:
    stages.land(place, extract(place))
    gone = RECORDS.pop("b")
    RECORDS["a"].append((3, "a3"))
    stages.land(place, extract(place, full=True), full=True)
    assert set(landed(place)) == {"a1", "a2", "a3", "b1"}, "a full run without source b must not forget source b"
    RECORDS["b"] = [*gone, (2, "b2")]
    stages.land(place, extract(place))
    assert set(landed(place)) == {"a1", "a2", "a3", "b1", "b2"}


def test_full_lands_from_nothing_when_every_source_came_whole(place: stages.SitePlace) -> None:
    stages.land(place, extract(place))
    stages.land(place, extract(place, full=True), full=True)
    assert len(read_manifest(place.landed).deliveries) == 1
    stages.land(place, extract(place), full=True)  # increments only: nothing to land from nothing with
    assert landed(place) == ["a1", "a2", "b1"]


def test_ids_of_two_keys_are_not_mixed(place: stages.SitePlace, monkeypatch: pytest.MonkeyPatch) -> None:
    stages.land(place, extract(place))
    monkeypatch.setitem(IDS, "way", "second key")
    RECORDS["a"].append((3, "a3"))
    with pytest.raises(PalmaresError) as caught:
        stages.land(place, extract(place))
    assert (caught.value.code, caught.value.subject) == ("E-SOURCE-03", "1-clocked, 2-clocked")
    assert landed(place) == ["a1", "a2", "b1"]
    gone = RECORDS.pop("b")
    with pytest.raises(PalmaresError, match="E-SOURCE-03"):  # not on top of what the missing source gave before
        stages.land(place, extract(place, full=True), full=True)
    RECORDS["b"] = gone
    stages.land(place, extract(place, full=True), full=True)
    assert landed(place) == ["a1", "a2", "a3", "b1"]
    stages.land(place, extract(place))


def test_a_rearranged_toml_gives_no_source_the_memory_of_another_kind(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "sources", 1)
    out = tmp_path / "1-clocked"
    (out / "fhir").mkdir(parents=True)
    Extraction("clocked", 1, 1, state={"after": 9}).write(out)
    (out / "known.parquet").write_bytes(b"ids")
    memory.advance(out)
    recalled = memory.recall("clocked")
    assert recalled.state == {"after": 9}
    assert recalled.known is not None and recalled.known.read_bytes() == b"ids"
    assert memory.recall("fhir_server") == Remembered()
    assert of_extraction(out, "clocked") == Remembered({"after": 9}, out / "known.parquet")
    (tmp_path / "sources" / "1.json").write_text("{")
    assert memory.recall("clocked") == Remembered()


@pytest.mark.parametrize("text", [None, "{", "[]", '{"extraction": "other"}'])
def test_a_folder_that_is_no_extraction_of_that_kind(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(PalmaresError) as caught:
        of_extraction(tmp_path, "clocked")
    assert caught.value.code == "E-SRC-06"


def test_an_adapter_takes_what_it_needs(place: stages.SitePlace, tmp_path: Path) -> None:
    source = open_source({"kind": "clocked", "name": "a"}, folder=tmp_path)
    assert extract_from(source, tmp_path / "out", state={"after": 1}, progress=print).full is False
    with pytest.raises(ContractError, match="nobody gives"):
        adapter(type("Greedy", (Clocked,), {"extract": lambda self, out, *, wish: None}))
