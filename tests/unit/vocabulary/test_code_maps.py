"""Folders of code maps that do not fit, and the table of systems."""

import csv

import pytest

from fhir_adapters.errors import PalmaresError
from fhir_adapters.knowledge import table
from omop_etl.vocabulary.code_maps import USAGI_COLUMNS, read_folder, study_folder, systems_of
from omop_etl.vocabulary.systems import FORMS, candidates, system_key
from tests.vocabulary_helpers import write_maps

SYSTEM = "http://www.whocc.no/atc"
ROW = {"sourceCode": "L01", "conceptId": 5}


def refused(folder):
    with pytest.raises(PalmaresError) as caught:
        read_folder(folder, "site")
    assert caught.value.code == "E-VOC-03"
    return caught.value


def test_an_absent_folder_has_no_rows(tmp_path):
    assert read_folder(tmp_path / "none", "site") == []


def test_rows_come_by_file_and_line(tmp_path):
    folder = write_maps(tmp_path / "codes", {"b.csv": (SYSTEM, [ROW, ROW]), "a.csv": ("urn:x", [ROW])})
    rows = read_folder(folder, "site")
    assert [(row.keys, row.place) for row in rows] == [
        (("urn:x",), 0),
        (("vocabulary:ATC",), 1),
        (("vocabulary:ATC",), 2),
    ]


@pytest.mark.parametrize(
    "bad",
    [
        {"sourceCode": "", "conceptId": 5},
        {"sourceCode": "Mario Rossi", "conceptId": ""},
        {"sourceCode": "Mario Rossi", "conceptId": "x"},
        {"sourceCode": "Mario Rossi", "conceptId": -1},
        {"sourceCode": "Mario Rossi", "conceptId": 2**31},
        {"sourceCode": "Mario Rossi", "conceptId": 5, "mappingType": "MAPS_TO_UNIT"},
    ],
)
def test_approved_rows_that_do_not_fit_are_counted(tmp_path, bad):
    error = refused(write_maps(tmp_path / "codes", {"a.csv": (SYSTEM, [ROW, bad, bad])}))
    assert (error.subject, error.count) == ("codes/a.csv", 2)
    assert "Mario" not in str(error)


def test_rows_that_are_not_approved_may_hold_anything(tmp_path):
    folder = write_maps(tmp_path / "codes", {"a.csv": (SYSTEM, [{"mappingStatus": "UNCHECKED"}, ROW])})
    assert len(read_folder(folder, "site")) == 1


def test_files_and_systems_must_agree(tmp_path):
    folder = write_maps(tmp_path / "codes", {"a.csv": (SYSTEM, [ROW])})
    (folder / "b.csv").write_text("sourceCode\n")
    assert refused(folder).count == 1
    (folder / "b.csv").unlink()
    (folder / "a.csv").unlink()
    refused(folder)
    (folder / "_systems.csv").unlink()
    refused(folder)


def test_systems_may_not_point_outside_the_folder(tmp_path):
    (tmp_path / "a.csv").write_text("sourceCode\n")
    folder = write_maps(tmp_path / "codes", {})
    (folder / "_systems.csv").write_text("file,system\n../a.csv,x\n")
    refused(folder)


@pytest.mark.parametrize("content", [b"sourceCode\nx\n", b"\xff\xfe", b'sourceCode,mappingStatus,conceptId\n"x\n'])
def test_a_file_that_is_no_code_map(tmp_path, content):
    folder = write_maps(tmp_path / "codes", {"a.csv": (SYSTEM, [ROW])})
    (folder / "a.csv").write_bytes(content)
    refused(folder)


def test_lines_with_another_number_of_columns(tmp_path):
    folder = write_maps(tmp_path / "codes", {"a.csv": (SYSTEM, [ROW])})
    (folder / "a.csv").write_text("sourceCode,mappingStatus,conceptId\nx,APPROVED\nx,APPROVED,1,2\n")
    assert refused(folder).count == 2


# the study's own maps


def test_the_study_maps_have_usagis_columns_and_a_source_in_each_comment():
    for name in systems_of(study_folder()):
        with (study_folder() / name).open(encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            assert tuple(reader.fieldnames) == USAGI_COLUMNS
            for row in reader:
                assert "code: " in row["comment"]
                assert f"concept {row['conceptId']}: " in row["comment"] or row["conceptId"] == "0"


def test_no_code_is_mapped_twice():
    rows = read_folder(study_folder(), "study")
    assert len({(row.keys, row.code) for row in rows}) == len(rows) > 250


# the table of systems


def test_systems_and_forms():
    rows = table("codes", "fhir_systems.csv")
    assert {row["form"] for row in rows} - {""} <= set(FORMS)
    assert len({(system_key(row["system"]), row["vocabulary_id"]) for row in rows}) == len(rows)
    assert all(0 < len(row["vocabulary_id"]) <= 20 for row in rows)  # CDM: varchar(20)


@pytest.mark.parametrize(
    "system, vocabulary_id",
    [
        ("http://snomed.info/sct", "SNOMED"),
        ("http://www.nlm.nih.gov/research/umls/rxnorm", "RxNorm"),
        ("http://loinc.org", "LOINC"),
        ("http://hl7.org/fhir/sid/icd-10", "ICD10"),
        ("http://hl7.org/fhir/sid/icd-10-cm", "ICD10CM"),
        ("http://hl7.org/fhir/sid/icd-9-cm", "ICD9CM"),
        ("http://www.cms.gov/Medicare/Coding/ICD10", "ICD10PCS"),
        ("http://www.ama-assn.org/go/cpt", "CPT4"),
        ("https://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets", "HCPCS"),
        ("urn:oid:2.16.840.1.113883.6.285", "HCPCS"),
        ("http://hl7.org/fhir/sid/ndc", "NDC"),
        ("http://hl7.org/fhir/sid/cvx", "CVX"),
        ("http://unitsofmeasure.org", "UCUM"),
        ("http://www.whocc.no/atc", "ATC"),
        ("http://terminology.hl7.org/CodeSystem/icd-o-3", "ICDO3"),
        ("http://dicom.nema.org/resources/ontology/DCM", "DICOM"),
        ("https://hemonc.org", "HemOnc"),
        ("urn:oid:2.16.840.1.113883.2.9.6.1.5", "AIC"),
        ("urn:oid:2.16.840.1.113883.6.238", "CDC race"),
    ],
)
def test_systems_that_hospitals_use(system, vocabulary_id):
    assert candidates(system, "x")[0][2] == vocabulary_id


@pytest.mark.parametrize(
    "form, code, expected",
    [
        ("upper", " l01ef01 ", "L01EF01"),
        ("icd", "c509", "C50.9"),
        ("icd", "C50", "C50"),
        ("icd", "e8490", "E849.0"),
        ("icd", "V103", "V10.3"),
        ("icd", "1749", "174.9"),
        ("icd9proc", "8541", "85.41"),
        ("icd9proc", "85", "85"),
        ("ndc", "13668-0219-90", "13668021990"),
        ("ndc", "0071-0155-23", "00071015523"),
        ("ndc", "00071-155-23", "00071015523"),
        ("ndc", "13668021990", "13668021990"),
        ("two_digits", "8", "08"),
        ("two_digits", "121", "121"),
        ("aic", "A012745093", "012745093"),
        ("aic", "12745093", "012745093"),
        ("aic", "-", ""),
    ],
)
def test_forms(form, code, expected):
    assert FORMS[form](code) == expected


_PERSONAL = ("vocabulary:CDC race", "vocabulary:FHIR gender", "vocabulary:v3 gender")


def test_the_code_sets_of_fhir_say_the_same():
    """Race, ethnicity and gender also stand in `mappings/codes/fhir`, for Patient; here they serve codings anywhere."""
    sets = {
        row["code"]: int(value)
        for name in ("race", "ethnicity", "gender")
        for row in table("codes", "fhir", f"{name}.csv")
        for value in [row[f"{name}_concept_id"]]
    }
    mine = [row for row in read_folder(study_folder(), "study") if row.keys[0] in _PERSONAL]
    assert len(mine) > 10
    assert not [row.code for row in mine if sets.get(row.code, row.concept_id) != row.concept_id]
