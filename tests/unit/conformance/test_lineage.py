"""Each FHIR element is used or left out with a reason, each OMOP column has its line, and the pages say what the SQL says."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fhir_adapters.knowledge import mappings_folder, table
from fhir_adapters.views.elements import elements
from omop_etl.cdm import tables
from omop_etl.conformance.capabilities import FULLY, filled
from omop_etl.conformance.elements import children, column_elements
from omop_etl.conformance.flow import EVENT, Flow, flow
from omop_etl.conformance.left_out import accounts, left_out, parts, problems
from omop_etl.conformance.lineage import COLUMNS_PAGE, ELEMENTS_PAGE, LOSSES_PAGE, MANIFEST, PART, generated
from omop_etl.mapping.recipes import cdm_selects, recipes

ROOT = Path(__file__).resolve().parents[3]
Edit = Callable[[str, str, str], None]


@pytest.fixture
def edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Edit:
    """A copy of the mapping in use in which one passage of one file is another."""
    folder = tmp_path / "mappings"
    shutil.copytree(
        mappings_folder(), folder, ignore=shutil.ignore_patterns("vocabulary", "studies", "quality", "sites")
    )
    monkeypatch.setenv("PALMARES_MAPPINGS", str(folder))

    def change(file: str, old: str, new: str) -> None:
        text = (folder / file).read_text(encoding="utf-8")
        assert text.count(old) >= 1, f"{file} no longer says {old}"
        (folder / file).write_text(text.replace(old, new, 1), encoding="utf-8")

    return change


@pytest.fixture(scope="module")
def pages() -> dict[Path, str]:
    return generated()


def feeds(found: Flow, cdm_table: str, column: str, resource: str) -> frozenset[str]:
    """The elements of a resource type that reach a CDM column."""
    one = next(each for each in found.tables[cdm_table].columns if each.name == column)
    origins = frozenset().union(*(source.origins for source in one.sources if source.written.resource == resource))
    return found.resources[resource].elements(origins, shown=True)


# --- whole ---


def test_all_of_the_sql_could_be_followed() -> None:
    assert flow().unknown == {}


@pytest.mark.requirement("f2o-080")
def test_every_element_is_used_or_has_a_reason_and_never_both() -> None:
    assert problems(flow()) == []


def test_every_element_of_a_mapped_resource_is_accounted_for() -> None:
    for name, listed in accounts(flow()).items():
        top = {one.path.split(".")[0] for one in listed}
        assert top == {one.name for one in elements(name)}, name
        for one in listed:
            assert bool(one.used) != (one.reason is not None), f"{name}.{one.path}"
        # what is taken apart is taken apart whole
        for path in {one.path.rpartition(".")[0] for one in listed} - {""}:
            below = {one.path for one in listed if one.path.startswith(f"{path}.")}
            assert all(any(at == each or each.startswith(f"{at}.") for each in below) for at, _ in children(name, path))


def test_every_resource_type_of_fhir_is_read_or_has_a_reason() -> None:
    types = {row["resource_type"] for row in table("codes", "fhir", "resource_types.csv")}
    assert types == recipes().keys() | left_out().no_home.keys()
    assert not recipes().keys() & left_out().no_home.keys()


def test_every_part_of_the_common_data_types_is_read_or_has_a_reason() -> None:
    listed = parts(flow())
    assert ("Coding", "code", True, None) in listed
    assert all(used != (reason is not None) for _, _, used, reason in listed)


@pytest.mark.requirement("f2o-122")
def test_every_cdm_table_is_filled_or_has_a_reason() -> None:
    clinical = {name for name, one in tables().items() if one.schema != "vocab"}
    assert clinical == flow().tables.keys() | left_out().tables.keys()
    for name, (how, empty) in filled().items():
        if name in flow().tables:
            assert [one.name for one in flow().tables[name].columns if one.empty] == empty, name
            assert (how == FULLY) == (not empty)


def test_every_column_of_a_filled_table_has_a_line_in_the_order_of_the_cdm(pages: dict[Path, str]) -> None:
    page = pages[COLUMNS_PAGE]
    assert flow().tables.keys() == cdm_selects().keys()
    for name in cdm_selects():
        section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        lines = re.findall(r"^\| (\w+) \| (.+?) \| `(.+)` \| ", section, flags=re.MULTILINE)
        assert [line[0] for line in lines] == list(tables()[name].names), name
        assert all(source not in ("", "–") for _, source, _ in lines), name


def test_a_comment_stands_beside_each_clinical_choice() -> None:
    for name, one in flow().tables.items():
        assert len(one.title) > 5, f"omop/{name}.sql does not say what a row is"
        before = ""
        for column in one.columns:
            text = column.clause.expression
            beside = column.clause.comment
            if re.fullmatch(r"[1-9]\d+", text):
                assert beside, f"{name}.{column.name}: a concept id that nobody explains"
            if "CASE" in text:
                assert beside or "CASE" in before, f"{name}.{column.name}: a choice that nobody explains"
            before = text


def test_no_view_reads_what_must_never_be_read() -> None:
    never = {tuple(row["path"].split(".")) for row in table("codes", "fhir", "unread_elements.csv")}
    for name, recipe in recipes().items():
        for reading in column_elements(recipe.view).values():
            read = {path.split(".")[0] for path in reading.elements()}
            assert not {(owner, element) for owner, element in never if owner in (name, "*")} & {
                (owner, element) for element in read for owner in (name, "*")
            }, f"{name}: {reading.column}"


# --- true: what is known of single columns ---


@pytest.mark.parametrize(
    ("cdm_table", "column", "resource", "expected"),
    [
        # condition_start_date is onset where it is known, recordedDate where it is not
        (
            "condition_occurrence",
            "condition_start_date",
            "Condition",
            {
                "onsetDateTime",
                "onsetPeriod.start",
                "onsetPeriod.end",
                "extension (condition-assertedDate)",
                "recordedDate",
            },
        ),
        (
            "condition_occurrence",
            "condition_concept_id",
            "Condition",
            # a detail whose concept is a condition is one
            {"code", "severity", "bodySite", "stage.summary", "extension (mcode-histology-morphology-behavior)"},
        ),
        ("drug_exposure", "stop_reason", "MedicationStatement", {"statusReason"}),
        ("condition_occurrence", "person_id", "Condition", {"subject"}),
        ("measurement", "range_low", "Observation", {"referenceRange.low.value", "component.referenceRange.low.value"}),
        (
            "measurement",
            "operator_concept_id",
            "Observation",
            {
                "valueQuantity.comparator",
                "valueRatio.numerator",
                "component.valueQuantity.comparator",
                "component.valueRatio.numerator",
            },
        ),
        # the subject, because a record of another patient is not tied to
        ("measurement", "measurement_event_id", "Observation", {"focus", "subject", "id"}),
        ("drug_exposure", "drug_concept_id", "Medication", set()),
        ("drug_exposure", "lot_number", "Immunization", {"lotNumber"}),
        ("drug_exposure", "refills", "MedicationRequest", {"dispenseRequest.numberOfRepeatsAllowed"}),
        ("visit_detail", "visit_occurrence_id", "Encounter", {"partOf"}),
        ("visit_occurrence", "visit_concept_id", "Encounter", {"class"}),
        ("visit_occurrence", "care_site_id", "Encounter", {"serviceProvider", "location.location"}),
        ("person", "location_id", "Patient", {"address.use", "address.state", "address.country"}),
        ("person", "year_of_birth", "Patient", {"birthDate"}),
        ("death", "death_date", "Patient", {"deceasedDateTime"}),
        ("death", "cause_concept_id", "Observation", {"valueCodeableConcept"}),
        ("image_occurrence", "image_series_uid", "ImagingStudy", {"series.uid"}),
        ("image_occurrence", "procedure_occurrence_id", "ImagingStudy", {"id"}),
        ("specimen", "anatomic_site_concept_id", "Specimen", {"collection.bodySite"}),
        ("note", "note_class_concept_id", "DocumentReference", {"type"}),
    ],
)
def test_a_column_comes_from_these_elements(cdm_table: str, column: str, resource: str, expected: set[str]) -> None:
    assert feeds(flow(), cdm_table, column, resource) == expected


def test_a_drug_is_named_by_the_exposure_or_by_the_medication_that_it_refers_to() -> None:
    one = next(each for each in flow().tables["drug_exposure"].columns if each.name == "drug_concept_id")
    source = next(each for each in one.sources if each.written.resource == "MedicationStatement")
    assert source.concept and source.home
    assert flow().resources["Medication"].elements(source.origins) == {"id", "code"}
    read = flow().resources["MedicationStatement"].elements(source.origins)
    assert read == {"medicationCodeableConcept", "medicationReference", "contained"}


def test_the_specialty_of_a_provider_comes_from_the_role() -> None:
    one = next(each for each in flow().tables["provider"].columns if each.name == "specialty_concept_id")
    assert flow().resources["PractitionerRole"].elements(one.sources[0].origins) == {"practitioner", "specialty"}


def test_which_tables_a_resource_type_can_fill() -> None:
    def reach(name: str) -> tuple[set[str], bool]:
        written = [one for one in flow().resources[name].written if one.rows == EVENT]
        return {home for one in written for home in one.homes}, any(one.by_domain for one in written)

    # what qualifies a condition is at home in observation
    assert reach("Condition") == ({"condition_occurrence", "observation"}, True)
    assert reach("Observation") == ({"measurement", "observation"}, True)
    # whatever its concept's domain is, a sample is a specimen
    assert reach("Specimen") == ({"specimen"}, False)
    assert reach("DiagnosticReport") == ({"observation"}, True)


def test_reasons_of_exclusion_name_the_elements_that_decide() -> None:
    condition = flow().resources["Condition"]
    assert condition.elements(condition.reasons["X-REFUTED"]) == {"verificationStatus"}
    assert condition.elements(condition.reasons["X-NO-DATE"]) == {
        "onsetDateTime",
        "onsetPeriod.start",
        "onsetPeriod.end",
        "extension",
        "recordedDate",
    }
    assert condition.elements(condition.reasons["Q-MODIFIER"]) == {
        "modifierExtension",
        "implicitRules",
        "stage.modifierExtension",
    }
    known = {row["code"] for row in table("explanations", "reasons.csv")}
    assert all(code in known for one in flow().resources.values() for code in one.reasons)


# --- a change of the mapping is seen ---


def test_an_element_that_nothing_reads_needs_a_reason(edit: Edit) -> None:
    edit("conformance/left_out.toml", '"evidence" = "elsewhere: find', '"evidence_" = "elsewhere: find')
    said = problems(flow())
    assert any(one.startswith("Condition.evidence: no view reads it") for one in said)
    assert any("[Condition] evidence_: there is no such element" in one for one in said)


def test_a_reason_about_an_element_that_is_used_is_wrong(edit: Edit) -> None:
    edit("conformance/left_out.toml", "[Condition]\n", '[Condition]\n"code" = "detail: no"\n')
    assert problems(flow()) == ["conformance/left_out.toml: [Condition] code: the mapping uses it"]


def test_an_element_that_a_view_reads_and_nothing_uses_needs_a_reason(edit: Edit) -> None:
    edit("events/medication_statement.sql", "left(stop_reason, 20) AS stop_reason", "NULL AS stop_reason")
    assert [one.split(":")[0] for one in problems(flow())] == ["MedicationStatement.statusReason"]


AGE = '{"name": "age", "path": "onset.ofType(Age).unit"},\n        {"name": "onset_datetime"'


def test_reading_an_element_is_not_yet_using_it(edit: Edit) -> None:
    edit("views/condition.json", '{"name": "onset_datetime"', AGE)
    assert problems(flow()) == []


def test_a_reason_is_wrong_once_the_element_is_used(edit: Edit) -> None:
    edit("views/condition.json", '{"name": "onset_datetime"', AGE)
    edit("events/condition.sql", "left(clinical_statuses[1], 50)", "left(coalesce(clinical_statuses[1], age), 50)")
    assert problems(flow()) == ["conformance/left_out.toml: [Condition] onsetAge: the mapping uses it"]
    assert feeds(flow(), "condition_occurrence", "condition_status_source_value", "Condition") == {
        "clinicalStatus",
        "onsetAge.unit",
    }


def test_what_cannot_be_followed_is_said_on_the_pages(edit: Edit) -> None:
    edit("events/condition.sql", "LEFT JOIN chosen_code c", "LEFT JOIN somewhere c")
    assert flow().unknown == {"events/condition.sql: event": frozenset(["somewhere"])}
    page = generated()[COLUMNS_PAGE]
    assert "**Not followed**" in page and "`events/condition.sql: event`: somewhere" in page


def test_sql_that_does_not_parse_is_said_on_the_pages(edit: Edit) -> None:
    edit("omop/death.sql", "SELECT", "SELECT FROM SELECT")
    assert "omop/death.sql" in flow().unknown
    assert "`omop/death.sql`: its SQL, which DuckDB cannot parse" in generated()[ELEMENTS_PAGE]


def test_a_table_or_resource_type_without_a_reason_is_seen(edit: Edit) -> None:
    edit("conformance/left_out.toml", '"cost" =', '"costs" =')
    edit("conformance/left_out.toml", '"Consent"', '"Condition"')
    edit("conformance/left_out.toml", '"location.county" =', '"location.city" =')
    assert set(problems(flow())) == {
        "cost: no file fills it, and no reason is given",
        "conformance/left_out.toml: tables: costs is no table",
        "Consent: no view reads it, and no reason is given",
        "conformance/left_out.toml: no_home: Condition is read",
        "location.county: always empty, with no comment beside it and no reason",
        "conformance/left_out.toml: columns: location.city is filled, or there is none",
    }


def test_a_reason_has_one_of_the_kinds(edit: Edit) -> None:
    edit("conformance/left_out.toml", '"maritalStatus" = "open: ', '"maritalStatus" = "because: ')
    assert problems(flow()) == ["conformance/left_out.toml: 'because' is no kind of reason"]


# --- the pages ---


def test_the_pages_are_the_same_each_time_fast_and_of_no_machine(pages: dict[Path, str]) -> None:
    started = time.perf_counter()
    assert generated() == pages
    assert time.perf_counter() - started < 5
    assert pages.keys() == {COLUMNS_PAGE, ELEMENTS_PAGE, LOSSES_PAGE, MANIFEST}
    for path, text in pages.items():
        assert text.endswith("\n") and not re.search(r"(?<![\w.])/(?:work|tmp|farm|home)/", text), path
        assert "no reason is given" not in text and "Not followed" not in text


def test_the_pages_do_not_lean_on_the_order_of_sets(pages: dict[Path, str]) -> None:
    program = (
        "import json; from omop_etl.conformance.lineage import generated; print(json.dumps(list(generated().values())))"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout) == list(pages.values())


def test_every_row_of_a_table_has_the_cells_of_its_head(pages: dict[Path, str]) -> None:
    for path, text in pages.items():
        cells = None
        for line in text.splitlines():
            if not line.startswith("|"):
                cells = None
                continue
            here = len(re.split(r"(?<!\\)\|", line))
            assert cells in (None, here), f"{path}: {line}"
            cells = here


def test_links_of_the_pages_lead_somewhere(pages: dict[Path, str]) -> None:
    for text in pages.values():
        for target in re.findall(r"\]\(([^)#]+\.md)\)", text):
            assert Path(target).name in {one.name for one in pages}
        for anchor in re.findall(r"\]\(#(\w+)\)", text):
            assert f"\n## {anchor}\n" in text


def test_every_element_stands_on_the_page_of_elements(pages: dict[Path, str]) -> None:
    page = pages[ELEMENTS_PAGE]
    common = page.split("\n## In every resource\n")[1].split("\n## ")[0]
    for name, listed in accounts(flow()).items():
        section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        told = set(re.findall(r"^\| ([^| ]+)", section + common, flags=re.MULTILINE))
        parts_of_all = set(re.findall(r"^\| (\*any part\*\.\w+) ", common, flags=re.MULTILINE))
        for one in listed:
            anywhere = f"{PART}.{one.path.rpartition('.')[2]}"
            assert (
                one.path in told
                or ("." in one.path and anywhere in parts_of_all)
                or any(each.startswith(f"{one.path}.") for each in told)
            ), f"{name}.{one.path}"


@pytest.mark.requirement("f2o-080")
def test_losses_name_what_the_guide_asks_for(pages: dict[Path, str]) -> None:
    page = pages[LOSSES_PAGE]
    for one in accounts(flow())["Condition"]:
        if one.reason and one.reason.kind == "open" and one.reason.key[0] == "Condition":
            assert f"Condition.{one.path}" in page
    moved = page.split("## Lost because the concept decides the table")[1]
    assert re.search(
        r"^\| Condition \| measurement, observation \| .*abatementDateTime, abatementPeriod\.end \|$",
        moved,
        flags=re.MULTILINE,
    )
    assert re.search(r"^\| 20 \| .*drug_exposure\.stop_reason", page, flags=re.MULTILINE)
    assert re.search(r"^\| Observation \| .*interpretation", page.split("## Only the first")[1], flags=re.MULTILINE)
    for row in table("conformance", "losses.csv"):
        assert f"| {row['loss']} |" in page


@pytest.mark.requirement("f2o-003")
def test_the_manifest_names_profiles_and_the_tables_filled_from_them(pages: dict[Path, str]) -> None:
    manifest = json.loads(pages[MANIFEST])
    assert manifest["fhir_version"] == "4.0.1" and manifest["input"].keys() == recipes().keys()
    assert manifest["tables"].keys() == {name for name, one in tables().items() if one.schema != "vocab"}
    for name, one in manifest["input"].items():
        assert one["profile"].endswith(f"/{name}")
        assert not set(one["fills"]) & set(one["may_fill"])
        for cdm_table in one["fills"]:
            assert name in manifest["tables"][cdm_table]["from"]
        for cdm_table in one["may_fill"]:
            assert name in manifest["tables"][cdm_table]["also_by_domain"]
    profiles = {
        each["profile"].rsplit("/", 1)[1]: name
        for name, one in manifest["input"].items()
        for each in one["also_read_as"]
    }
    assert profiles["mcode-tumor-marker-test"] == "Observation" and profiles["ipa-patient"] == "Patient"
    assert all(url.startswith("http://hl7.org/fhir/") for url in _urls(manifest))


def _urls(manifest: dict) -> list[str]:
    return [each["profile"] for one in manifest["input"].values() for each in one["also_read_as"]]


def test_tables_say_whether_they_are_at_home() -> None:
    by_type = {one.resource: one for one in flow().tables["drug_exposure"].written}
    assert "drug_exposure" in by_type["MedicationStatement"].homes and "drug_exposure" not in by_type["Condition"].homes
