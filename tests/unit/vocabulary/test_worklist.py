"""The worklist: unmapped codes → Usagi → reviewed → the next run uses them."""

import csv
from datetime import date

import pytest

from fhir_adapters.errors import PalmaresError
from omop_etl.vocabulary import open_vocabulary
from omop_etl.vocabulary.code_maps import USAGI_COLUMNS, read_folder, systems_of
from omop_etl.vocabulary.worklist import review, unmapped
from tests.vocabulary_helpers import concept, resolve, site_with, write_athena, write_maps

COLUMNS = ["site", "vocabulary_id", "source_system", "source_code", "source_name", "cdm_field", "records", "reason"]
LOCAL = "urn:palmares:site:prova:diagnosi"
ATC = "http://www.whocc.no/atc"
REVIEWED = date(2026, 3, 4)
MILLISECONDS = "1772582400000"


def slice_with(folder, rows):
    folder.mkdir(parents=True)
    with (folder / "unmapped.csv").open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    return folder


def read(path):
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def rewrite(path, change):
    """What a person does in Usagi, then Save as."""
    rows = [row for old in read(path) for row in change(old)]
    with path.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def slices(tmp_path):
    return [
        slice_with(
            tmp_path / "a",
            [
                ["a", "", LOCAL, "K1", "", "condition_concept_id", 5, "unknown-system"],
                ["a", "ATC", ATC, "X99", "nuovo", "drug_concept_id", 30, "unknown-code"],
                [
                    "a",
                    "PALMARES stop reason",
                    "urn:palmares:stop-reason",
                    "other",
                    "",
                    "x",
                    9,
                    "approved-without-concept",
                ],
            ],
        ),
        slice_with(
            tmp_path / "b",
            [
                ["b", "ATC", ATC, "X99", 'nuovo "farmaco", compresse', "drug_concept_id", 70, "unknown-code"],
                ["b", "", LOCAL, "K1", "", "measurement_concept_id", 1, "unknown-system"],
                ["b", "", LOCAL, "K2", "", "condition_concept_id", 2, "unknown-system"],
            ],
        ),
    ]


@pytest.fixture
def small(tmp_path):
    concepts = [
        concept(10, "SNOMED", "100", name="one"),
        concept(11, "SNOMED", "110", domain="Meas Value"),
        concept(12, "SNOMED", "120", standard=""),
        concept(13, "SNOMED", "130", standard="", invalid="D"),
    ]
    return open_vocabulary(write_athena(tmp_path / "athena", concepts))


def test_ranked_by_records_over_all_sites(slices, tmp_path):
    worklist = unmapped(slices, tmp_path / "out.csv")
    assert [(code.code, code.records, code.name) for code in worklist.codes] == [
        ("X99", 100, 'nuovo "farmaco", compresse'),
        ("K1", 6, ""),
        ("K2", 2, ""),
    ]
    assert worklist.records == 108
    assert worklist.by_site == (("a", ATC, 1, 30), ("a", LOCAL, 1, 5), ("b", ATC, 1, 70), ("b", LOCAL, 2, 3))


def test_the_file_is_one_that_usagi_opens(slices, tmp_path):
    unmapped(slices, tmp_path / "out.csv")
    rows = read(tmp_path / "out.csv")
    assert tuple(rows[0])[: len(USAGI_COLUMNS)] == USAGI_COLUMNS
    assert all(name.startswith("ADD_INFO:") for name in list(rows[0])[len(USAGI_COLUMNS) :])
    for row in rows:  # what Usagi parses when it opens a file
        int(row["sourceFrequency"]), int(row["conceptId"]), int(row["statusSetOn"]), int(row["createdOn"])
        float(row["matchScore"])
        assert (row["mappingStatus"], row["equivalence"], row["mappingType"]) == ("UNCHECKED", "UNREVIEWED", "MAPS_TO")
        assert row["sourceName"]
    assert rows[1]["ADD_INFO:sites"] == "a; b" and rows[1]["ADD_INFO:system"] == LOCAL


def test_what_was_settled_comes_back_only_when_asked(slices, tmp_path):
    codes = unmapped(slices, tmp_path / "out.csv", settled=True).codes
    assert [code.code for code in codes] == ["X99", "other", "K1", "K2"]


def test_what_no_code_map_mends_is_counted_apart(tmp_path):
    rows = [
        ["a", "", "", "fucsia", "", "person.gender_concept_id", 3, "not-in-code-set"],
        ["a", "", "", "", "", "condition_occurrence.condition_concept_id", 4, "no-code"],
    ]
    worklist = unmapped([slice_with(tmp_path / "a", rows)], tmp_path / "out.csv")
    assert (worklist.codes, worklist.elsewhere) == ((), 7)


def test_nothing_unmapped_is_an_empty_file_with_a_header(tmp_path):
    assert unmapped([slice_with(tmp_path / "a", [])], tmp_path / "out.csv").codes == ()
    assert (tmp_path / "out.csv").read_text().startswith("sourceCode,")


def test_a_folder_that_is_no_slice(tmp_path):
    with pytest.raises(PalmaresError, match="E-SLICE-01"):
        unmapped([tmp_path], tmp_path / "out.csv")
    with pytest.raises(PalmaresError, match="E-SLICE-02"):
        unmapped([slice_with(tmp_path / "a", [["a", "", "", "", "", "", "many", ""]])], tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


# and back


def approve(**values):
    return lambda row: [row | {"mappingStatus": "APPROVED"} | {key: str(value) for key, value in values.items()}]


def test_round_trip(slices, tmp_path, small):
    """unmapped → Usagi → reviewed → the next resolution uses it, with equivalence, comment, reviewer and date."""
    site = site_with(tmp_path / "codes")
    unmapped(slices, tmp_path / "work.csv")

    def person(row):
        row = row | {"assignedReviewer": "second", "statusSetBy": "usagi user", "statusSetOn": "1"}
        if row["sourceCode"] == "K1":
            told = row | {"mappingStatus": "APPROVED", "equivalence": "WIDER", "comment": "detto, da tutti"}
            return [told | {"conceptId": "10"}, told | {"conceptId": "11", "mappingType": "MAPS_TO_VALUE"}]
        if row["sourceCode"] == "K2":
            return [row | {"mappingStatus": "APPROVED", "equivalence": "UNMATCHED"}]
        return [row]

    rewrite(tmp_path / "work.csv", person)
    taken = review(tmp_path / "work.csv", scope=site, reviewer="Anna Bianchi", reviewed_on=REVIEWED, vocabulary=small)
    assert (taken.codes, taken.rows, taken.without_concept, taken.not_approved) == (2, 3, 1, 1)
    (written,) = taken.files
    assert written.name == "palmares-site-prova-diagnosi.csv" and systems_of(site.codes)[written.name][0] == LOCAL
    rows = read(written)
    assert tuple(rows[0]) == USAGI_COLUMNS
    assert {(row["statusSetBy"], row["statusSetOn"]) for row in rows} == {("Anna Bianchi", MILLISECONDS)}
    assert (rows[0]["equivalence"], rows[0]["comment"], rows[0]["assignedReviewer"]) == (
        "WIDER",
        "detto, da tutti",
        "second",
    )
    assert (rows[0]["conceptName"], rows[0]["domainId"], rows[0]["sourceFrequency"]) == ("one", "Condition", "6")

    found = resolve(small, [(LOCAL, "K1"), (LOCAL, "K2"), (LOCAL, "K3")], site=site)
    (row,) = found[(LOCAL, "K1")]
    assert (row["target_concept_id"], row["value_concept_id"], row["origin"]) == (10, 11, "site")
    assert found[(LOCAL, "K2")][0]["reason"] == "approved-without-concept"
    assert found[(LOCAL, "K3")][0]["reason"] == "unknown-code"


def test_the_study_takes_codes_into_the_file_of_their_vocabulary(slices, tmp_path, small, monkeypatch):
    study = write_maps(tmp_path / "study", {"atc.csv": (ATC, [{"sourceCode": "L01", "conceptId": 10}])})
    (study / "README.md").write_text("kept")
    monkeypatch.setattr("omop_etl.vocabulary.worklist.study_folder", lambda: study)
    unmapped(slices, tmp_path / "work.csv")
    rewrite(tmp_path / "work.csv", lambda row: approve(conceptId=10)(row) if row["sourceCode"] == "X99" else [row])
    taken = review(tmp_path / "work.csv", scope="study", reviewer="x", reviewed_on=REVIEWED, vocabulary=small)
    assert [path.name for path in taken.files] == ["atc.csv"]
    assert [row.code for row in read_folder(study, "study")] == ["L01", "X99"]
    assert (study / "README.md").read_text() == "kept"
    assert {path.name for path in tmp_path.iterdir()} >= {"study"} and not list(tmp_path.glob(".study*"))


def one_row(tmp_path, rows, extra=None):
    path = tmp_path / "reviewed.csv"
    names = (*USAGI_COLUMNS, *(extra or ("ADD_INFO:system",)))
    with path.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, names, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows({"mappingStatus": "APPROVED", "ADD_INFO:system": LOCAL, **row} for row in rows)
    return path


def take(tmp_path, rows, small, **options):
    site = site_with(tmp_path / "codes")
    path = one_row(tmp_path, rows, options.pop("extra", None))
    return review(path, scope=site, reviewer="x", reviewed_on=REVIEWED, vocabulary=small, **options)


@pytest.mark.parametrize(
    "rows, rule",
    [
        ([{"sourceCode": "Mario Rossi", "conceptId": 999}], "does not hold"),
        ([{"sourceCode": "Mario Rossi", "conceptId": "dieci"}], "does not hold"),
        ([{"sourceCode": "Mario Rossi", "conceptId": 12}], "not standard"),
        ([{"sourceCode": "Mario Rossi", "conceptId": 13}], "no longer valid"),
        ([{"sourceCode": "", "conceptId": 10}], "no code"),
        ([{"sourceCode": "Mario Rossi", "conceptId": 10, "mappingType": "MAPS_TO_UNIT"}], "mapping type"),
    ],
)
def test_rows_that_cannot_be_taken_are_counted(tmp_path, small, rows, rule):
    with pytest.raises(PalmaresError) as caught:
        take(tmp_path, [*rows, *rows, {"sourceCode": "K1", "conceptId": 10}], small)
    assert (caught.value.code, caught.value.count) == ("E-VOC-04", 2)
    assert rule in str(caught.value) and "Mario" not in str(caught.value)
    assert not (tmp_path / "codes").exists()


def test_a_code_cannot_have_a_concept_and_none(tmp_path, small):
    rows = [{"sourceCode": "K1", "conceptId": 10}, {"sourceCode": "K1", "conceptId": 0}]
    with pytest.raises(PalmaresError, match="with a concept and with none: 2"):
        take(tmp_path, rows, small)


def test_rows_that_are_refused_are_named_by_their_place(tmp_path, small):
    rows = [{"sourceCode": f"K{n}", "conceptId": 10 if n == 2 else 987654321} for n in range(8)]
    with pytest.raises(PalmaresError, match=r"does not hold: 7 \(rows 2, 3, 5, 6, 7 and more\)"):
        take(tmp_path, rows, small)


def test_an_empty_folder_takes_its_first_review(tmp_path, small):
    (tmp_path / "codes").mkdir()
    assert take(tmp_path, [{"sourceCode": "K1", "conceptId": 10}], small).codes == 1


def test_a_file_without_systems_needs_one(tmp_path, small):
    rows = [{"sourceCode": "K1", "conceptId": 10}]
    with pytest.raises(PalmaresError, match="system is not told"):
        take(tmp_path, rows, small, extra=("ADD_INFO:other",))
    assert take(tmp_path, rows, small, extra=("ADD_INFO:other",), system=LOCAL).rows == 1
    assert read_folder(tmp_path / "codes", "site")[0].keys == (LOCAL,)


def test_an_earlier_review_holds_unless_replaced(tmp_path, small):
    take(tmp_path, [{"sourceCode": "K1", "conceptId": 10}, {"sourceCode": "K0", "conceptId": 10}], small)
    assert take(tmp_path, [{"sourceCode": "K1", "conceptId": 10, "comment": "again"}], small).rows == 1
    with pytest.raises(PalmaresError) as caught:
        take(tmp_path, [{"sourceCode": "K1", "conceptId": 11}, {"sourceCode": "K2", "conceptId": 10}], small)
    assert (caught.value.code, caught.value.count) == ("E-VOC-05", 1)
    assert [row.code for row in read_folder(tmp_path / "codes", "site")] == ["K0", "K1"]
    take(tmp_path, [{"sourceCode": "K1", "conceptId": 11}], small, replace=True)
    assert {row.code: row.concept_id for row in read_folder(tmp_path / "codes", "site")} == {"K0": 10, "K1": 11}


def test_the_same_row_twice_is_one_row(tmp_path, small):
    assert take(tmp_path, [{"sourceCode": "K1", "conceptId": 10}] * 3, small).rows == 1


def test_codes_without_a_system(tmp_path, small):
    take(tmp_path, [{"sourceCode": "tumore", "conceptId": 10, "ADD_INFO:system": ""}], small)
    assert systems_of(tmp_path / "codes") == {"without-system.csv": ("", "")}


def test_nothing_approved_changes_nothing(tmp_path, small):
    assert take(tmp_path, [{"sourceCode": "K1", "mappingStatus": "IGNORED"}], small).files == ()
    assert not (tmp_path / "codes").exists()


def test_a_site_without_a_folder_of_code_maps(tmp_path, small):
    site = site_with(tmp_path / "codes")
    path = one_row(tmp_path, [{"sourceCode": "K1", "conceptId": 10}])
    with pytest.raises(PalmaresError, match="E-SITE-02"):
        review(path, scope=type(site)("x", "x", "UTC", tmp_path), reviewer="x", reviewed_on=REVIEWED, vocabulary=small)
    with pytest.raises(PalmaresError, match="no reviewer"):
        review(path, scope=site, reviewer=" ", reviewed_on=REVIEWED, vocabulary=small)


def test_a_file_that_usagi_did_not_save(tmp_path, small):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(PalmaresError, match="E-VOC-03"):
        review(
            tmp_path / "x.csv",
            scope=site_with(tmp_path / "codes"),
            reviewer="x",
            reviewed_on=REVIEWED,
            vocabulary=small,
        )
