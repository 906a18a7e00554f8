"""Which coding speaks, and where what it says is written: prioritization, domains, several targets, values."""

from pathlib import Path

import pytest

from tests.mapping_helpers import ICD10CM, LOINC, SNOMED, Slice, concept, mapped, patient, resource, tiny_vocabulary

LOCAL = "urn:hospital:codes"
# ids of our own: 2 billion and above
A, B, PARENT, CHILD, ANSWER, DRUG, DEVICE, PROCEDURE, FINDING, NOTE = range(2_000_000_001, 2_000_000_011)
SOURCE, TWO, WITH_VALUE, MISSING, LAB, QUESTION = range(2_000_000_101, 2_000_000_107)
CONCEPTS = [
    (A, "Condition", "SNOMED", "S", "a"),
    (B, "Condition", "SNOMED", "S", "b"),
    (PARENT, "Condition", "SNOMED", "S", "parent"),
    (CHILD, "Condition", "SNOMED", "S", "child"),
    (ANSWER, "Meas Value", "LOINC", "S", "answer"),
    (DRUG, "Drug", "RxNorm", "S", "drug"),
    (DEVICE, "Device", "SNOMED", "S", "device"),
    (PROCEDURE, "Procedure", "SNOMED", "S", "procedure"),
    (FINDING, "Observation", "SNOMED", "S", "finding"),
    (NOTE, "Note", "LOINC", "S", "note"),
    (SOURCE, "Condition", "ICD10CM", "", "I10"),
    (TWO, "Condition", "ICD10CM", "", "I20"),
    (WITH_VALUE, "Measurement", "SNOMED", "", "with-value"),
    (MISSING, "Condition", "ICD10CM", "", "I30"),
    (LAB, "Measurement", "LOINC", "S", "lab"),
    (QUESTION, "Observation", "LOINC", "S", "question"),
]
RELATIONS = [(one, one, "Maps to") for one, _, _, standard, _ in CONCEPTS if standard]
RELATIONS += [(SOURCE, A, "Maps to"), (TWO, A, "Maps to"), (TWO, B, "Maps to")]
RELATIONS += [
    (WITH_VALUE, LAB, "Maps to"),
    (WITH_VALUE, ANSWER, "Maps to value"),
    (CHILD, PARENT, "Is a"),
    (PARENT, CHILD, "Subsumes"),
]


def condition(identity: str, *codings: dict) -> dict:
    return resource("Condition", identity, code={"coding": list(codings)})


def coding(system: str, code: str, **more: object) -> dict:
    return {"system": system, "code": code} | more


CONDITIONS = {
    # id → (codings, concept, source code, source concept)
    "snomed-first": ([coding(ICD10CM, "I10"), coding(SNOMED, "b")], B, "b", B),
    "a-code-that-maps-before-one-that-does-not": (
        [coding(SNOMED, "nowhere"), coding(ICD10CM, "I10")],
        A,
        "I10",
        SOURCE,
    ),
    "a-known-code-before-a-local-one": ([coding(LOCAL, "x"), coding(SNOMED, "a")], A, "a", A),
    "the-more-specific": ([coding(SNOMED, "parent"), coding(SNOMED, "child")], CHILD, "child", CHILD),
    "the-more-specific-though-not-chosen": (
        [coding(SNOMED, "parent", userSelected=True), coding(SNOMED, "child")],
        CHILD,
        "child",
        CHILD,
    ),
    "the-chosen-of-equals": ([coding(SNOMED, "a"), coding(SNOMED, "b", userSelected=True)], B, "b", B),
    "vocabulary-before-choice": ([coding(SNOMED, "a"), coding(ICD10CM, "I10", userSelected=True)], A, "a", A),
    "the-first-of-equals": ([coding(SNOMED, "b"), coding(SNOMED, "a")], B, "b", B),
    "no-concept": ([coding(ICD10CM, "I30")], 0, "I30", MISSING),
    "local": ([coding(LOCAL, "x")], 0, "x", 0),
    "no-system": ([{"code": "x"}], 0, "x", 0),
    "no-code": ([{"system": SNOMED, "display": "in words"}], 0, None, 0),
}
DOMAINS = {
    "drug": ("drug_exposure", DRUG),
    "device": ("device_exposure", DEVICE),
    "procedure": ("procedure_occurrence", PROCEDURE),
    "finding": ("observation", FINDING),
    "lab": ("measurement", LAB),
    "answer": ("observation", ANSWER),
    "note": ("observation", NOTE),
}


@pytest.fixture(scope="module")
def slice_(tmp_path_factory: pytest.TempPathFactory) -> Slice:
    folder = tmp_path_factory.mktemp("codes")
    vocabulary = tiny_vocabulary(folder / "athena", CONCEPTS, RELATIONS)
    resources = [patient(), *(condition(name, *codings) for name, (codings, *_) in CONDITIONS.items())]
    systems = {"lab": LOINC, "answer": LOINC, "note": LOINC, "drug": "http://www.nlm.nih.gov/research/umls/rxnorm"}
    resources += [condition(f"domain-{name}", coding(systems.get(name, SNOMED), name)) for name in DOMAINS]
    resources += [
        condition("two", coding(ICD10CM, "I20")),
        resource("Condition", "text", code={"text": "in words"}),
        resource(
            "Observation",
            "value",
            code=concept((LOINC, "lab")),
            valueQuantity=None,
            valueCodeableConcept=concept((LOINC, "answer")),
        ),
        resource(
            "Observation",
            "lost-value",
            code=concept((LOINC, "lab")),
            valueQuantity=None,
            valueCodeableConcept=concept((LOCAL, "x")),
        ),
        resource("Observation", "maps-to-value", code=concept((SNOMED, "with-value")), valueQuantity=None),
        resource("Observation", "asked", code=concept((LOINC, "question")), valueQuantity=None),
        resource("Observation", "local-number", code=concept((LOCAL, "n"))),
        resource("Observation", "local-word", code=concept((LOCAL, "w")), valueQuantity=None, valueString="word"),
        resource(
            "AllergyIntolerance", "allergy-drug", code=concept(("http://www.nlm.nih.gov/research/umls/rxnorm", "drug"))
        ),
        resource("AllergyIntolerance", "allergy-disease", code=concept((SNOMED, "a"))),
        resource("DiagnosticReport", "report", code=concept((LOINC, "note"), (LOINC, "lab"))),
    ]
    return mapped(folder, [{k: v for k, v in one.items() if v is not None} for one in resources], vocabulary=vocabulary)


@pytest.mark.requirement("f2o-030", "f2o-031", "f2o-032", "f2o-033", "f2o-034", "f2o-035", "f2o-036")
@pytest.mark.parametrize("name", CONDITIONS)
def test_the_coding_that_speaks(slice_: Slice, name: str) -> None:
    row = slice_.one("Condition", name, "condition_occurrence")
    _, target, code, source = CONDITIONS[name]
    assert (row["condition_concept_id"], row["condition_source_value"], row["condition_source_concept_id"]) == (
        target,
        code,
        source,
    )


@pytest.mark.requirement("f2o-037")
@pytest.mark.parametrize("name", DOMAINS)
def test_the_concepts_domain_decides_the_table(slice_: Slice, name: str) -> None:
    table, target = DOMAINS[name]
    column = {"drug_exposure": "drug", "device_exposure": "device", "procedure_occurrence": "procedure"}.get(
        table, table
    )
    assert slice_.one("Condition", f"domain-{name}", table)[f"{column}_concept_id"] == target
    assert list(slice_.of("Condition", f"domain-{name}")) == [table]


def test_one_code_that_says_two_things_is_two_rows(slice_: Slice) -> None:
    rows = slice_.of("Condition", "two")["condition_occurrence"]
    assert {row["condition_concept_id"] for row in rows} == {A, B}
    assert len({row["condition_occurrence_id"] for row in rows}) == 2


def test_values(slice_: Slice) -> None:
    row = slice_.one("Observation", "value", "measurement")
    assert (row["value_as_concept_id"], row["value_source_value"]) == (ANSWER, "answer")
    row = slice_.one("Observation", "lost-value", "measurement")
    assert (row["value_as_concept_id"], row["value_source_value"]) == (0, "x")
    row = slice_.one("Observation", "maps-to-value", "measurement")
    assert (row["measurement_concept_id"], row["value_as_concept_id"]) == (LAB, ANSWER)


def test_a_question_without_an_answer_is_no_row_but_a_finding_is(slice_: Slice) -> None:
    assert slice_.why("Observation", "asked") == ("excluded", "X-NO-VALUE")
    assert slice_.one("Observation", "maps-to-value", "measurement")


def test_unmapped_stays_where_its_kind_is_at_home(slice_: Slice) -> None:
    assert slice_.one("Observation", "local-number", "measurement")["measurement_concept_id"] == 0
    assert slice_.one("Observation", "local-word", "observation")["value_as_string"] == "word"


def test_an_allergy_is_never_an_exposure(slice_: Slice) -> None:
    row = slice_.one("AllergyIntolerance", "allergy-drug", "observation")
    assert row["observation_concept_id"] == row["value_as_concept_id"] == DRUG
    assert slice_.one("AllergyIntolerance", "allergy-disease", "condition_occurrence")["condition_concept_id"] == A


def test_a_report_is_a_note_and_an_event(slice_: Slice) -> None:
    assert slice_.one("DiagnosticReport", "report", "note")["note_class_concept_id"] == NOTE
    assert slice_.one("DiagnosticReport", "report", "measurement")["measurement_concept_id"] == LAB


@pytest.mark.requirement("f2o-063")
def test_each_concept_0_is_counted_with_its_reason(slice_: Slice) -> None:
    found = {(row["source_code"], row["cdm_field"]): row for row in slice_.unmapped()}
    assert found["I30", "condition_occurrence.condition_concept_id"]["reason"] == "no-standard-concept"
    assert found["x", "condition_occurrence.condition_concept_id"]["records"] == "1"
    assert found["x", "measurement.value_as_concept_id"]["source_system"] == LOCAL
    assert found["", "condition_occurrence.condition_concept_id"] | {"site": "test"} == {
        "site": "test",
        "vocabulary_id": "",
        "source_system": "",
        "source_code": "",
        "source_name": "",
        "cdm_field": "condition_occurrence.condition_concept_id",
        "records": "2",
        "reason": "no-code",
    }
    zeros = sum(1 for row in slice_.rows("condition_occurrence") if row["condition_concept_id"] == 0)
    counted = sum(
        int(row["records"])
        for row in slice_.unmapped()
        if row["cdm_field"] == "condition_occurrence.condition_concept_id"
    )
    assert zeros == counted


def test_the_display_of_an_unknown_system_is_not_shown(tmp_path: Path) -> None:
    one = resource("Condition", "c", code={"coding": [{"system": LOCAL, "code": "x", "display": "perhaps a name"}]})
    found = mapped(tmp_path, [patient(), one])
    assert "perhaps a name" not in (found.folder / "unmapped.csv").read_text()
