"""The starter slice: what it holds, where each fact was seen, and that nothing else in `mappings/` uses an unknown concept."""

import csv
import re
import tomllib

import pytest

from fhir_adapters.knowledge import mappings_folder
from omop_etl.vocabulary import open_vocabulary
from tests.shared import SHARED, needs_shared
from tests.vocabulary_helpers import CONCEPT, resolve

FOLDER = mappings_folder() / "vocabulary"
SNOMED, LOINC, UCUM = "http://snomed.info/sct", "http://loinc.org", "http://unitsofmeasure.org"


def athena(name):
    with (FOLDER / name).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.fixture(scope="module")
def concepts():
    return {int(row["concept_id"]): row for row in athena("CONCEPT.csv")}


def test_layout_is_athenas(concepts):
    assert tuple(next(iter(concepts.values()))) == CONCEPT
    assert [int(row["concept_id"]) for row in athena("CONCEPT.csv")] == sorted(concepts)
    assert open_vocabulary(None).lock["tables"]["concept"] == len(concepts)


def test_each_concept_has_its_source(concepts):
    with (FOLDER / "sources.csv").open(encoding="utf-8", newline="") as lines:
        sources = {int(row["concept_id"]): row for row in csv.DictReader(lines)}
    assert set(sources) == set(concepts)
    assert all(row["evidence"] and row["tier"] in ("A", "B") for row in sources.values())
    for concept_id, row in concepts.items():
        unknown = row["concept_code"].startswith("(unknown")
        assert unknown == ("code not known" in sources[concept_id]["filled"])


def test_relationships_lead_to_valid_standard_concepts(concepts):
    rows = athena("CONCEPT_RELATIONSHIP.csv")
    for row in rows:
        target = concepts[int(row["concept_id_2"])]
        assert row["relationship_id"] == "Maps to" and int(row["concept_id_1"]) in concepts
        assert (target["standard_concept"], target["invalid_reason"]) == ("S", "")
    to_themselves = {int(row["concept_id_1"]) for row in rows if row["concept_id_1"] == row["concept_id_2"]}
    assert to_themselves == {key for key, row in concepts.items() if row["standard_concept"] == "S"}


def test_references_between_the_files_close(concepts):
    for column, name in (
        ("vocabulary_id", "VOCABULARY"),
        ("domain_id", "DOMAIN"),
        ("concept_class_id", "CONCEPT_CLASS"),
    ):
        assert {row[column] for row in concepts.values()} == {row[column] for row in athena(f"{name}.csv")}


def test_a_concept_whose_domain_is_not_known_is_no_target(concepts):
    for row in concepts.values():
        if row["domain_id"] == "Metadata" and row["vocabulary_id"] == "None":
            assert row["standard_concept"] == ""


@needs_shared("concepts")
def test_it_holds_the_collected_concepts_as_they_were_seen(concepts):
    with (SHARED / "data" / "concepts" / "concepts.csv").open(encoding="utf-8", newline="") as lines:
        collected = [row for row in csv.DictReader(lines) if row["tier"] in ("A", "B")]
    names: dict[int, list[str]] = {}
    for row in collected:
        ours = concepts[int(row["concept_id"])]
        names.setdefault(int(row["concept_id"]), []).append(row["concept_name"])
        for column in ("domain_id", "vocabulary_id", "concept_class_id", "concept_code"):
            if row[column] not in ("", "NA", "NULL"):
                assert ours[column] == row[column], (row["concept_id"], column)
        if row["standard_concept"] in ("S", "C") and not ours["invalid_reason"]:
            assert ours["standard_concept"] == row["standard_concept"]
    for concept_id, seen in names.items():
        assert concepts[concept_id]["concept_name"] in seen


@needs_shared("concepts")
def test_nothing_that_was_not_found_is_there(concepts):
    with (SHARED / "data" / "concepts" / "concepts.csv").open(encoding="utf-8", newline="") as lines:
        missing = {
            int(row["concept_id"]) for row in csv.DictReader(lines) if row["tier"] == "MISS" and row["concept_id"]
        }
    assert not missing & set(concepts)


NEEDED = [
    (SNOMED, "448952004", 40492507),
    (SNOMED, "278054005", 4080865),
    (SNOMED, "254837009", 4112853),
    (SNOMED, "128462008", 432851),
    (SNOMED, "94222008", 78097),
    (SNOMED, "1082701000112100", 37310457),
    (SNOMED, "392021009", 4213045),
    (SNOMED, "108290001", 4029715),
    ("http://hl7.org/fhir/sid/icd-10", "C50.9", 4112853),
    ("http://hl7.org/fhir/sid/icd-10", "C79.3", 36768862),
    ("http://hl7.org/fhir/sid/icd-9-cm", "198.5", 78097),
    ("http://www.whocc.no/atc", "L01XE42", 1592911),
    ("http://www.whocc.no/atc", "L02AE04", 1343039),
    (LOINC, "85337-4", 36203168),
    (LOINC, "44648-4", 3047285),
    (LOINC, "89247-1", 36305384),
    (LOINC, "LA9622-7", 36309661),
    (LOINC, "8302-2", 3036277),
    (UCUM, "%", 8554),
    (UCUM, "U/L", 8645),
    (UCUM, "10*9/L", 9444),
    ("urn:palmares:her2-ihc", "3+", 45876467),
    ("urn:palmares:her2-ihc", "0", 9189),
    ("urn:palmares:her2-ish", "amplified", 9191),
    ("urn:palmares:grade", "2", 1634752),
    ("urn:palmares:menopausal-status", "peri", 45757505),
    ("urn:palmares:observation", "menopausal-status", 4059477),
    ("urn:palmares:tumour-response", "PD", 1633597),
]


def test_what_the_study_needs_is_mapped():
    found = resolve(None, [(system, code) for system, code, _ in NEEDED])
    answers = [(*key, row["target_concept_id"], row["reason"]) for key, rows in found.items() for row in rows]
    assert sorted(answers, key=str) == sorted(((*needed, None) for needed in NEEDED), key=str)


def test_a_reason_for_stopping_is_known_and_has_no_concept():
    (row,) = resolve(None, [("urn:palmares:stop-reason", "toxicity")])[("urn:palmares:stop-reason", "toxicity")]
    assert (row["target_concept_id"], row["reason"]) == (0, "approved-without-concept")


# every concept id that stands anywhere in mappings/

_NUMBERS = re.compile(r"\b[0-9]{2,10}\b")
# tables that are of one public source as a whole: OHDSI's thresholds for its dashboard, which name the concepts that they are about
PUBLISHED = {"quality/dqd.csv"}


def _concept_ids_in_mappings():
    """(file, id) for each number in a column or setting whose name speaks of a concept, and in SQL beside such a name."""
    for path in sorted(mappings_folder().rglob("*")):
        name = str(path.relative_to(mappings_folder()))
        if not path.is_file() or name.startswith("vocabulary/") or name in PUBLISHED:
            continue
        if "/ecrf/" in name:  # templates of column maps: FHIR on the right, and no TOML before they are filled in
            continue
        if path.suffix == ".csv":
            with path.open(encoding="utf-8", newline="") as lines:
                for row in csv.DictReader(lines):
                    if row.get("evidence"):  # a table that cites the public source of each row itself
                        continue
                    for column, value in row.items():
                        if _speaks_of_concepts(column):
                            yield from ((name, int(number)) for number in _NUMBERS.findall(value or ""))
        elif path.suffix == ".toml":
            yield from ((name, number) for number in _toml_ids(tomllib.loads(path.read_text(encoding="utf-8"))))
        elif path.suffix == ".sql":
            code = re.sub(r"--[^\n]*", "", path.read_text(encoding="utf-8"))
            for line in code.splitlines():
                if "concept_id" in line:
                    yield from ((name, int(number)) for number in _NUMBERS.findall(re.sub(r"'[^']*'", "", line)))


def _speaks_of_concepts(key):
    return bool(key) and (key.lower() in ("conceptid", "concept", "concepts") or "concept_id" in key.lower())


def _toml_ids(value, speaks=False):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _toml_ids(inner, speaks or _speaks_of_concepts(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _toml_ids(inner, speaks)
    elif speaks and isinstance(value, int) and not isinstance(value, bool):
        yield value


def test_every_concept_id_in_mappings_is_in_the_starter_slice_or_cited(concepts):
    found = list(_concept_ids_in_mappings())
    assert len(found) > 250
    unknown = sorted({(name, number) for name, number in found if number not in concepts})
    assert not unknown
