"""A tiny valid slice, written from the CDM facts, and a vocabulary that knows its concepts; tests break one thing of it."""

import hashlib
import json
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from omop_etl.cdm import arrow_schema, tables

Rows = dict[str, list[dict[str, Any]]]
# the tables that a mapping fills, rows or not
FILLED = (
    "person",
    "observation_period",
    "visit_occurrence",
    "condition_occurrence",
    "drug_exposure",
    "procedure_occurrence",
    "device_exposure",
    "measurement",
    "observation",
    "death",
    "note",
    "specimen",
    "location",
    "care_site",
    "provider",
    "cdm_source",
    "image_occurrence",
)
EXTRACTED_TO = date(2024, 12, 31)
EHR, PALBOCICLIB, RIBOCICLIB, ABEMACICLIB, ANASTROZOLE, GOSERELIN = 32817, 45892075, 1592911, 792649, 1348265, 1366310
FEMALE, OUTPATIENT, PERCENT = 8532, 9202, 8554
PRIMARY, BONE = 40492507, 78097
ER, PGR, HER2_IHC, GRADE, ECOG = 36203168, 36203170, 36203114, 3047285, 36305384
ONE_PLUS, THREE_PLUS, GRADE_2, ECOG_0 = 45878548, 45876467, 1634752, 36309661
HEMOGLOBIN, NEUTROPHILS, PLATELETS, HEIGHT, WEIGHT, PROGRESSION = 3000963, 3013650, 3024929, 3036277, 3025315, 1633597
MENOPAUSE, PREMENOPAUSAL, POSTMENOPAUSAL = 4059477, 4331463, 4295261
LUMPECTOMY = 4213045
MALE, TWO_PLUS, METASTATIC, BREAST_CANCER, CLASSIFICATION = 8507, 45881916, 432851, 4112853, 947735
# concepts that OHDSI ties to a sex; and one that only this vocabulary has: below a concept of women, and not standard
OVARIAN_CYST, BELOW_FEMALE, FEMALE_FINDING, SOURCE_ONLY = 197610, 2_000_000_900, 4095793, 2_000_000_901
CONDITION_ROW = 1147127
# concept id → name, domain, vocabulary, class, standard; from the study's concept list
CONCEPTS = {
    0: ("No matching concept", "Metadata", "None", "Undefined", ""),
    EHR: ("EHR", "Type Concept", "Type Concept", "Type Concept", "S"),
    PALBOCICLIB: ("palbociclib", "Drug", "RxNorm", "Ingredient", "S"),
    RIBOCICLIB: ("ribociclib", "Drug", "RxNorm", "Ingredient", "S"),
    ABEMACICLIB: ("abemaciclib", "Drug", "RxNorm", "Ingredient", "S"),
    ANASTROZOLE: ("anastrozole", "Drug", "RxNorm", "Ingredient", "S"),
    GOSERELIN: ("goserelin", "Drug", "RxNorm", "Ingredient", "S"),
    947735: ("palbociclib; oral", "Drug", "ATC", "ATC 5th", "C"),
    FEMALE: ("FEMALE", "Gender", "Gender", "Gender", "S"),
    OUTPATIENT: ("Outpatient Visit", "Visit", "Visit", "Visit", "S"),
    PERCENT: ("percent", "Unit", "UCUM", "Unit", "S"),
    PRIMARY: ("Infiltrating duct carcinoma of female breast", "Condition", "SNOMED", "Clinical Finding", "S"),
    BONE: ("Secondary malignant neoplasm of bone", "Condition", "SNOMED", "Clinical Finding", "S"),
    432851: ("Secondary malignant neoplastic disease", "Condition", "SNOMED", "Clinical Finding", "S"),
    4112853: ("Malignant tumor of breast", "Condition", "SNOMED", "Clinical Finding", "S"),
    ER: ("Estrogen receptor Ag", "Measurement", "LOINC", "Lab Test", "S"),
    PGR: ("Progesterone receptor Ag", "Measurement", "LOINC", "Lab Test", "S"),
    HER2_IHC: ("HER2", "Measurement", "LOINC", "Lab Test", "S"),
    GRADE: ("Histologic grade", "Measurement", "LOINC", "Clinical Observation", "S"),
    ECOG: ("ECOG Performance Status score", "Measurement", "LOINC", "Clinical Observation", "S"),
    ONE_PLUS: ("1+", "Meas Value", "LOINC", "Answer", "S"),
    THREE_PLUS: ("3+", "Meas Value", "LOINC", "Answer", "S"),
    GRADE_2: ("Grade-2", "Meas Value", "Cancer Modifier", "Staging/Grading", "S"),
    ECOG_0: ("Fully active", "Meas Value", "LOINC", "Answer", "S"),
    HEMOGLOBIN: ("Hemoglobin", "Measurement", "LOINC", "Lab Test", "S"),
    NEUTROPHILS: ("Neutrophils", "Measurement", "LOINC", "Lab Test", "S"),
    PLATELETS: ("Platelets", "Measurement", "LOINC", "Lab Test", "S"),
    HEIGHT: ("Body height", "Measurement", "LOINC", "Clinical Observation", "S"),
    WEIGHT: ("Body weight", "Measurement", "LOINC", "Clinical Observation", "S"),
    PROGRESSION: ("RECIST 1.1: progressive disease", "Measurement", "Cancer Modifier", "Staging/Grading", "S"),
    MENOPAUSE: ("Menopause", "Observation", "SNOMED", "Qualifier Value", "S"),
    PREMENOPAUSAL: ("Premenopausal state", "Observation", "SNOMED", "Clinical Finding", "S"),
    POSTMENOPAUSAL: ("Postmenopausal state", "Observation", "SNOMED", "Clinical Finding", "S"),
    LUMPECTOMY: ("Lumpectomy of breast", "Procedure", "SNOMED", "Procedure", "S"),
    MALE: ("MALE", "Gender", "Gender", "Gender", "S"),
    TWO_PLUS: ("2+", "Meas Value", "LOINC", "Answer", "S"),
    OVARIAN_CYST: ("Cyst of ovary", "Condition", "SNOMED", "Clinical Finding", "S"),
    FEMALE_FINDING: ("Female genitalia finding", "Condition", "SNOMED", "Clinical Finding", "S"),
    BELOW_FEMALE: ("A finding of women", "Condition", "Own", "Own", "S"),
    SOURCE_ONLY: ("A code of the source", "Procedure", "Own", "Own", ""),
    CONDITION_ROW: ("condition_occurrence.condition_occurrence_id", "Metadata", "CDM", "Field", "S"),
}


def number(site: str, *words: object) -> int:
    """An id as the toolkit makes them: positive, at most 2^53 - 1, from the site and the words."""
    text = "|".join(map(str, (site, *words)))
    return int(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:13], 16) + 1


def clean_rows(site: str = "prova", persons: int = 4) -> Rows:
    """A few patients on palbociclib with everything that the study's checks look for; nothing is wrong with them."""
    rows: Rows = {name: [] for name in FILLED}
    rows["cdm_source"].append(
        {
            "cdm_source_name": f"PALMARES {site}",
            "cdm_source_abbreviation": site[:25],
            "cdm_holder": site,
            "source_release_date": EXTRACTED_TO,
            "cdm_release_date": EXTRACTED_TO,
            "cdm_version": "5.4",
            "cdm_version_concept_id": 0,
            "vocabulary_version": "test",
        }
    )
    care_site = number(site, "care_site")
    rows["care_site"].append(
        {"care_site_id": care_site, "care_site_name": "Oncologia", "place_of_service_concept_id": 0}
    )
    for one in range(1, persons + 1):
        _patient(rows, site, one, care_site)
    return rows


def _patient(rows: Rows, site: str, one: int, care_site: int) -> None:
    person = number(site, "person", one)
    primary, advanced, start, seen = date(2015, 3, 9), date(2019, 4, 11), date(2019, 5, 14), date(2024, 11, 20)

    def add(table: str, word: str, **values: Any) -> int:
        key = tables()[table].primary_key if table != "person" else None
        row = {"person_id": person} | ({key: number(site, table, word, one)} if key else {}) | values
        for column in tables()[table].columns:
            if column.required and column.name not in row and column.references == ("concept", "concept_id"):
                row[column.name] = EHR if column.name.endswith("type_concept_id") else 0
        rows[table].append(row)
        return row[key] if key else 0

    add(
        "person",
        "",
        gender_concept_id=FEMALE,
        year_of_birth=1950 + one % 25,
        month_of_birth=6,
        care_site_id=care_site,
        person_source_value=hashlib.sha256(f"{site}{one}".encode()).hexdigest()[:32],
        gender_source_value="female",
    )
    add("observation_period", "", observation_period_start_date=primary, observation_period_end_date=seen)
    add(
        "visit_occurrence",
        "last",
        visit_concept_id=OUTPATIENT,
        visit_start_date=seen,
        visit_start_datetime=datetime(2024, 11, 20, 9, 30),
        visit_end_date=seen,
        care_site_id=care_site,
        visit_source_value="AMB",
    )
    first = add(
        "visit_occurrence",
        "first",
        visit_concept_id=OUTPATIENT,
        visit_start_date=date(2019, 5, 10),
        visit_end_date=date(2019, 5, 10),
        care_site_id=care_site,
        visit_source_value="AMB",
    )
    add("condition_occurrence", "primary", condition_concept_id=PRIMARY, condition_start_date=primary)
    metastasis = add("condition_occurrence", "bone", condition_concept_id=BONE, condition_start_date=advanced)
    add(
        "drug_exposure",
        "cdk",
        drug_concept_id=PALBOCICLIB,
        drug_exposure_start_date=start,
        drug_exposure_end_date=date(2021, 5, 30),
        quantity=125.0,
        dose_unit_source_value="mg",
        stop_reason="progression",
        drug_source_value="L01EF01",
    )
    add(
        "drug_exposure",
        "et",
        drug_concept_id=ANASTROZOLE,
        drug_exposure_start_date=start,
        drug_exposure_end_date=date(2021, 5, 30),
        drug_source_value="L02BG03",
    )
    percent = {"unit_concept_id": PERCENT, "unit_source_value": "%", "measurement_date": date(2019, 4, 20)}
    linked = {"measurement_event_id": metastasis, "meas_event_field_concept_id": CONDITION_ROW}
    add(
        "procedure_occurrence",
        "surgery",
        procedure_concept_id=LUMPECTOMY,
        procedure_date=date(2015, 4, 2),
        procedure_source_value="392021009",
    )
    er, pgr = {"measurement_source_value": "85337-4"}, {"measurement_source_value": "85339-0"}
    add("measurement", "er", measurement_concept_id=ER, value_as_number=90.0, **percent, **linked, **er)
    add("measurement", "pgr", measurement_concept_id=PGR, value_as_number=40.0, **percent, **linked, **pgr)
    add(
        "measurement",
        "ki67",
        measurement_concept_id=0,
        measurement_source_value="29593-1",
        value_as_number=20.0,
        **percent,
    )
    add(
        "measurement",
        "her2",
        measurement_source_value="85319-2",
        measurement_concept_id=HER2_IHC,
        value_as_concept_id=ONE_PLUS,
        measurement_date=date(2019, 4, 20),
    )
    add(
        "measurement",
        "grade",
        measurement_source_value="44648-4",
        measurement_concept_id=GRADE,
        value_as_concept_id=GRADE_2,
        measurement_date=date(2019, 4, 20),
    )
    add(
        "measurement",
        "ecog",
        measurement_source_value="89247-1",
        measurement_concept_id=ECOG,
        value_as_concept_id=ECOG_0,
        measurement_date=date(2019, 5, 10),
        measurement_datetime=datetime(2019, 5, 10, 23, 50),
        visit_occurrence_id=first if one == 1 else None,
    )
    for concept, value, code in (
        (HEMOGLOBIN, 12.5, "718-7"),
        (HEIGHT, 165.0, "8302-2"),
        (WEIGHT, 64.0, "29463-7"),
        (NEUTROPHILS, 3.1, "751-8"),
        (PLATELETS, 240.0, "777-3"),
    ):
        add(
            "measurement",
            str(concept),
            measurement_concept_id=concept,
            value_as_number=value,
            measurement_date=start,
            measurement_source_value=code,
        )
    for again in range(16):  # so that the one code without a concept (Ki-67) stays below the unmapped threshold
        day = date(2020 + again // 12, again % 12 + 1, 15)
        add(
            "measurement",
            f"hb{again}",
            measurement_concept_id=HEMOGLOBIN,
            value_as_number=11.5,
            measurement_date=day,
            measurement_source_value="718-7",
        )
    add(
        "measurement",
        "pd",
        measurement_concept_id=PROGRESSION,
        measurement_date=date(2021, 5, 28),
        measurement_source_value="PD",
    )
    add(
        "observation",
        "menopause",
        observation_concept_id=MENOPAUSE,
        observation_date=date(2019, 5, 10),
        value_as_concept_id=POSTMENOPAUSAL,
    )
    if one == 1:
        add("death", "", death_date=date(2024, 12, 2))


def ledger_of(rows: Rows) -> list[dict[str, Any]]:
    """A ledger that balances: one resource per row, by the table's own name."""
    lines = []
    for table, found in rows.items():
        if table in ("observation_period", "cdm_source"):
            continue
        for at in range(len(found)):
            lines.append(
                {
                    "resource_type": "Basic",
                    "resource_id": f"{table}-{at}",
                    "outcome": "written",
                    "reason": None,
                    "cdm_table": table,
                    "row_count": 1,
                }
            )
    return lines


LEDGER_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("resource_type", "resource_id", "outcome", "reason", "cdm_table")]
    + [("row_count", pa.int64())]
)
LINK_SCHEMA = pa.schema([("person_id", pa.int64()), ("linkage_token", pa.string())])


def write_slice(
    folder: Path,
    rows: Rows | None = None,
    *,
    site: str = "prova",
    ledger: list[dict[str, Any]] | None = None,
    links: list[dict[str, Any]] | None = None,
    manifest: Callable[[dict[str, Any]], None] = lambda _: None,
) -> Path:
    """Write a slice folder; `manifest` may change the manifest before it is written."""
    rows = clean_rows(site) if rows is None else rows
    ledger = ledger_of(rows) if ledger is None else ledger
    if links is None:
        links = [
            {"person_id": row["person_id"], "linkage_token": hashlib.sha256(str(row["person_id"]).encode()).hexdigest()}
            for row in rows["person"]
        ]
    (folder / "side").mkdir(parents=True)
    for table, found in rows.items():
        pq.write_table(pa.Table.from_pylist(found, schema=arrow_schema(table)), folder / f"{table}.parquet")
    write_ledger(folder, ledger)
    pq.write_table(pa.Table.from_pylist(links, schema=LINK_SCHEMA), folder / "side" / "person_link.parquet")
    trace = {"cdm_table": ["person"], "cdm_id": [1], "resource_type": ["Patient"], "resource_id": ["x"]}
    pq.write_table(pa.table(trace), folder / "side" / "trace.parquet")
    header = "site,vocabulary_id,source_system,source_code,source_name,cdm_field,records,reason\n"
    line = f"{site},LOINC,http://loinc.org,29593-1,,measurement.measurement_concept_id,4,no-standard-concept\n"
    (folder / "unmapped.csv").write_text(header + line, encoding="utf-8")
    said: dict[str, Any] = {
        "site": site,
        "derived": ["observation_period"],
        "tables": {table: len(found) for table, found in rows.items()},
        "vocabulary": {"release": "test"},
        "mappings_sha256": "0" * 64,
        "code_version": "0.1.0",
        "fhir_version": "4.0.1",
        "cdm_version": "5.4",
        "time_zone": "Europe/Rome",
        "extracted_to": EXTRACTED_TO.isoformat(),
        "resources": {},
        "run": {"started": "2024-12-31T10:00:00Z", "seconds": 1.5},
    }
    manifest(said)
    (folder / "manifest.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    return folder


def write_ledger(folder: Path, ledger: list[dict[str, Any]]) -> None:
    """Write the ledger of a slice."""
    pq.write_table(pa.Table.from_pylist(ledger, schema=LEDGER_SCHEMA), folder / "ledger.parquet")


def write_vocabulary(folder: Path) -> Path:
    """The concepts of the tiny slice in Athena's layout."""
    folder.mkdir(parents=True)
    lines = ["\t".join(column.name for column in tables()["concept"].columns)]
    for concept, (name, domain, vocabulary, class_, standard) in CONCEPTS.items():
        lines.append(
            "\t".join(
                [str(concept), name, domain, vocabulary, class_, standard, str(concept), "19700101", "20991231", ""]
            )
        )
    (folder / "CONCEPT.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    names = "\t".join(column.name for column in tables()["concept_relationship"].columns)
    (folder / "CONCEPT_RELATIONSHIP.csv").write_text(
        f"{names}\n{PRIMARY}\t{PRIMARY}\tMaps to\t19700101\t20991231\t\n", encoding="utf-8"
    )
    (folder / "CONCEPT_ANCESTOR.csv").write_text(
        "ancestor_concept_id\tdescendant_concept_id\tmin_levels_of_separation\tmax_levels_of_separation\n"
        f"{FEMALE_FINDING}\t{BELOW_FEMALE}\t1\t1\n",
        encoding="utf-8",
    )
    return folder
