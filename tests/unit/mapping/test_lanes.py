"""How shards are read: bad lines cost only themselves, foreign lines find their type, memory and words stay within bounds."""

import json
from pathlib import Path

import pytest

from fhir_adapters.errors import PalmaresError
from fhir_adapters.landing import land
from omop_etl.mapping import map_folder, map_site
from tests.mapping_helpers import LOINC, Slice, concept, mapped, patient, resource, site, write_fhir

GOOD = [resource("Observation", f"o{n}") for n in range(50)]
KIND = resource("Observation", "kind", code="718-7")
BAD = [
    json.dumps(KIND),
    '{"resourceType": "Observation", "id": "cut", "status": "fin',
    '{"resourceType": "Observation", "status": "final"}',
    "[]",
    json.dumps(resource("Observation", "two words")),
    '{"resourceType": "Observation", "id": "t", "id": "t"}',
]


def clinical(slice_: Slice) -> list[tuple]:
    return sorted(tuple(row.values()) for row in slice_.rows("measurement"))


@pytest.mark.requirement("f2o-012", "f2o-014")
def test_bad_lines_cost_only_themselves(tmp_path: Path) -> None:
    alone = mapped(tmp_path / "alone", [patient(), *GOOD])
    fhir = write_fhir(tmp_path / "fhir", [patient(), *GOOD])
    lines = (fhir / "Observation.ndjson").read_text().splitlines()
    (fhir / "Observation.ndjson").write_text("\n".join([*lines[:20], *BAD, *lines[20:]]) + "\n")
    land([fhir], tmp_path / "landed", by_reference=True)
    map_site(site(), tmp_path / "landed", tmp_path / "slice", jobs=2)
    found = Slice(tmp_path / "slice", None)  # type: ignore[arg-type]
    assert clinical(found) == clinical(alone)
    assert found.why("Observation", "kind") == ("quarantined", "Q-KIND")
    quarantined = [line for line in found.rows("ledger") if line["outcome"] == "quarantined"]
    assert len(quarantined) == len(BAD)


def test_the_fate_of_a_resource_does_not_depend_on_its_shard(tmp_path: Path) -> None:
    wild = [json.dumps(one) for one in GOOD[:10]] + BAD
    one, each = tmp_path / "one", tmp_path / "each"
    for folder in (one, each):
        write_fhir(folder, [patient()])
    (one / "all.ndjson").write_text("\n".join(wild) + "\n")
    for number, line in enumerate(wild):
        (each / f"file{number}.ndjson").write_text(line + "\n")
    ledgers = []
    for folder in (one, each):
        map_folder(site(), folder, tmp_path / f"{folder.name}-slice", jobs=1, skip_unreadable=True)
        found = Slice(tmp_path / f"{folder.name}-slice", None)  # type: ignore[arg-type]
        ledgers.append(
            sorted(
                (r["resource_type"], r["resource_id"] or "", r["outcome"], r["cdm_table"] or "")
                for r in found.rows("ledger")
                if r["resource_type"] != "?"
            )
        )
    assert ledgers[0] == ledgers[1]


def test_lines_of_another_type_in_a_large_file_find_their_own(tmp_path: Path) -> None:
    # landing by reference looks at samples of a file only: one line among thousands escapes it
    lines = [json.dumps(resource("Observation", f"o{n}")) for n in range(3000)]
    lines[1500] = json.dumps(resource("Condition", "c"))
    fhir = write_fhir(tmp_path / "fhir", [patient()])
    (fhir / "Observation.ndjson").write_text("\n".join(lines) + "\n")
    map_folder(site(), fhir, tmp_path / "slice")
    found = Slice(tmp_path / "slice", None)  # type: ignore[arg-type]
    assert found.one("Condition", "c", "condition_occurrence")
    assert len(found.rows("measurement")) == 2999


@pytest.mark.requirement("f2o-013")
def test_a_bundle_and_single_resources_map_alike(tmp_path: Path) -> None:
    resources = [patient(), *GOOD[:5]]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": one} for one in resources]}
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "bundle.json").write_text(json.dumps(bundle))
    map_folder(site(), tmp_path / "bundle", tmp_path / "slice")
    assert clinical(Slice(tmp_path / "slice", None)) == clinical(mapped(tmp_path / "lines", resources))  # type: ignore[arg-type]


def test_nothing_but_patients_and_nothing_at_all(tmp_path: Path) -> None:
    only = mapped(tmp_path / "only", [patient()])
    assert [len(only.rows(name)) for name in ("person", "measurement", "observation_period", "cdm_source")] == [
        1,
        0,
        0,
        0,
    ]
    (tmp_path / "none").mkdir()
    with pytest.raises(PalmaresError, match="E-LAND-01"):
        map_folder(site(), tmp_path / "none", tmp_path / "slice")
    assert not (tmp_path / "slice").exists()


def test_a_failure_shows_no_value_and_leaves_the_old_slice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = mapped(tmp_path, [patient(), GOOD[0]])
    before = clinical(good)
    import omop_etl.mapping.run as run

    def broken(connection, *_: object) -> None:
        connection.execute("SELECT CAST('Mario Rossi' AS INTEGER)")

    monkeypatch.setattr(run.slice, "tell_origins", broken)
    with pytest.raises(PalmaresError) as caught:
        map_folder(site(), tmp_path / "fhir", tmp_path / "slice")
    assert caught.value.code == "E-MAP-01"
    assert "Rossi" not in str(caught.value) and caught.value.__cause__ is None
    assert clinical(good) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fhir", "slice"]


def test_rows_that_do_not_balance_are_a_defect_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import omop_etl.mapping.run as run

    told = run.slice.tell_origins

    def forget(connection) -> None:
        connection.execute("DELETE FROM event_observation_1")
        told(connection)

    monkeypatch.setattr(run.slice, "tell_origins", forget)
    with pytest.raises(PalmaresError, match="E-BALANCE-01"):
        mapped(tmp_path, [patient(), GOOD[0]])


def test_little_memory_is_enough(tmp_path: Path) -> None:
    many = [resource("Observation", f"o{n}", code=concept((LOINC, "718-7"), text="x" * 500)) for n in range(2000)]
    fhir = write_fhir(tmp_path / "fhir", [patient(), *many])
    result = map_folder(site(), fhir, tmp_path / "slice", memory_limit="150MB", jobs=1)
    assert result.rows["measurement"] == 2000


def test_progress_names_the_steps(tmp_path: Path) -> None:
    told: list[str] = []
    map_folder(site(), write_fhir(tmp_path / "fhir", [patient(), GOOD[0]]), tmp_path / "slice", progress=told.append)
    assert told[0] == "landing" and "mapping Observation" in told and told[-1] == "checking"


@pytest.mark.parametrize("offset", range(4))
def test_words_that_duckdb_cuts_in_the_middle_of_a_letter(tmp_path: Path, offset: int) -> None:
    """It shows the start of a line that it refuses, so many bytes of it: the error of a message that ends in half a letter is another."""
    secret = "x" * offset + "perché è più città " * 30 + "𝔐" * 50
    found = mapped(
        tmp_path,
        [patient(), resource("Observation", "good"), resource("Observation", "bad", valueQuantity=secret)],
    )
    assert found.why("Observation", "bad") == ("quarantined", "Q-KIND")
    assert found.one("Observation", "good", "measurement")


@pytest.mark.parametrize("name", ["a[b]c", "what?*", "o'ne"])
@pytest.mark.parametrize("relative", [True, False])
def test_a_folder_of_any_name_loses_no_delivery(tmp_path: Path, monkeypatch, name: str, relative: bool) -> None:
    for day in (1, 2):
        write_fhir(tmp_path / f"in{day}", [patient(f"p{day}"), resource("Condition", f"c{day}", f"p{day}")])
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    folder = Path() if relative else tmp_path / name
    land([tmp_path / "in1"], folder / "one")
    land([tmp_path / "in2"], folder / "two", previous=folder / "one")
    assert map_site(site(), folder / "two", folder / "slice").resources == {"written": 4}
