"""The ways in which the hospitals write: one truth, no resource lost, maps that fit, defects that a form can hold."""

import csv
import json
from pathlib import Path

import pytest

from fhir_adapters.column_map import read_map
from fhir_adapters.errors import PalmaresError
from fhir_adapters.hl7v2.site_map import read_site_map
from fhir_adapters.table_rows import check_recipes
from omop_etl.synthetic import generate
from omop_etl.synthetic.defects import IN_FORMS
from tests.synthetic_helpers import Run

FORMS = [("tables", 9), ("hl7v2", 6)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    root = tmp_path_factory.mktemp("ways")
    for way in ("files", "tables", "hl7v2"):
        generate(root / way, sites=3, patients=30, seed=9, dirty=False, jobs=1, formats=way)
    return {way: Run(root / way) for way in ("files", "tables", "hl7v2")}


@pytest.mark.parametrize(("way", "count"), FORMS)
def test_one_truth_and_nothing_lost(runs: dict[str, Run], way: str, count: int) -> None:
    for path in (runs["files"].out / "truth").glob("*.parquet"):
        other = runs[way].out / "truth" / path.name
        assert other.read_bytes() == path.read_bytes(), path.name
    for site, whole in zip(runs[way].manifest["sites"], runs["files"].manifest["sites"], strict=True):
        assert site["left_out"] == {"Organization": 1}
        resources = dict(runs["files"].manifest["resources"][whole["site"]])
        del resources["Organization"]
        assert runs[way].manifest["resources"][site["site"]] == resources
        tables = runs[way].out / "hospitals" / site["site"] / "tables"
        assert len(list(tables.glob("*.csv"))) == count


@pytest.mark.parametrize(("way", "count"), FORMS)
def test_the_maps_fit_the_files(runs: dict[str, Run], way: str, count: int) -> None:
    for site in runs[way].sites():
        mapping = read_map(runs[way].out / "sites" / "maps" / f"{site}.toml")
        check_recipes(mapping)
        assert {table.file for table in mapping.tables} == {
            path.name for path in (runs[way].out / "hospitals" / site / "tables").glob("*.csv")
        }
        for table in mapping.tables:
            with (runs[way].out / "hospitals" / site / "tables" / table.file).open(
                encoding="cp1252", newline=""
            ) as lines:
                header = next(csv.reader(lines, delimiter=";"))
            assert set(header) >= table.columns
            assert set(header) <= table.columns | mapping.ignore
        if way == "hl7v2":
            read_site_map(runs[way].out / "sites" / "maps" / f"{site}-hl7v2.toml")


def test_mixed_ways_follow_the_profiles_and_plant_what_fits(tmp_path: Path) -> None:
    for name, jobs in (("one", 1), ("two", 2)):
        generate(tmp_path / name, sites=5, patients=110, seed=9, jobs=jobs, formats="mixed")
    run = Run(tmp_path / "one")
    ways = {site["site"]: site["way"] for site in run.manifest["sites"]}
    assert sorted(ways.values()) == ["files", "files", "hl7v2", "server", "tables"]
    for defect in run.truth("defects"):
        if ways[defect["site"]] in ("tables", "hl7v2") and defect["resource_type"] != "ImagingStudy":
            assert defect["kind"] in IN_FORMS
            assert defect["resource_id"] is None
    kinds = {site: {one["kind"] for one in run.truth("defects") if one["site"] == site} for site in ways}
    for site, way in ways.items():
        if way in ("tables", "hl7v2"):
            assert kinds[site] & {"er-out-of-range", "dose-not-made", "missing-ecog"}
    one = {
        path.relative_to(tmp_path / "one"): path.read_bytes()
        for path in (tmp_path / "one").rglob("*")
        if path.is_file()
    }
    two = {
        path.relative_to(tmp_path / "two"): path.read_bytes()
        for path in (tmp_path / "two").rglob("*")
        if path.is_file()
    }
    assert one == two


def test_only_a_way_that_exists(tmp_path: Path) -> None:
    with pytest.raises(PalmaresError, match="E-SYN-01"):
        generate(tmp_path / "out", sites=1, patients=2, formats="fax")


def test_the_messages_are_those_of_an_italian_hospital(runs: dict[str, Run]) -> None:
    site = runs["hl7v2"].sites()[0]
    folder = runs["hl7v2"].out / "hospitals" / site / "messages"
    batch = (folder / "adt.hl7").read_bytes()
    assert batch.startswith(b"FHS|")
    count = batch.count(b"\rMSH|")
    assert f"\rBTS|{count}\r".encode() in batch
    log = (folder / "results.hl7").read_bytes()
    assert log.count(b"\x0bMSH|") == log.count(b"\r\x1c\r") > 0
    truth = json.loads((runs["hl7v2"].out / "truth" / "manifest.json").read_text("utf-8"))
    assert truth["sites"][0]["way"] == "hl7v2"
