"""Source code → standard concept: each way to an answer, each reason for none."""

import inspect
import re
import subprocess
import sys

import duckdb
import pytest

from fhir_adapters.knowledge import table
from omop_etl.vocabulary import attach, explain_code, open_vocabulary
from omop_etl.vocabulary import resolve as rule
from tests.shared import SHARED, needs_shared
from tests.vocabulary_helpers import concept, relation, resolve, site_with, write_athena, write_maps

SNOMED = "http://snomed.info/sct"
ICD10 = "http://hl7.org/fhir/sid/icd-10"
LOCAL = "urn:palmares:site:prova:diagnosi"

CONCEPTS = [
    concept(10, "SNOMED", "100"),
    concept(11, "SNOMED", "110", domain="Observation"),
    concept(12, "SNOMED", "120", standard="", invalid="U"),  # replaced
    concept(13, "SNOMED", "130", standard="", invalid="D"),  # deleted
    concept(14, "SNOMED", "140", standard="", domain="Observation"),  # one to many
    concept(15, "SNOMED", "150", standard="", domain="Measurement"),  # with a value
    concept(16, "SNOMED", "160", domain="Meas Value"),
    concept(17, "SNOMED", "170", standard=""),  # nothing related
    concept(18, "SNOMED", "180", domain="Measurement"),
    concept(20, "ICD10", "C50.9", standard=""),
    concept(21, "ICD10", "C50.1", standard=""),
    concept(22, "ICD10", "C50.2", standard=""),
    concept(23, "ICD10", "C50.3", standard=""),
]
RELATIONS = [
    relation(10, 10),
    # 11 lost its row to itself in the subset
    relation(12, 10),
    relation(14, 11),
    relation(14, 10),
    relation(15, 18),
    relation(15, 16, "Maps to value"),
    relation(20, 10),
    relation(21, 10, invalid="D"),  # relationship no longer valid
    relation(22, 13),  # target deleted
    relation(23, 999),  # target not in the download
    relation(10, 20, "Mapped from"),
    relation(16, 16),
    relation(18, 18),
]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return open_vocabulary(write_athena(tmp_path_factory.mktemp("athena"), CONCEPTS, RELATIONS))


def one(vocabulary, system, code, **options):
    (row,) = resolve(vocabulary, [(system, code)], **options)[(system, code)]
    return row


def target(row):
    return row["source_concept_id"], row["target_concept_id"], row["reason"]


def test_a_standard_concept_maps_to_itself(small):
    row = one(small, SNOMED, "100")
    assert row == {
        "system": SNOMED,
        "code": "100",
        "vocabulary_id": "SNOMED",
        "source_concept_id": 10,
        "source_domain_id": "Condition",
        "target_concept_id": 10,
        "target_domain_id": "Condition",
        "target_vocabulary_id": "SNOMED",
        "value_concept_id": None,
        "map_rank": 1,
        "origin": "vocabulary",
        "reason": None,
    }


def test_also_where_the_subset_lost_the_row_to_itself(small):
    assert target(one(small, SNOMED, "110")) == (11, 11, None)


def test_a_replaced_concept_follows_to_its_successor(small):
    assert target(one(small, SNOMED, "120")) == (12, 10, None)


def test_one_code_to_several_concepts_in_the_same_order_always(small):
    rows = resolve(small, [(SNOMED, "140")])[(SNOMED, "140")]
    assert [(row["target_concept_id"], row["map_rank"]) for row in rows] == [(10, 1), (11, 2)]


def test_maps_to_value_goes_with_the_target_that_holds_a_value(small):
    row = one(small, SNOMED, "150")
    assert (row["target_concept_id"], row["value_concept_id"]) == (18, 16)


@pytest.mark.parametrize(
    "system, code, expected",
    [
        ("", "100", (0, 0, "no-system")),
        ("urn:elsewhere", "100", (0, 0, "unknown-system")),
        ("http://loinc.org", "1-1", (0, 0, "vocabulary-not-loaded")),
        (SNOMED, "999", (0, 0, "unknown-code")),
        (SNOMED, "130", (13, 0, "no-standard-concept")),
        (SNOMED, "170", (17, 0, "no-standard-concept")),
        (ICD10, "C50.1", (21, 0, "target-not-standard")),
        (ICD10, "C50.2", (22, 0, "target-not-standard")),
        (ICD10, "C50.3", (23, 0, "target-not-standard")),
    ],
)
def test_reasons(small, monkeypatch, tmp_path, system, code, expected):
    monkeypatch.setattr("omop_etl.vocabulary.resolve.study_folder", lambda: tmp_path / "none")
    assert target(one(small, system, code)) == expected


def test_every_reason_is_explained():
    given = set(re.findall(r"(?:THEN|ELSE) '([a-z]+-[a-z-]+)'", inspect.getsource(rule)))
    assert len(given) == 8
    explained = {row["code"]: row["outcome"] for row in table("explanations", "reasons.csv")}
    assert {explained.get(reason) for reason in given} == {"unmapped"}


def test_no_code_disappears_and_none_is_doubled(small):
    codes = [(SNOMED, "100"), (SNOMED, "100"), ("", "x"), ("", "x'y"), ("a'b", '"x"'), (SNOMED, ""), ("u", "è\n\t")]
    assert set(resolve(small, codes)) == set(codes)


def test_no_codes_at_all(small):
    assert resolve(small, []) == {}


def test_a_system_may_be_null_and_a_null_code_is_no_code(small):
    connection = duckdb.connect()
    connection.execute("CREATE TABLE used AS FROM (VALUES (NULL, 'a'), ('x', NULL)) t(system, code)")
    attach(connection, small, codes_used="used")
    assert connection.execute("SELECT system, code, reason FROM code_concept").fetchall() == [("", "a", "no-system")]


# how a code and a system may be spelled


@pytest.mark.parametrize(
    "system",
    [
        "http://snomed.info/sct",
        "https://snomed.info/sct/",
        "http://snomed.info/sct/731000124108/version/20240301",
        "urn:oid:2.16.840.1.113883.6.96",
        "URN:OID:2.16.840.1.113883.6.96",
        "2.16.840.1.113883.6.96",
        " http://snomed.info/sct ",
    ],
)
def test_spellings_of_a_system(small, system):
    assert target(one(small, system, "100")) == (10, 10, None)


@pytest.mark.parametrize("code", ["C50.9", "c50.9", "C509", "c509", " C50.9 ", "C50.9."])
def test_spellings_of_an_icd10_code(small, monkeypatch, tmp_path, code):
    monkeypatch.setattr("omop_etl.vocabulary.resolve.study_folder", lambda: tmp_path / "none")
    assert target(one(small, ICD10, code)) == (20, 10, None)


def test_the_case_of_a_unit_matters():
    assert one(None, "http://unitsofmeasure.org", "mg")["target_concept_id"] == 8576
    assert one(None, "http://unitsofmeasure.org", "MG")["reason"] == "unknown-code"


def test_a_code_as_written_wins_over_another_form(tmp_path):
    vocabulary = write_athena(
        tmp_path, [concept(1, "ICD9Proc", "85.41"), concept(2, "ICD9CM", "854.1"), concept(3, "ICD9CM", "x")]
    )
    system = "http://hl7.org/fhir/sid/icd-9-cm"
    assert target(one(vocabulary, system, "85.41")) == (1, 1, None)
    assert target(one(vocabulary, system, "854.1")) == (2, 2, None)
    # without its dot it may be either: read as a diagnosis
    assert target(one(vocabulary, system, "8541")) == (2, 2, None)
    assert target(one(vocabulary, system + "/procedure", "8541")) == (1, 1, None)


def test_a_valid_concept_before_an_invalid_one_of_the_same_code(tmp_path):
    vocabulary = write_athena(
        tmp_path, [concept(1, "SNOMED", "5", standard="", invalid="D"), concept(2, "SNOMED", "5")]
    )
    assert target(one(vocabulary, SNOMED, "5")) == (2, 2, None)


# code maps


def maps(folder, **files):
    return write_maps(folder, {f"{name}.csv": value for name, value in files.items()})


def test_the_site_answers_before_the_study_and_the_study_before_the_vocabulary(small, monkeypatch, tmp_path):
    study = maps(
        tmp_path / "study",
        icd=(ICD10, [{"sourceCode": "C50.9", "conceptId": 11}, {"sourceCode": "C50.1", "conceptId": 11}]),
    )
    site = site_with(maps(tmp_path / "site", icd=(ICD10, [{"sourceCode": "C50.9", "conceptId": 18}])))
    monkeypatch.setattr("omop_etl.vocabulary.resolve.study_folder", lambda: study)
    found = resolve(small, [(ICD10, "C50.9"), (ICD10, "C50.1")], site=site)
    assert [(row["target_concept_id"], row["origin"]) for rows in found.values() for row in rows] == [
        (11, "study"),
        (18, "site"),
    ]
    without = one(small, ICD10, "C50.9")
    assert (without["target_concept_id"], without["origin"], without["source_concept_id"]) == (11, "study", 20)


def test_codes_of_a_system_that_only_the_site_knows(small, tmp_path):
    rows = [
        {"sourceCode": "K1", "conceptId": 10},
        {"sourceCode": "K1", "conceptId": 18},
        {"sourceCode": "K1", "conceptId": 16, "mappingType": "MAPS_TO_VALUE"},
        {"sourceCode": "K2", "conceptId": 10, "mappingStatus": "UNCHECKED"},
    ]
    site = site_with(maps(tmp_path / "site", diagnosi=(LOCAL, rows)))
    found = resolve(small, [(LOCAL, "K1"), (LOCAL, "K2"), (LOCAL, "k1")], site=site)
    assert [(row["target_concept_id"], row["value_concept_id"]) for row in found[(LOCAL, "K1")]] == [
        (10, None),
        (18, 16),
    ]
    assert found[(LOCAL, "K2")][0]["reason"] == found[(LOCAL, "k1")][0]["reason"] == "unknown-code"


def test_codes_without_a_system_can_be_mapped_too(small, tmp_path):
    site = site_with(maps(tmp_path / "site", testo=("", [{"sourceCode": "tumore", "conceptId": 10}])))
    assert target(one(small, "", "tumore", site=site)) == (0, 10, None)
    assert target(one(small, "", "altro", site=site)) == (0, 0, "no-system")


def test_a_map_row_to_no_concept_is_an_answer(small, tmp_path):
    site = site_with(maps(tmp_path / "site", snomed=(SNOMED, [{"sourceCode": "100", "conceptId": 0}])))
    row = one(small, SNOMED, "100", site=site)
    assert (row["target_concept_id"], row["origin"], row["reason"]) == (0, "site", "approved-without-concept")


@pytest.mark.parametrize("unusable", [13, 20, 999])
def test_a_map_row_to_an_unusable_concept_is_none(small, tmp_path, unusable):
    rows = [{"sourceCode": code, "conceptId": unusable} for code in ("100", "998")]
    site = site_with(maps(tmp_path / "site", snomed=(SNOMED, rows)))
    found = resolve(small, [(SNOMED, "100"), (SNOMED, "998")], site=site)
    assert target(found[(SNOMED, "100")][0]) == (10, 10, None)
    assert target(found[(SNOMED, "998")][0]) == (0, 0, "map-target-not-standard")


def test_a_map_of_one_address_serves_all_addresses_of_the_vocabulary():
    for system in ("http://www.whocc.no/atc", "urn:oid:2.16.840.1.113883.6.73", "ATC"):
        assert one(None, system, "l01xe33")["target_concept_id"] == 45892075


# ancestors


def test_ancestors_from_the_download(tmp_path):
    vocabulary = write_athena(
        tmp_path, [concept(i, "SNOMED", str(i)) for i in (1, 2, 3)], ancestors=[(1, 1), (1, 2), (1, 3), (2, 3), (3, 3)]
    )
    assert ancestors(vocabulary, ["1", "3"]) == [(1, 3)]


def test_ancestors_climbed_where_the_download_has_none(tmp_path):
    relations = [
        relation(3, 2, "Is a"),
        relation(1, 2, "Subsumes"),
        relation(4, 1, "Is a", invalid="D"),
        relation(2, 2, "Is a"),
    ]
    vocabulary = write_athena(tmp_path, [concept(i, "SNOMED", str(i)) for i in (1, 2, 3, 4)], relations)
    assert ancestors(vocabulary, ["1", "3", "4"]) == [(1, 3)]
    assert ancestors(vocabulary, ["1", "2", "3"]) == [(1, 2), (1, 3), (2, 3)]


def test_a_circle_of_parents_ends(tmp_path):
    relations = [relation(1, 2, "Is a"), relation(2, 1, "Is a")]
    vocabulary = write_athena(tmp_path, [concept(i, "SNOMED", str(i)) for i in (1, 2)], relations)
    assert ancestors(vocabulary, ["1", "2"]) == [(1, 2), (2, 1)]


def ancestors(folder, codes):
    connection = duckdb.connect()
    connection.execute(f"CREATE TABLE used AS SELECT '{SNOMED}' AS system, unnest({codes}::VARCHAR[]) AS code")
    attach(connection, open_vocabulary(folder), codes_used="used")
    return connection.execute("FROM code_ancestor ORDER BY ALL").fetchall()


# what is left in the connection


def test_only_what_is_promised_is_left(small):
    connection = duckdb.connect()
    connection.execute(f"CREATE TABLE used AS SELECT '{SNOMED}' AS system, '100' AS code")
    for _ in range(2):
        attach(connection, small, codes_used="used")
    names = {row[0] for row in connection.execute("SELECT table_name FROM information_schema.tables").fetchall()}
    assert names == {"used", "concept", "code_concept", "code_ancestor"}
    assert connection.execute("SELECT concept_name FROM concept WHERE concept_id = 10").fetchone() == ("concept 10",)


def test_pandas_is_not_imported():
    program = (
        "import duckdb, sys; from omop_etl.vocabulary import attach, open_vocabulary; c = duckdb.connect(); "
        f"c.execute(\"CREATE TABLE used AS SELECT '{SNOMED}' AS system, '254837009' AS code\"); "
        "attach(c, open_vocabulary(None), codes_used='used'); "
        "print({'pandas', 'numpy', 'pyarrow', 'sqlalchemy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# vocabularies that no one here wrote


@needs_shared("fhir_omop_cases")
def test_the_golden_vocabulary():
    golden = SHARED / "data" / "fhir_omop_cases" / "vocabulary"
    found = resolve(
        golden, [(SNOMED, "8517006"), (SNOMED, "45767825"), ("http://hl7.org/fhir/sid/ndc", "13668-0219-90")]
    )
    assert [row["target_concept_id"] for row in found[(SNOMED, "8517006")]] == [903651, 1340204]
    assert found[("http://hl7.org/fhir/sid/ndc", "13668-0219-90")][0]["target_concept_id"] == 19096776
    assert open_vocabulary(golden).release == "v20260227"


@needs_shared("vocabulary_eunomia")
def test_every_concept_of_eunomia_answers_as_its_relationships_say():
    folder = SHARED / "data" / "vocabulary_eunomia"
    systems = {
        "SNOMED": SNOMED,
        "LOINC": "http://loinc.org",
        "RxNorm": "http://www.nlm.nih.gov/research/umls/rxnorm",
        "CVX": "http://hl7.org/fhir/sid/cvx",
    }
    vocabulary = open_vocabulary(folder)
    codes = duckdb.execute(
        f"SELECT vocabulary_id, concept_code FROM {vocabulary.relation('concept')} ORDER BY ALL"
    ).fetchall()
    asked = [(systems[vocabulary_id], code) for vocabulary_id, code in codes if vocabulary_id in systems]
    found = resolve(vocabulary, asked)
    assert len(found) == len(set(asked)) > 1000
    mapped = sum(rows[0]["reason"] is None for rows in found.values())
    assert mapped / len(found) > 0.97
    for system, code in asked[:: len(asked) // 12]:
        expected = [(answer.target_concept_id, answer.reason) for answer in explain_code(vocabulary, system, code)]
        assert [(row["target_concept_id"], row["reason"]) for row in found[(system, code)]] == expected
