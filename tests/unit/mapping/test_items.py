"""What a source says became of each file or message goes along to the slice, delivery by delivery, and stays in the hospital."""

import json
from pathlib import Path

import duckdb

from fhir_adapters.landing import land
from fhir_adapters.outcomes import EXCLUDED, QUARANTINED, RESOURCE, OutcomeFile
from fhir_adapters.validation import validate
from omop_etl.mapping import map_site
from tests.mapping_helpers import patient, resource, site


def extraction(folder: Path, resources: list[dict], items: list[tuple]) -> Path:
    folder.mkdir()
    (folder / "all.json").write_text(
        json.dumps({"resourceType": "Bundle", "type": "collection", "entry": [{"resource": one} for one in resources]})
    )
    with OutcomeFile(folder, "hl7v2") as out:
        for item in items:
            out.add(*item)
    return folder


def test_items_of_two_deliveries_and_of_one_that_came_twice(tmp_path: Path) -> None:
    first = extraction(
        tmp_path / "1",
        [patient()],
        [
            ("ADT/1.hl7:1", RESOURCE, None, 1),
            ("ADT/1.hl7:2", QUARANTINED, "Q-FILE-JSON"),
            ("ADT/1.hl7:3", EXCLUDED, "X-NO-TARGET"),
        ],
    )
    second = extraction(tmp_path / "2", [resource("Condition", "c")], [("ORU/2.hl7:1", RESOURCE, None, 1)])
    landed, accepted = tmp_path / "landed", tmp_path / "accepted"
    for number, folder in enumerate((first, second, second)):
        land([folder], landed, previous=landed if number else None, jobs=1)
    validate(landed, accepted, jobs=1)
    map_site(site(), accepted, tmp_path / "slice", jobs=1)
    told = json.loads((tmp_path / "slice" / "manifest.json").read_text())["items"]
    assert told == {"hl7v2": {"Q-FILE-JSON": 1, "X-NO-TARGET": 1, "resource": 2}}
    rows = duckdb.sql(
        f"SELECT item, outcome, delivery FROM '{tmp_path}/slice/side/items.parquet' ORDER BY ALL"
    ).fetchall()
    assert rows == [
        ("ADT/1.hl7:1", "resource", 1),
        ("ADT/1.hl7:2", "quarantined", 1),
        ("ADT/1.hl7:3", "excluded", 1),
        ("ORU/2.hl7:1", "resource", 2),
    ]


def test_what_a_source_says_of_itself_is_no_delivery(tmp_path: Path) -> None:
    """Read again an hour later, the same resources are the same delivery."""
    landed = tmp_path / "landed"
    for number, told in enumerate(("10:00", "11:00")):
        folder = extraction(tmp_path / str(number), [patient()], [("all.json", RESOURCE, None, 1)])
        (folder / "manifest.json").write_text(json.dumps({"extraction": "fhir_server", "at": told}))
        result = land([folder], landed, previous=landed if number else None, jobs=1)
        assert (result.added, result.skipped) == (not number, ())
