"""A run as a whole: the same bytes for a seed, whole or not at all, of any size."""

import hashlib
import stat
from pathlib import Path

import pytest

from fhir_adapters.errors import PalmaresError
from omop_etl.synthetic import generate
from omop_etl.synthetic.parameters import load
from omop_etl.synthetic.plan import plan_sites


def _digest(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_seed_gives_the_same_bytes_whatever_the_jobs(tmp_path: Path) -> None:
    told: list[object] = []
    one = generate(tmp_path / "one", sites=4, patients=70, seed=5, jobs=1, progress=told.append)
    two = generate(tmp_path / "two", sites=4, patients=70, seed=5, jobs=2)
    assert one == two
    assert _digest(tmp_path / "one") == _digest(tmp_path / "two")
    assert told == ["site01", "site02", "site03", "site04"]


def test_another_seed_gives_other_patients(tmp_path: Path) -> None:
    generate(tmp_path / "one", sites=1, patients=3, seed=5, jobs=1)
    generate(tmp_path / "two", sites=1, patients=3, seed=6, jobs=1)
    one, two = _digest(tmp_path / "one"), _digest(tmp_path / "two")
    assert one["truth/patients.parquet"] != two["truth/patients.parquet"]


@pytest.mark.parametrize(("sites", "patients"), [(1, 1), (1, 25), (2, 2), (3, 20), (6, 61)])
def test_runs_of_any_size(tmp_path: Path, sites: int, patients: int) -> None:
    result = generate(tmp_path / "out", sites=sites, patients=patients, jobs=1)
    assert (result.sites, result.patients) == (sites, patients)


def test_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    generate(tmp_path / "out", sites=2, patients=2, jobs=1)
    keys = sorted((tmp_path / "out" / "sites" / "keys").iterdir())
    assert [key.name for key in keys] == ["linkage.key", "site01.key", "site02.key"]
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}


@pytest.mark.parametrize(("sites", "patients"), [(0, 10), (5, 4)])
def test_too_few_patients_is_a_numbered_error_and_nothing_is_written(tmp_path: Path, sites: int, patients: int) -> None:
    with pytest.raises(PalmaresError, match="E-SYN-01"):
        generate(tmp_path / "out", sites=sites, patients=patients)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("sites", "patients"), [(5, 300), (37, 6000), (27, 4236)])
def test_the_plan_adds_up(sites: int, patients: int) -> None:
    plans = plan_sites(sites, patients, 1, True, load())
    assert sum(len(plan.registrations) for plan in plans) == patients
    sizes = [len(plan.registrations) for plan in plans]
    assert max(sizes) > 2 * min(sizes)
    assert [plan.kind for plan in plans].count("clean") == [plan.kind for plan in plans].count("blocked") == 1
    numbers = [(plan.id, registration.number) for plan in plans for registration in plan.registrations]
    assert len(set(numbers)) == patients
    humans: dict[str, list[str]] = {}
    for plan in plans:
        for registration in plan.registrations:
            humans.setdefault(registration.human.key, []).append(plan.id)
            if plan.kind == "blocked":
                assert registration.human.scenario.name == "usual" and registration.kind is None
            if plan.kind == "clean":
                assert registration.human.scenario.clean and registration.human.tidy
                assert registration.kind in (None, "linked")
    assert all(len(set(where)) == len(where) <= 2 for where in humans.values())


def test_reserved_birth_months_belong_to_one_pair_each() -> None:
    plans = plan_sites(37, 6000, 1, True, load())
    births: dict[object, set[str]] = {}
    for plan in plans:
        for registration in plan.registrations:
            if registration.human.birth:
                births.setdefault(f"{registration.human.birth:%Y-%m}", set()).add(registration.human.key)
    assert len(births) == 20
    assert all(len(keys) == 1 for keys in births.values())
