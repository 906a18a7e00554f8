"""Versions, deletes and deliveries: the newest counts, and steps end where one full load ends."""

import json
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fhir_adapters.landing import land
from omop_etl.mapping import map_site
from tests.mapping_helpers import Slice, patient, resource, site

DAY = "2024-01-{:02d}T00:00:00Z"


def deliver(
    folder: Path, number: int, resources: list[dict[str, Any]], deletes: list[tuple[str, str, str]] = ()
) -> Path:  # type: ignore[assignment]
    place = folder / f"delivery{number}"
    place.mkdir(parents=True)
    entries: list[dict[str, Any]] = [{"resource": one} for one in resources]
    entries += [
        {
            "request": {"method": "DELETE", "url": f"{kind}/{identity}"},
            "response": {"status": "204", "lastModified": at},
        }
        for kind, identity, at in deletes
    ]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    (place / "bundle.json").write_text(json.dumps(bundle))
    return place


def landed(folder: Path, deliveries: list[Path]) -> Path:
    out = folder / "landed"
    for number, place in enumerate(deliveries):
        land([place], out, previous=out if number else None, jobs=1)
    return out


def content(slice_: Path) -> dict[str, list[tuple[Any, ...]]]:
    connection = duckdb.connect()
    return {
        str(path.relative_to(slice_)): connection.execute(f"FROM read_parquet('{path}')").fetchall()
        for path in sorted(slice_.rglob("*.parquet"))
    }


def version(identity: str, day: int, number: float, kind: str = "Observation") -> dict[str, Any]:
    meta = {"lastUpdated": DAY.format(day), "versionId": str(day)}
    if kind == "Patient":
        return patient(identity, meta=meta, birthDate=f"{1950 + int(number) % 40}-01-01")
    return resource(kind, identity, "p1", meta=meta, valueQuantity={"value": number})


def test_the_newest_version_counts_wherever_it_stands(tmp_path: Path) -> None:
    first = deliver(tmp_path, 1, [patient("p1"), version("o", 5, 5.0), version("o", 3, 3.0)])
    second = deliver(tmp_path, 2, [version("o", 4, 4.0)])  # late, and older
    map_site(site(), landed(tmp_path, [first, second]), tmp_path / "slice", jobs=1)
    found = Slice(tmp_path / "slice", None)  # type: ignore[arg-type]
    assert found.one("Observation", "o", "measurement")["value_as_number"] == 5.0
    assert found.manifest()["extracted_to"] == "2024-01-05"


def test_a_deleted_resource_is_left_out_and_one_made_again_is_not(tmp_path: Path) -> None:
    first = deliver(
        tmp_path, 1, [patient("p1"), version("gone", 2, 1.0), version("back", 2, 1.0), version("early", 9, 1.0)]
    )
    second = deliver(
        tmp_path,
        2,
        [],
        [
            ("Observation", "gone", DAY.format(3)),
            ("Observation", "back", DAY.format(3)),
            ("Observation", "early", DAY.format(3)),
        ],
    )
    third = deliver(tmp_path, 3, [version("back", 4, 2.0)])
    map_site(site(), landed(tmp_path, [first, second, third]), tmp_path / "slice", jobs=1)
    found = Slice(tmp_path / "slice", None)  # type: ignore[arg-type]
    assert found.why("Observation", "gone") == ("excluded", "X-DELETED")
    assert found.one("Observation", "back", "measurement")["value_as_number"] == 2.0
    assert found.one("Observation", "early", "measurement")["value_as_number"] == 1.0


steps = st.lists(
    st.lists(
        st.one_of(
            st.tuples(st.just("Observation"), st.sampled_from("abc"), st.integers(1, 28), st.integers(0, 9)),
            st.tuples(st.just("Patient"), st.just("p1"), st.integers(1, 28), st.integers(0, 9)),
            st.tuples(st.just("delete"), st.sampled_from("abc"), st.integers(1, 28), st.just(0)),
        ),
        max_size=5,
        unique_by=lambda event: (event[0], event[1], event[2]),
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.long
@pytest.mark.requirement("f2o-061", "f2o-103")
@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(steps=steps)
def test_landing_in_steps_is_one_full_load_of_the_last_state(steps: list[list[tuple[str, str, int, int]]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        base = [patient("p1", meta={"lastUpdated": "2023-12-01T00:00:00Z"})]
        deliveries, last = [], {("Patient", "p1"): (0, base[0])}
        gone: dict[str, int] = {}
        for number, step in enumerate(steps):
            made = [
                version(identity, day, float(value), kind) for kind, identity, day, value in step if kind != "delete"
            ]
            deletes = [
                ("Observation", identity, DAY.format(day)) for kind, identity, day, _ in step if kind == "delete"
            ]
            deliveries.append(deliver(root / "steps", number, base + made if number == 0 else made, deletes))
            for (kind, identity, day, _), one in zip((e for e in step if e[0] != "delete"), made, strict=True):
                # the same instant twice: the later delivery counts
                if day >= last.get((kind, identity), (0, {}))[0]:
                    last[kind, identity] = (day, one)
            for _, identity, at in deletes:
                gone[identity] = max(gone.get(identity, 0), int(at[8:10]))
        state = [
            one for (kind, identity), (day, one) in last.items() if kind == "Patient" or gone.get(identity, 0) < day
        ]
        map_site(site(), landed(root / "steps", deliveries), root / "by-steps", jobs=1)
        full = landed(root / "full", [deliver(root / "full", 0, state)])
        map_site(site(), full, root / "at-once", jobs=1)
        one, other = content(root / "by-steps"), content(root / "at-once")
        for table in one:
            if table in ("ledger.parquet", "cdm_source.parquet", "side/members.parquet"):
                continue  # what was deleted is told in the one and unknown to the other
            assert one[table] == other[table], table
