"""The truth beside the hospitals: what every later stage should find, stated from how the histories were built."""

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from omop_etl.synthetic.calibration import Calibration
from omop_etl.synthetic.course_truth import true_endpoints, true_lines
from omop_etl.synthetic.history import follow_up_day, known
from omop_etl.synthetic.parameters import CRITERIA, Parameters
from omop_etl.synthetic.people import accession_number
from omop_etl.synthetic.plan import SitePlan

if TYPE_CHECKING:
    from omop_etl.synthetic.hospital import Patient

Rows = dict[str, list[dict[str, Any]]]

_TEXT, _DAY, _INT, _FLAG = pa.string(), pa.date32(), pa.int32(), pa.bool_()

SCHEMAS: dict[str, list[tuple[str, pa.DataType]]] = {
    "patients": [
        ("site", _TEXT),
        ("patient", _TEXT),
        ("person", _TEXT),
        ("role", _TEXT),
        ("scenario", _TEXT),
        ("sex", _TEXT),
        ("birth_month", _TEXT),
        ("menopause", _TEXT),
        ("ecog", _INT),
        ("histology", _TEXT),
        ("histology_recorded", _FLAG),
        ("primary_date", _DAY),
        ("advanced_date", _DAY),
        ("de_novo", _FLAG),
        ("metastatic_sites", _TEXT),
        ("resistance", _TEXT),
        ("index_date", _DAY),
        ("index_drug", _TEXT),
        ("endocrine_partner", _TEXT),
        ("sample_date", _DAY),
        ("sample_origin", _TEXT),
        ("er", _INT),
        ("pgr", _INT),
        ("ki67", _INT),
        ("grade", _INT),
        ("her2_ihc", _TEXT),
        ("her2_ish", _TEXT),
        ("follow_up_day", _DAY),
        ("first_progression", _DAY),
        ("assessment_gap_after", _DAY),
        ("death_date", _DAY),
        ("last_contact", _DAY),
        ("last_activity", _DAY),
        ("consent_date", _DAY),
        ("pair", _INT),
        ("extracted", _DAY),
        ("eligible", _FLAG),
    ],
    "samples": [
        ("site", _TEXT),
        ("patient", _TEXT),
        ("sample_date", _DAY),
        ("origin", _TEXT),
        ("chosen", _FLAG),
        ("er", _INT),
        ("er_below", _FLAG),
        ("pgr", _INT),
        ("ki67", _INT),
        ("grade", _INT),
        ("her2_ihc", _TEXT),
        ("her2_ish", _TEXT),
    ],
    "eligibility": [
        ("site", _TEXT),
        ("patient", _TEXT),
        ("criterion", _TEXT),
        ("answer", _TEXT),
        ("reason", _TEXT),
        ("eligible", _FLAG),
    ],
    "lines": [
        ("site", _TEXT),
        ("patient", _TEXT),
        ("person", _TEXT),
        ("line", _INT),
        ("start_date", _DAY),
        ("end_date", _DAY),
        ("drugs", _TEXT),
        ("end_reason", _TEXT),
    ],
    # as the protocol's rules have them at the cut-off, for patients whose course one site, or two that share a token, know
    "study_lines": [
        ("site", _TEXT),
        ("patient", _TEXT),
        ("line", _INT),
        ("start_date", _DAY),
        ("end_date", _DAY),
        ("regimen", _TEXT),
        ("drugs", _TEXT),
        ("end_reason", _TEXT),
    ],
    "endpoints": [
        ("site", _TEXT),
        ("patient", _TEXT),
        ("pair", _INT),
        ("paramcd", _TEXT),
        ("start_date", _DAY),
        ("end_date", _DAY),
        ("cnsr", _INT),
        ("event", _TEXT),
        ("censored", _TEXT),
    ],
    "progressions": [
        ("site", _TEXT),
        ("patient", _TEXT),
        ("person", _TEXT),
        ("progression_date", _DAY),
        ("line", _INT),
        ("modality", _TEXT),
        ("new_site", _TEXT),
        ("continued", _FLAG),
        ("local_therapy", _TEXT),
        ("recorded_here", _FLAG),
    ],
    "deaths": [
        ("site", _TEXT),
        ("patient", _TEXT),
        ("person", _TEXT),
        ("death_date", _DAY),
        ("recorded_date", _DAY),
    ],
    "links": [
        ("pair", _INT),
        ("kind", _TEXT),
        ("person", _TEXT),
        ("site", _TEXT),
        ("patient", _TEXT),
        ("role", _TEXT),
        ("token", _FLAG),
    ],
    "defects": [
        ("site", _TEXT),
        ("resource_type", _TEXT),
        ("resource_id", _TEXT),
        ("position", _TEXT),
        ("kind", _TEXT),
        ("expected_outcome", _TEXT),
        ("expected_reason", _TEXT),
        ("patient", _TEXT),
    ],
    # what only the hospital may see: nothing that leaves it, and no log, may hold any of these
    "identifiers": [
        ("site", _TEXT),
        ("record_number", _TEXT),
        ("surname", _TEXT),
        ("given_name", _TEXT),
        ("codice_fiscale", _TEXT),
        ("accession_number", _TEXT),
    ],
    "imaging": [
        ("site", _TEXT),
        ("patient", _TEXT),
        ("study_uid", _TEXT),
        ("study_date", _DAY),
        ("kind", _TEXT),
        ("series", _INT),
        ("instances", _INT),
    ],
}


def truth_rows(
    rows: Rows,
    plan: SitePlan,
    patient: "Patient",
    contacts: Sequence[date],
    last_activity: date | None,
    parameters: Parameters,
) -> None:
    """Add what is true of one registration to `rows`. `last_activity` is the last day of its record up to the cut-off."""
    seen, whole = patient.seen, patient.whole
    key = {"site": plan.id, "patient": patient.pseudonym}
    answers = {name: seen.answers[name].split(" ", 1) for name in CRITERIA}
    eligible = all(answer == "PASS" for answer, _ in answers.values())
    for name in CRITERIA:
        answer, reason = answers[name]
        rows.setdefault("eligibility", []).append(
            key | {"criterion": name, "answer": answer, "reason": reason, "eligible": eligible}
        )
    row = _patient_row(plan, patient, contacts, eligible, parameters)
    row |= {"last_activity": last_activity, "consent_date": seen.consent, "pair": patient.registration.pair}
    rows.setdefault("patients", []).append(key | row)
    for place, sample in enumerate(seen.samples):
        rows.setdefault("samples", []).append(
            key
            | {
                "sample_date": sample.day,
                "origin": sample.origin,
                "chosen": place == seen.chosen,
                "er": sample.er,
                "er_below": sample.er_below,
                "pgr": sample.pgr,
                "ki67": sample.ki67,
                "grade": sample.grade,
                "her2_ihc": sample.ihc,
                "her2_ish": sample.ish,
            }
        )
    rows.setdefault("identifiers", []).append(
        {
            "site": plan.id,
            "record_number": patient.number,
            "surname": patient.identity.surname,
            "given_name": patient.identity.given,
            "codice_fiscale": patient.identity.codice_fiscale,
            "accession_number": accession_number(patient.number),
        }
    )
    registration = patient.registration
    if registration.kind:
        rows.setdefault("links", []).append(
            key
            | {
                "pair": registration.pair,
                "kind": registration.kind,
                "person": whole.person,
                "role": registration.role,
                "token": patient.token is not None,
            }
        )
    if seen.death or patient.wrong_death:
        rows.setdefault("deaths", []).append(
            key
            | {
                "person": whole.person,
                "death_date": whole.death,
                "recorded_date": patient.wrong_death or seen.death,
            }
        )
    _course_rows(rows, key, patient, plan.extracted)
    _study_rows(rows, key, patient, last_activity, parameters)


def _study_rows(
    rows: Rows, key: dict[str, str], patient: "Patient", last_activity: date | None, parameters: Parameters
) -> None:
    """Lines and endpoints by the protocol's rules, at the cut-off. None for pairs that cannot be told to be one, or whose deaths
    conflict; no endpoints where the record holds a wrong death."""
    registration, cut_off = patient.registration, parameters["study"]["cut_off"]
    if registration.kind is None:
        known_then = known(patient.seen, date.min, cut_off)
    elif (registration.kind, registration.role) == ("linked", "first"):
        # what both sites know together
        known_then = known(patient.whole, date.min, min(filter(None, (cut_off, patient.whole.lost))))
    else:
        return
    if known_then.advanced is None or (known_then.index and known_then.index > cut_off):
        return
    lines = true_lines(known_then, parameters)
    for line in lines:
        rows.setdefault("study_lines", []).append(
            key
            | {
                "line": line.number,
                "start_date": line.start,
                "end_date": line.end,
                "regimen": "+".join(line.regimen),
                "drugs": "+".join(line.drugs),
                "end_reason": line.reason,
            }
        )
    if patient.wrong_death or last_activity is None:
        return
    # of two sites the other one saw the patient too; to the day in `join_pairs`
    last_activity = max([last_activity, *(one.day for one in known_then.assessments)])
    for one in true_endpoints(known_then, last_activity, parameters, lines):
        rows.setdefault("endpoints", []).append(
            key
            | {
                "pair": registration.pair,
                "paramcd": one.paramcd,
                "start_date": one.start,
                "end_date": one.end,
                "cnsr": int(one.event is None),
                "event": one.event,
                "censored": one.censored,
            }
        )


def join_pairs(rows: Rows) -> None:
    """Of one who was treated at two sites, follow-up is the union: alive as long as either site knows."""
    last: dict[int, date] = {}
    for row in rows.get("patients", []):
        if row["pair"] is not None and row["last_activity"]:
            last[row["pair"]] = max(row["last_activity"], last.get(row["pair"], date.min))
    for row in rows.get("endpoints", []):
        if row["pair"] is not None and row["censored"] == "last-activity":
            row["end_date"] = last[row["pair"]]


def _course_rows(rows: Rows, key: dict[str, str], patient: "Patient", extracted: date) -> None:
    """Lines and progressions of the human, at the initiating site of one who was treated at two."""
    whole = patient.whole
    if patient.registration.role == "second":
        return
    last = min(filter(None, (extracted, whole.lost)))
    person = {"person": whole.person}
    for line in whole.lines:
        if line.start <= last:
            over = line.end is not None and line.end <= last
            rows.setdefault("lines", []).append(
                key
                | person
                | {
                    "line": line.number,
                    "start_date": line.start,
                    "end_date": line.end if over else None,
                    "drugs": "+".join(line.drugs),
                    "end_reason": line.reason if over else None,
                }
            )
    here = {progression.day for progression in patient.seen.progressions}
    for progression in whole.progressions:
        if progression.day <= last:
            rows.setdefault("progressions", []).append(
                key
                | person
                | {
                    "progression_date": progression.day,
                    "line": progression.line,
                    "modality": progression.modality,
                    "new_site": progression.new_site,
                    "continued": progression.continued,
                    "local_therapy": progression.local_therapy,
                    "recorded_here": progression.day in here,
                }
            )


def _patient_row(
    plan: SitePlan, patient: "Patient", contacts: Sequence[date], eligible: bool, parameters: Parameters
) -> dict[str, Any]:
    seen, whole = patient.seen, patient.whole
    sample = seen.samples[seen.chosen] if seen.chosen is not None else None
    index = first_cdk46(seen.segments, seen.advanced, parameters)
    after = [progression.day for progression in seen.progressions if index and progression.day >= index]
    partners = ("ai", "serm", "serd")
    table = parameters["drug"]
    return {
        "person": whole.person,
        "role": patient.registration.role,
        "scenario": seen.scenario.name,
        "sex": seen.sex,
        "birth_month": f"{seen.birth:%Y-%m}",
        "menopause": seen.menopause,
        "ecog": seen.ecog,
        "histology": seen.histology,
        "histology_recorded": plan.profile["conditions"] == "snomed",
        "primary_date": seen.primary,
        "advanced_date": seen.advanced,
        "de_novo": seen.de_novo if seen.advanced else None,
        "metastatic_sites": "|".join(sorted(x.site for x in seen.diagnoses[1:] if x.day == seen.advanced)),
        "resistance": seen.resistance,
        "index_date": index,
        "index_drug": seen.index_drug if index else None,
        "endocrine_partner": next(
            (x.drug for x in seen.segments if index and x.line > 0 and table[x.drug]["class"] in partners), None
        ),
        "sample_date": sample.day if sample else None,
        "sample_origin": sample.origin if sample else None,
        "er": sample.er if sample else None,
        "pgr": sample.pgr if sample else None,
        "ki67": sample.ki67 if sample else None,
        "grade": sample.grade if sample else None,
        "her2_ihc": sample.ihc if sample else None,
        "her2_ish": sample.ish if sample else None,
        "follow_up_day": follow_up_day(seen, parameters),
        "first_progression": min(after, default=None),
        "assessment_gap_after": seen.gap_after,
        "death_date": seen.death,
        "last_contact": max(contacts, default=None),
        "extracted": plan.extracted,
        "eligible": eligible,
    }


def first_cdk46(segments: Sequence[Any], advanced: date | None, parameters: Parameters) -> date | None:
    """The first day of a CDK4/6 inhibitor in what a site wrote down for advanced disease."""
    table = parameters["drug"]
    days = [x.start for x in segments if x.line > 0 and table[x.drug]["class"] == "cdk46"]
    return min(days, default=None) if advanced else None


def true_hazards(parameters: Parameters, calibration: Calibration) -> dict[str, Any]:
    """What an analysis of rwPFS has to recover, and what stands in its way: the planted confounding."""
    course, table = parameters["course"], parameters["index_drug"]
    return {
        "endpoint": "RWPFS",
        "model": "proportional hazards; Weibull baseline, time to the first progression or death from day 0",
        "shape": course["shape"],
        "scale_months": calibration.scale_months,
        "least_days": course["least_rwpfs_days"],
        "hazard_ratio": course["hazard_ratio"],
        "reference": "palbociclib",
        "confounding": {
            "odds_of_the_drug": table["channelling"],
            "availability_by_year": table["drift"],
            "weight_of_the_drug": calibration.base,
            "confounders": sorted(
                {trait for odds in table["channelling"].values() for trait in odds} & set(course["hazard_ratio"])
            ),
            "channelled_without_effect": sorted(
                {trait for odds in table["channelling"].values() for trait in odds} - set(course["hazard_ratio"])
            ),
        },
    }


def write_truth(folder: Path, rows: Rows, hazards: dict[str, Any]) -> dict[str, int]:
    """One Parquet file per table, every one of them, sorted as the sites come, and hazards.json. Returns the rows of each."""
    folder.mkdir(parents=True)
    (folder / "hazards.json").write_text(json.dumps(hazards, indent=1) + "\n", encoding="utf-8")
    for name, columns in SCHEMAS.items():
        table = pa.Table.from_pylist(rows.get(name, []), schema=pa.schema(columns))
        pq.write_table(table, folder / f"{name}.parquet")
    return {name: len(rows.get(name, [])) for name in SCHEMAS}
