"""What qualifies a record: a row of its own, tied to the record. The table is run as it stands; and mCODE's profiles, whole."""

from pathlib import Path
from typing import Any

import pytest

from tests.mapping_helpers import LOINC, SNOMED, UCUM, Slice, concept, mapped, patient, resource

GRADE = "http://hl7.org/fhir/us/ctcae/CodeSystem/ctcae-grade-code-system"
HISTOLOGY = "http://hl7.org/fhir/us/mcode/StructureDefinition/mcode-histology-morphology-behavior"
LATERALITY = "http://hl7.org/fhir/us/mcode/StructureDefinition/mcode-laterality-qualifier"
RELATED = "http://hl7.org/fhir/StructureDefinition/condition-related"
RELATED_MCODE = "http://hl7.org/fhir/us/mcode/StructureDefinition/mcode-related-condition"
ASSERTED = "http://hl7.org/fhir/StructureDefinition/condition-assertedDate"
CTCAE = "http://hl7.org/fhir/us/ctcae/StructureDefinition/ctcae-grade"


def saying(url: str, system: str, code: str) -> dict[str, Any]:
    return {"url": url, "valueCodeableConcept": concept((system, code))}


def site(code: str, side: str | None = None) -> dict[str, Any]:
    made = concept((SNOMED, code))
    return made | ({"extension": [saying(LATERALITY, SNOMED, side)]} if side else {})


TUMOUR = resource(
    "Condition",
    "tumour",
    severity=concept((SNOMED, "24484000")),
    bodySite=[site("76752008", "7771000"), site("33564002")],
    stage=[{"summary": concept((SNOMED, "261640009"))}, {"assessment": [{"reference": "Observation/stage-group"}]}],
    extension=[saying(HISTOLOGY, SNOMED, "82711006")],
)
EVENT = resource(
    "AdverseEvent",
    "event",
    seriousness=concept((SNOMED, "1")),
    severity=concept((SNOMED, "24484000")),
    outcome=concept((SNOMED, "2")),
    extension=[saying(CTCAE, GRADE, "3")],
)
# resource -> code | what it says | concept | the row that it is tied to
DETAILS = """
Condition tumour    -> 24484000  | severity  | 0      | condition_occurrence
Condition tumour    -> 82711006  | histology | 0      | condition_occurrence
Condition tumour    -> 76752008  | site      | 0      | condition_occurrence
Condition tumour    -> 7771000   | side      | 0      | condition_occurrence
Condition tumour    -> 33564002  | site      | 0      | condition_occurrence
Condition tumour    -> 261640009 | stage     | 0      | condition_occurrence
Procedure surgery   -> 76752008  | site      | 0      | procedure_occurrence
Procedure surgery   -> 24028007  | side      | 0      | procedure_occurrence
AdverseEvent event  -> 3         | grade     | 763791 | condition_occurrence
AdverseEvent event  -> 1         | seriousness | 0    | condition_occurrence
AdverseEvent event  -> 24484000  | severity  | 0      | condition_occurrence
AdverseEvent event  -> 2         | outcome   | 0      | condition_occurrence
"""
FIELDS = {"condition_occurrence": 1147127, "procedure_occurrence": 1147082, "measurement": 1147138}


@pytest.fixture(scope="module")
def slice_(tmp_path_factory: pytest.TempPathFactory) -> Slice:
    told = [
        TUMOUR,
        EVENT,
        resource("Procedure", "surgery", bodySite=[site("76752008", "24028007")]),
        resource("DiagnosticReport", "report", conclusionCode=[concept((SNOMED, "254837009")), {"text": "x"}]),
        resource("Observation", "stage-group", code=concept((LOINC, "21908-9"))),
        # never happened: nothing of it is a row
        resource("Condition", "refuted", **{k: v for k, v in TUMOUR.items() if k in ("severity", "bodySite")})
        | {"verificationStatus": {"coding": [{"code": "refuted"}]}},
    ]
    return mapped(tmp_path_factory.mktemp("details"), [patient(), *told])


def tied_to(row: dict[str, Any], kind: str) -> tuple[Any, Any]:
    short = "meas" if kind == "measurement" else "obs"
    return row[f"{kind}_event_id"], row[f"{short}_event_field_concept_id"]


@pytest.mark.requirement("f2o-081")
def test_details(slice_: Slice) -> None:
    expected: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
    for line in DETAILS.strip().splitlines():
        given, answer = (part.strip() for part in line.split("->"))
        kind, identity = given.split()
        code, says, target, table = (part.strip() for part in answer.split("|"))
        own = slice_.one(kind, identity, table)[f"{table}_id"]
        expected.setdefault((kind, identity), []).append((code, says, int(target), own, FIELDS[table]))
    for (kind, identity), rows in expected.items():
        found = [
            (
                row["observation_source_value"],
                row["qualifier_source_value"],
                row["observation_concept_id"],
                *tied_to(row, "observation"),
            )
            for row in slice_.of(kind, identity)["observation"]
        ]
        assert sorted(found) == sorted(rows), (kind, identity)
        # with the type concept of the record that they qualify
        types = {row["observation_type_concept_id"] for row in slice_.of(kind, identity)["observation"]}
        assert types == {32827 if kind == "Procedure" else 32817}


@pytest.mark.requirement("f2o-063", "f2o-081")
def test_a_detail_without_a_concept_is_on_the_worklist(slice_: Slice) -> None:
    counted = {row["source_code"]: row["records"] for row in slice_.unmapped() if row["source_system"] == SNOMED}
    assert counted["24484000"] == "2" and counted["76752008"] == "2"


@pytest.mark.requirement("f2o-081")
def test_a_coded_conclusion_is_a_finding(slice_: Slice) -> None:
    row = slice_.one("DiagnosticReport", "report", "condition_occurrence")
    assert (row["condition_concept_id"], row["condition_type_concept_id"]) == (4112853, 32817)


def test_the_stage_that_a_condition_names_is_tied_to_it(slice_: Slice) -> None:
    tumour = slice_.one("Condition", "tumour", "condition_occurrence")["condition_occurrence_id"]
    stage = slice_.one("Observation", "stage-group", "measurement")
    assert tied_to(stage, "measurement") == (tumour, 1147127)


def test_what_was_refuted_has_no_details(slice_: Slice) -> None:
    assert slice_.of("Condition", "refuted") == {}


# --- mCODE (VARIABLES.md names the profiles) ---

PRIMARY = {"reference": "Condition/primary"}


def finding(identity: str, loinc: str, value: dict[str, Any], focus: str = "primary", **more: Any) -> dict[str, Any]:
    made = resource("Observation", identity, code=concept((LOINC, loinc)), focus=[{"reference": f"Condition/{focus}"}])
    del made["valueQuantity"]
    return made | value | more


def coded(system: str, code: str) -> dict[str, Any]:
    return {"valueCodeableConcept": concept((system, code))}


def percent(number: float) -> dict[str, Any]:
    return {"valueQuantity": {"value": number, "unit": "%", "code": "%", "system": UCUM}}


MCODE = [
    patient(),
    # PrimaryCancerCondition: asserted, not seen to begin
    resource("Condition", "primary", onsetDateTime=None, extension=[{"url": ASSERTED, "valueDateTime": "2020-02-03"}]),
    # SecondaryCancerCondition: one whose concept is a condition, one whose concept is a modifier of the tumour
    resource(
        "Condition",
        "liver",
        code=concept((SNOMED, "94381002")),
        extension=[{"url": RELATED, "valueReference": PRIMARY}],
    ),
    resource(
        "Condition",
        "brain",
        code=concept(("http://hl7.org/fhir/sid/icd-10", "C79.3")),
        extension=[{"url": RELATED, "valueReference": PRIMARY}],
    ),
    resource(
        "Condition",
        "skin",
        code=concept(("http://hl7.org/fhir/sid/icd-10", "C79.2")),
        extension=[{"url": RELATED_MCODE, "valueReference": PRIMARY}],
    ),
    # TumorMarkerTest, HistologicGrade, TNMStageGroup and categories, CancerDiseaseStatus, ECOGPerformanceStatus
    finding("er", "85337-4", percent(90)),
    finding("pgr", "85339-0", percent(5)),
    finding("her2", "85319-2", coded("urn:palmares:her2-ihc", "1+")),
    finding("her2-of-metastasis", "85319-2", coded("urn:palmares:her2-ihc", "2+"), focus="brain"),
    finding("grade", "44648-4", coded("urn:palmares:grade", "2")),
    finding("stage", "21908-9", {"valueString": "IV"}),
    finding("t", "21905-5", {"valueString": "T2"}),
    finding("m", "21907-1", {"valueString": "M1"}),
    finding("status", "718-7", {}, code=concept(("urn:palmares:tumour-response", "PD"))),
    resource("Observation", "ecog", code=concept((LOINC, "89247-1")), **coded(LOINC, "LA9623-5")),
    # HumanSpecimen, CancerRelatedSurgicalProcedure, RadiotherapyCourseSummary
    resource("Specimen", "sample"),
    resource("Procedure", "surgery", bodySite=[site("76752008", "7771000")]),
    resource("Procedure", "radiotherapy", code=concept((SNOMED, "108290001")), bodySite=[site("76752008")]),
]
# resource | table | concept | value | tied to the primary (yes), to the metastasis (meta), or to nothing (no)
PROFILES = """
primary            | condition_occurrence | 4112853  |          | no
liver              | condition_occurrence | 198700   |          | no
brain              | measurement          | 36768862 |          | yes
skin               | measurement          | 35225673 |          | yes
er                 | measurement          | 36203168 | 90       | yes
pgr                | measurement          | 36203170 | 5        | yes
her2               | measurement          | 36203114 | 45878548 | yes
her2-of-metastasis | measurement          | 36203114 | 45881916 | meta
grade              | measurement          | 3047285  | 1634752  | yes
stage              | measurement          | 3022698  |          | yes
t                  | measurement          | 3008841  |          | yes
m                  | measurement          | 3006575  |          | yes
status             | measurement          | 1633597  |          | yes
ecog               | measurement          | 36305384 | 36310827 | no
sample             | specimen             | 4001225  |          | no
surgery            | procedure_occurrence | 4213045  |          | no
radiotherapy       | procedure_occurrence | 4029715  |          | no
"""


def without_nulls(value: dict[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in value.items() if one is not None}


def test_mcode_profiles_with_their_modifiers_tied_to_the_condition(tmp_path: Path) -> None:
    found = mapped(tmp_path, map(without_nulls, MCODE))
    kinds = {one["id"]: one["resourceType"] for one in MCODE}
    primary = found.one("Condition", "primary", "condition_occurrence")
    assert str(primary["condition_start_date"]) == "2020-02-03"
    brain = found.one("Condition", "brain", "measurement")
    ties = {
        "yes": (primary["condition_occurrence_id"], 1147127),
        "meta": (brain["measurement_id"], 1147138),
        "no": (None, None),
    }
    for line in PROFILES.strip().splitlines():
        name, table, target, value, tie = (part.strip() for part in line.split("|"))
        row = found.one(kinds[name], name, table)
        column = {"condition_occurrence": "condition", "procedure_occurrence": "procedure"}.get(table, table)
        assert row[f"{column}_concept_id"] == int(target), name
        if value:
            assert float(value) in (row["value_as_number"], row["value_as_concept_id"]), name
        if table == "measurement":
            assert tied_to(row, table) == ties[tie], name


def variant(identity: str, frequency: float, **more: Any) -> dict[str, Any]:
    """mCODE's GenomicVariant: present, in which share of the alleles."""
    one = resource("Observation", identity, code=concept((LOINC, "69548-6")), **more)
    del one["valueQuantity"]
    part = {"code": concept((LOINC, "81258-6")), "valueQuantity": {"value": frequency, "code": "1", "system": UCUM}}
    return one | coded(LOINC, "LA9633-4") | {"component": [part]}


def test_a_component_belongs_to_its_observation(tmp_path: Path) -> None:
    """Two variants of one day: which share is whose. Of a panel that says nothing itself the parts stand alone."""
    panel = resource("Observation", "panel", code=concept((LOINC, "85354-9")))
    del panel["valueQuantity"]
    panel["component"] = [{"code": concept((LOINC, "8480-6")), "valueInteger": 120}]
    found = mapped(
        tmp_path,
        [
            patient(),
            resource("Condition", "tumour"),
            variant("pik3ca", 0.31),
            variant("esr1", 0.07),
            variant("focused", 0.5, focus=[{"reference": "Condition/tumour"}]),
            panel,
        ],
    )
    for name, frequency in (("pik3ca", 0.31), ("esr1", 0.07)):
        rows = found.of("Observation", name)
        [(table, own)] = [(kind, row) for kind, all_ in rows.items() for row in all_ if row["value_as_number"] is None]
        [part] = [row for all_ in rows.values() for row in all_ if row["value_as_number"] == frequency]
        field = {"measurement": 1147138, "observation": 1147165}[table]
        assert tied_to(part, "measurement") == (own[f"{table}_id"], field)
        assert tied_to(own, table) == (None, None)
    tumour = found.one("Condition", "tumour", "condition_occurrence")["condition_occurrence_id"]
    for table, rows_ in found.of("Observation", "focused").items():
        assert {tied_to(row, table) for row in rows_} == {(tumour, 1147127)}
    assert tied_to(found.one("Observation", "panel", "measurement"), "measurement") == (None, None)
