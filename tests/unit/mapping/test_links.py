"""What a record is tied to: person, visit, staff, place, the tumour that was looked at."""

from typing import Any

import pytest

from tests.mapping_helpers import LOINC, SNOMED, Slice, concept, mapped, patient, resource

AMB, IMP = {"code": "AMB"}, {"code": "IMP"}


def visit(identity: str, start: str | None, end: str | None = None, of: str = "p", **more: Any) -> dict[str, Any]:
    period = {name: text for name, text in (("start", start), ("end", end)) if text}
    return resource("Encounter", identity, of, **({"class": AMB, "period": period} | more))


def at(identity: str, day: str, encounter: str | None = None, of: str = "p", **more: Any) -> dict[str, Any]:
    link = {"encounter": {"reference": f"Encounter/{encounter}"}} if encounter else {}
    return resource("Observation", identity, of, effectiveDateTime=day, **link, **more)


RESOURCES = [
    patient(),
    patient("q"),
    patient("old", link=[{"type": "replaced-by", "other": {"reference": "Patient/newer"}}]),
    patient("newer", link=[{"type": "replaced-by", "other": {"reference": "Patient/newest"}}]),
    patient("newest"),
    patient("a", link=[{"type": "replaced-by", "other": {"reference": "Patient/b"}}]),
    patient("b", link=[{"type": "replaced-by", "other": {"reference": "Patient/a"}}]),
    # an old file often keeps no more than the link
    patient("bare", birthDate=None, link=[{"type": "replaced-by", "other": {"reference": "Patient/bare-too"}}]),
    patient("bare-too", birthDate=None, link=[{"type": "replaced-by", "other": {"reference": "Patient/newest"}}]),
    patient("bare-lost", birthDate=None, link=[{"type": "replaced-by", "other": {"reference": "Patient/gone"}}]),
    patient("born-lost", link=[{"type": "replaced-by", "other": {"reference": "Patient/bare-lost"}}]),
    *(
        patient(f"ring-{n}", link=[{"type": "replaced-by", "other": {"reference": f"Patient/ring-{(n + 1) % 3}"}}])
        for n in range(3)
    ),
    *(
        patient(
            f"bare-ring-{n}",
            birthDate=None,
            link=[{"type": "replaced-by", "other": {"reference": f"Patient/bare-ring-{1 - n}"}}],
        )
        for n in range(2)
    ),
    patient("into-the-ring", link=[{"type": "replaced-by", "other": {"reference": "Patient/ring-1"}}]),
    patient("itself", link=[{"type": "replaced-by", "other": {"reference": "Patient/itself"}}]),
    *(
        patient(f"far-{n}", link=[{"type": "replaced-by", "other": {"reference": f"Patient/far-{n + 1}"}}])
        for n in range(20)
    ),
    patient("far-20"),
    visit("v1", "2020-01-10", "2020-01-12", **{"class": IMP}),
    visit("v2", "2020-02-01", "2020-02-01"),
    visit("v3", "2020-02-01", "2020-02-01"),
    visit("q1", "2020-01-10", "2020-01-10", of="q"),
    at("by-reference", "2020-05-05", "v1"),
    at("by-date", "2020-01-11"),
    at("on-the-last-day", "2020-01-12T23:00:00+01:00"),
    at("of-two-visits", "2020-02-01"),
    at("of-none", "2020-03-01"),
    at("of-anothers-visit", "2020-01-10", "q1"),
    at("unresolvable", "2020-01-11", "nowhere"),
    resource("Observation", "logical", effectiveDateTime="2020-01-11", encounter={"identifier": {"value": "7"}}),
    resource("DocumentReference", "letter", date="2020-01-11T10:00:00Z"),
    # a stay, a ward in it, a service on the ward
    visit(
        "stay",
        "2021-01-01",
        "2021-01-20",
        **{"class": IMP},
        hospitalization={
            "admitSource": concept(("a", "emd")),
            "dischargeDisposition": concept(("d", "home")),
        },
    ),
    visit("ward", "2021-01-02", "2021-01-10", partOf={"reference": "Encounter/stay"}),
    visit("service", "2021-01-03", "2021-01-03", partOf={"reference": "Encounter/ward"}),
    at("in-the-ward", "2021-01-05", "ward"),
    at("in-the-service", "2021-01-03", "service"),
    visit("circle-1", "2021-05-01", partOf={"reference": "Encounter/circle-2"}),
    visit("circle-2", "2021-05-01", partOf={"reference": "Encounter/circle-1"}),
    visit("part-of-anothers", "2021-06-01", partOf={"reference": "Encounter/q1"}),
    # visits without dates of their own
    visit("undated", None),
    at("first", "2022-01-05", "undated"),
    at("last", "2022-01-07", "undated"),
    visit("empty", None),
    visit("ongoing", "2022-02-01", **{"class": IMP, "status": "in-progress"}),
    at("in-it", "2022-02-09", "ongoing"),
    visit("outpatient", "2022-03-01", status="in-progress"),
    at("later", "2022-03-20", "outpatient"),
    visit("ends-only", None, "2022-04-02"),
    # staff and places
    {"resourceType": "Practitioner", "id": "s1", "gender": "male"},
    {"resourceType": "Practitioner", "id": "s2"},
    {
        "resourceType": "PractitionerRole",
        "id": "r1",
        "practitioner": {"reference": "Practitioner/s1"},
        "organization": {"reference": "Organization/o"},
    },
    {"resourceType": "Organization", "id": "o", "name": "Ospedale"},
    {"resourceType": "Location", "id": "l", "name": "Reparto"},
    at("by-staff", "2020-01-11", performer=[{"reference": "Organization/o"}, {"reference": "Practitioner/s1"}]),
    at("by-role", "2020-01-11", performer=[{"reference": "PractitionerRole/r1"}]),
    at("by-urn-of-role", "2020-01-11", performer=[{"reference": "urn:uuid:r1"}]),
    at("by-nobody-known", "2020-01-11", performer=[{"reference": "Practitioner/s9"}]),
    visit(
        "in-place",
        "2020-09-01",
        serviceProvider={"reference": "Organization/o"},
        participant=[{"individual": {"reference": "Practitioner/s2"}}],
    ),
    visit("in-room", "2020-09-02", location=[{"location": {"reference": "Location/l"}}]),
    patient(
        "tied",
        generalPractitioner=[{"reference": "Organization/o"}, {"reference": "Practitioner/s1"}],
        managingOrganization={"reference": "Organization/o"},
    ),
    # replaced files
    resource("Condition", "of-old", "old"),
    resource("Condition", "of-newest", "newest"),
    resource("Condition", "of-a", "a"),
    *(
        resource("Condition", f"of-{name}", name)
        for name in (
            "bare",
            "bare-too",
            "bare-lost",
            "born-lost",
            "ring-0",
            "bare-ring-0",
            "into-the-ring",
            "itself",
            "far-0",
        )
    ),
    # urn, absolute, with a version
    resource("Condition", "urn", subject={"reference": "urn:uuid:p"}),
    resource("Condition", "absolute", subject={"reference": "https://x.example/fhir/Patient/p/_history/2"}),
    # what was looked at
    resource("Condition", "tumour"),
    resource("Observation", "marker", code=concept((LOINC, "85337-4")), focus=[{"reference": "Condition/tumour"}]),
    resource("Observation", "of-marker", focus=[{"reference": "Observation/marker"}]),
    resource("Observation", "of-nothing", focus=[{"reference": "Condition/gone"}]),
    resource("Observation", "of-tumour-by-urn", focus=[{"reference": "urn:uuid:tumour"}]),
]


@pytest.fixture(scope="module")
def slice_(tmp_path_factory: pytest.TempPathFactory) -> Slice:
    return mapped(tmp_path_factory.mktemp("links"), RESOURCES)


def visit_id(slice_: Slice, identity: str) -> int:
    return slice_.one("Encounter", identity, "visit_occurrence")["visit_occurrence_id"]


@pytest.mark.parametrize(
    ("identity", "encounter"),
    [
        ("by-reference", "v1"),
        ("by-date", "v1"),
        ("on-the-last-day", "v1"),
        ("logical", "v1"),
        ("of-two-visits", None),
        ("of-none", None),
        ("of-anothers-visit", None),
        ("unresolvable", None),
        ("in-the-ward", "stay"),
        ("in-the-service", "stay"),
    ],
)
def test_visit(slice_: Slice, identity: str, encounter: str | None) -> None:
    row = slice_.one("Observation", identity, "measurement")
    assert row["visit_occurrence_id"] == (visit_id(slice_, encounter) if encounter else None)


def test_visits_found_by_date_are_told_apart(slice_: Slice) -> None:
    told = {line["cdm_id"] for line in slice_.rows("side/visit_by_date")}
    ids = {
        name: slice_.one("Observation", name, "measurement")["measurement_id"]
        for name in ("by-date", "by-reference", "logical")
    }
    assert ids["by-date"] in told and ids["logical"] in told and ids["by-reference"] not in told
    clinical = [line for line in slice_.rows("side/visit_by_date") if line["cdm_table"] != "note"]
    assert slice_.manifest()["visit_links"]["by_date"] == len(clinical) == len(told) - 1
    # and the ledger states it
    for kind, name in (("Observation", "by-date"), ("Observation", "logical"), ("DocumentReference", "letter")):
        assert slice_.why(kind, name) == ("written", "V-BY-DATE"), name
    for name in ("by-reference", "of-two-visits", "of-none", "unresolvable"):
        assert slice_.why("Observation", name) == ("written", None), name
    assert not [row for row in slice_.manifest()["exclusions"] if row["reason"] == "V-BY-DATE"]


def test_a_part_of_a_visit_is_its_detail(slice_: Slice) -> None:
    ward, service = (slice_.one("Encounter", name, "visit_detail") for name in ("ward", "service"))
    assert ward["visit_occurrence_id"] == service["visit_occurrence_id"] == visit_id(slice_, "stay")
    assert ward["parent_visit_detail_id"] is None
    assert service["parent_visit_detail_id"] == ward["visit_detail_id"]
    assert slice_.one("Observation", "in-the-ward", "measurement")["visit_detail_id"] == ward["visit_detail_id"]
    # a circle has no whole, and another patient's visit is none of his: they stay visits
    assert all(visit_id(slice_, name) for name in ("circle-1", "circle-2", "part-of-anothers"))


@pytest.mark.requirement("f2o-071")
def test_a_visit_without_a_period_has_the_days_of_its_records(slice_: Slice) -> None:
    def days(identity: str) -> tuple[str, str, int]:
        row = slice_.one("Encounter", identity, "visit_occurrence")
        return str(row["visit_start_date"]), str(row["visit_end_date"]), row["visit_type_concept_id"]

    assert days("undated") == ("2022-01-05", "2022-01-07", 32882)
    assert days("ongoing") == ("2022-02-01", "2022-02-09", 32882)  # an open stay ends with its last record
    assert days("outpatient") == ("2022-03-01", "2022-03-01", 32827)  # an outpatient visit on its day
    assert days("ends-only") == ("2022-04-02", "2022-04-02", 32882)
    assert days("v1") == ("2020-01-10", "2020-01-12", 32827)
    assert slice_.why("Encounter", "empty") == ("excluded", "X-NO-DATE")
    told = {line["cdm_id"] for line in slice_.rows("side/imputed") if line["cdm_table"] == "visit_occurrence"}
    assert told == {visit_id(slice_, name) for name in ("undated", "ongoing", "ends-only")}


def test_staff_and_places(slice_: Slice) -> None:
    provider = slice_.one("Practitioner", "s1", "provider")
    site = slice_.one("Organization", "o", "care_site")
    for name in ("by-staff", "by-role", "by-urn-of-role"):
        assert slice_.one("Observation", name, "measurement")["provider_id"] == provider["provider_id"], name
    assert slice_.one("Observation", "by-nobody-known", "measurement")["provider_id"] is None
    assert provider["care_site_id"] == site["care_site_id"]
    assert (provider["provider_name"], provider["npi"], provider["specialty_concept_id"]) == (None, None, 0)
    place = slice_.one("Encounter", "in-place", "visit_occurrence")
    assert place["care_site_id"] == site["care_site_id"]
    assert place["provider_id"] == slice_.one("Practitioner", "s2", "provider")["provider_id"]
    room = slice_.one("Location", "l", "care_site")
    assert slice_.one("Encounter", "in-room", "visit_occurrence")["care_site_id"] == room["care_site_id"]
    where = slice_.one("Location", "l", "location")
    assert room["location_id"] == where["location_id"]
    # of a place that has no address nothing is told, not even an empty line
    assert {value for name, value in where.items() if name not in ("location_id", "country_concept_id")} == {None}
    tied = slice_.one("Patient", "tied", "person")
    assert (tied["provider_id"], tied["care_site_id"]) == (provider["provider_id"], site["care_site_id"])


def test_a_replaced_file_gives_its_records_to_the_other(slice_: Slice) -> None:
    newest = slice_.one("Patient", "newest", "person")["person_id"]
    for name in ("of-old", "of-newest"):
        assert slice_.one("Condition", name, "condition_occurrence")["person_id"] == newest
    assert slice_.why("Patient", "old") == slice_.why("Patient", "newer") == ("merged", "M-REPLACED")
    # two files that replace each other: neither does
    assert (
        slice_.one("Condition", "of-a", "condition_occurrence")["person_id"]
        == slice_.one("Patient", "a", "person")["person_id"]
    )


@pytest.mark.parametrize(
    ("of", "person"),
    [
        ("bare", "newest"),
        ("bare-too", "newest"),
        ("born-lost", "born-lost"),
        ("ring-0", "ring-0"),
        ("into-the-ring", "ring-1"),
        ("itself", "itself"),
        ("far-0", "far-20"),
    ],
)
def test_whose_records_those_of_a_replaced_file_are(slice_: Slice, of: str, person: str) -> None:
    row = slice_.one("Condition", f"of-{of}", "condition_occurrence")
    assert row["person_id"] == slice_.one("Patient", person, "person")["person_id"]
    assert slice_.why("Patient", of) == (("written", None) if of == person else ("merged", "M-REPLACED"))


@pytest.mark.parametrize("name", ["bare-lost", "bare-ring-0"])
def test_a_replaced_file_without_a_birth_date_whose_other_file_is_not_there_is_no_person(
    slice_: Slice, name: str
) -> None:
    assert slice_.why("Patient", name) == ("excluded", "X-NO-BIRTH-YEAR")
    assert slice_.why("Condition", f"of-{name}") == ("excluded", "X-NO-PERSON")


def test_a_reference_may_be_urn_or_absolute(slice_: Slice) -> None:
    person = slice_.one("Patient", "p", "person")["person_id"]
    for name in ("urn", "absolute"):
        assert slice_.one("Condition", name, "condition_occurrence")["person_id"] == person


def test_a_finding_points_to_what_was_looked_at(slice_: Slice) -> None:
    tumour = slice_.one("Condition", "tumour", "condition_occurrence")["condition_occurrence_id"]
    marker = slice_.one("Observation", "marker", "measurement")
    assert (marker["measurement_event_id"], marker["meas_event_field_concept_id"]) == (tumour, 1147127)
    above = slice_.one("Observation", "of-marker", "measurement")
    assert (above["measurement_event_id"], above["meas_event_field_concept_id"]) == (marker["measurement_id"], 1147138)
    none = slice_.one("Observation", "of-nothing", "measurement")
    assert (none["measurement_event_id"], none["meas_event_field_concept_id"]) == (None, None)
    assert slice_.one("Observation", "of-tumour-by-urn", "measurement")["measurement_event_id"] == tumour


@pytest.mark.requirement("f2o-090")
def test_no_row_points_to_nothing(slice_: Slice) -> None:
    persons = {row["person_id"] for row in slice_.rows("person")}
    visits = {row["visit_occurrence_id"] for row in slice_.rows("visit_occurrence")}
    providers = {row["provider_id"] for row in slice_.rows("provider")}
    for table in ("condition_occurrence", "measurement", "visit_occurrence"):
        for row in slice_.rows(table):
            assert row["person_id"] in persons
            assert row["provider_id"] is None or row["provider_id"] in providers
            assert row["visit_occurrence_id"] is None or row["visit_occurrence_id"] in visits


def test_specialty_comes_from_the_role(tmp_path_factory: pytest.TempPathFactory) -> None:
    from tests.mapping_helpers import tiny_vocabulary

    folder = tmp_path_factory.mktemp("roles")
    vocabulary = tiny_vocabulary(
        folder / "athena",
        [
            (2_000_000_001, "Provider", "Medicare Specialty", "S", "1"),
            (2_000_000_002, "Observation", "SNOMED", "", "62247001"),
        ],
        [(2_000_000_002, 2_000_000_001, "Maps to"), (2_000_000_001, 2_000_000_001, "Maps to")],
    )
    found = mapped(
        folder,
        [
            patient(),
            {"resourceType": "Practitioner", "id": "s"},
            {"resourceType": "PractitionerRole", "id": "1", "practitioner": {"reference": "Practitioner/s"}},
            {
                "resourceType": "PractitionerRole",
                "id": "2",
                "practitioner": {"reference": "Practitioner/s"},
                "specialty": [concept((SNOMED, "62247001"))],
            },
        ],
        vocabulary=vocabulary,
    )
    row = found.one("Practitioner", "s", "provider")
    assert (row["specialty_concept_id"], row["specialty_source_value"], row["specialty_source_concept_id"]) == (
        2_000_000_001,
        "62247001",
        2_000_000_002,
    )


def test_admission_and_discharge(slice_: Slice) -> None:
    stay = slice_.one("Encounter", "stay", "visit_occurrence")
    assert (stay["visit_concept_id"], stay["visit_source_value"]) == (9201, "IMP")
    # no public source gives standard concepts for these codes: they are kept, and stand on the worklist
    assert (stay["admitted_from_source_value"], stay["admitted_from_concept_id"]) == ("emd", 0)
    assert (stay["discharged_to_source_value"], stay["discharged_to_concept_id"]) == ("home", 0)
    listed = {row["source_code"] for row in slice_.unmapped() if "admitted" in row["cdm_field"]}
    assert listed == {"emd"}
