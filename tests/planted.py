"""A patient who must be found nowhere: what names her, and FHIR resources in which every element of R4 does."""

import base64
from collections.abc import Iterator
from typing import Any

from fhir_adapters.pseudonyms import check_character
from fhir_adapters.views.elements import BOOLEANS, NUMBERS, TIMES, element, elements, is_resource, known_type
from omop_etl.onboarding import Known

FIRST_FIFTEEN = "ZCCMNT47A41F205"
FISCAL_CODE = FIRST_FIFTEEN + check_character(FIRST_FIFTEEN)
PLANTED = {
    "name": "Zuccarelli Antonietta",
    "codice-fiscale": FISCAL_CODE,
    "record-number": "MRN88776655",
    "address": "Via Segretissima 33",
    "accession-number": "ACC44332211",
    "uid": "1.2.840.113619.2.88776655.1",
    "telephone": "+39 333 1234567",
    "e-mail": "antonietta.zuccarelli@example.it",
}
KNOWN = [Known(kind, value) for kind, value in PLANTED.items()]
# what may stand in no file, in lower case
TRACES = (
    "zuccarelli",
    "antonietta",
    FISCAL_CODE.lower(),
    "88776655",
    "segretissima",
    "44332211",
    "3331234567",
    "333 1234567",
)
_DEEPEST = 4


def traces(text: str | bytes) -> list[str]:
    """What of her stands in a text."""
    plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return [trace for trace in TRACES if trace in plain.lower()]


class Planter:
    """Makes values that hold one of PLANTED after the other, beginning with that of number `first`."""

    def __init__(self, first: int) -> None:
        self._at = first
        self._texts = list(PLANTED.values())

    def text(self) -> str:
        self._at += 1
        return self._texts[self._at % len(self._texts)]

    def primitive(self, type_: str) -> Any:
        text = self.text()
        word = text.replace(" ", "_").replace("@", "_")
        return {
            "uri": f"http://ospedale.example/{word}",
            "url": f"https://ospedale.example/{word}",
            "canonical": f"http://ospedale.example/{word}|1",
            "oid": f"urn:oid:{PLANTED['uid']}",
            "uuid": f"urn:uuid:{word}",
            "id": word,
            "code": word,
            "base64Binary": base64.b64encode(text.encode()).decode(),
            "xhtml": f'<div xmlns="http://www.w3.org/1999/xhtml">{text}</div>',
        }.get(type_, text)

    def whole(self, type_: str, depth: int = 0) -> dict[str, Any]:
        """An object of a FHIR type in which every element holds something; all of a choice are there."""
        out: dict[str, Any] = {"resourceType": type_} if is_resource(type_) else {}
        for one in elements(type_):
            value: Any
            if one.type == "Extension":
                value = {"url": self.primitive("uri"), "valueString": self.text(), "_valueString": {"id": self.text()}}
            elif one.type == "Resource":
                value = self.whole("Medication", depth + 2) if depth < 2 else None
            elif one.type in BOOLEANS:
                value = True
            elif one.type in NUMBERS:
                value = 1
            elif one.type in TIMES:
                value = self.text()
            elif elements(one.type):
                value = self.whole(one.type, depth + 1) if depth < _DEEPEST else None
            elif known_type(one.type):
                value = self.primitive(one.type)
                out[f"_{one.name}"] = {"extension": [{"url": self.primitive("uri"), "valueString": self.text()}]}
            else:
                value = None
            if value is not None:
                out[one.name] = [value] if one.many else value
        if depth == 0:
            out[self.text()] = self.text()  # an element that R4 does not have
        return out


def every_resource(variants: int = 2) -> Iterator[dict[str, Any]]:
    """Every resource type of R4 with every element planted, in so many variants of what stands where."""
    from fhir_adapters.landing.rules import resource_types

    for kind in sorted(resource_types()):
        if element(kind, "id") is None or kind == "Bundle":
            continue
        for first in range(variants):
            yield Planter(first).whole(kind)


_DCM = "http://dicom.nema.org/resources/ontology/DCM"
_SUBJECT = {"reference": "Patient/MRN88776655", "display": PLANTED["name"]}
_NOTE = [{"text": f"{PLANTED['name']}, {PLANTED['address']}", "authorString": PLANTED["name"]}]
_NARRATIVE = {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{PLANTED["name"]}</div>'}
_EXTENSION = [{"url": "http://ospedale.example/paziente", "valueString": PLANTED["name"]}]
_IDENTIFIER = [{"system": "http://ospedale.example/richieste", "value": PLANTED["accession-number"]}]


def _concept(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code, "display": PLANTED["name"]}], "text": PLANTED["name"]}


def sound_resources() -> Iterator[dict[str, Any]]:
    """Resources that are sound FHIR, go all the way, and name her wherever a text may stand."""
    common = {"text": _NARRATIVE, "extension": _EXTENSION}
    yield {
        **common,
        "resourceType": "Patient",
        "id": "MRN88776655",
        "active": True,
        "identifier": [
            {"system": "http://hl7.it/sid/codiceFiscale", "value": FISCAL_CODE},
            {
                "system": "http://ospedale.example/mrn",
                "value": PLANTED["record-number"],
                "assigner": {"display": PLANTED["name"]},
            },
        ],
        "name": [{"text": PLANTED["name"], "family": "Zuccarelli", "given": ["Antonietta"]}],
        "telecom": [
            {"system": "phone", "value": PLANTED["telephone"]},
            {"system": "email", "value": PLANTED["e-mail"]},
        ],
        "gender": "female",
        "birthDate": "1947-01-01",
        "address": [
            {
                "line": [PLANTED["address"]],
                "city": "Zuccarelli",
                "state": "Zuccarelli",
                "country": "Zuccarelli",
                "text": PLANTED["address"],
            }
        ],
        "contact": [
            {"name": {"text": PLANTED["name"]}, "telecom": [{"system": "phone", "value": PLANTED["telephone"]}]}
        ],
    }
    yield {
        **common,
        "resourceType": "Organization",
        "id": "ACC44332211",
        "name": PLANTED["name"],
        "identifier": _IDENTIFIER,
    }
    yield {
        **common,
        "resourceType": "Location",
        "id": "l1",
        "name": PLANTED["address"],
        "address": {"line": [PLANTED["address"]]},
    }
    yield {
        **common,
        "resourceType": "Encounter",
        "id": "ACC44332211",
        "identifier": _IDENTIFIER,
        "status": "finished",
        "class": {
            "system": "http://terminology.hl7.org/CodeSystem/v3-ActCode",
            "code": "AMB",
            "display": PLANTED["name"],
        },
        "subject": _SUBJECT,
        "period": {"start": "2021-03-01", "end": "2021-03-01"},
        "serviceProvider": {"reference": "Organization/ACC44332211", "display": PLANTED["name"]},
        "location": [{"location": {"reference": "Location/l1", "display": PLANTED["address"]}}],
    }
    yield {
        **common,
        "resourceType": "Condition",
        "id": "ZCCMNT",
        "code": _concept("http://hl7.org/fhir/sid/icd-10", "C50.9"),
        "subject": _SUBJECT,
        "onsetDateTime": "2020-01-10",
        "abatementString": PLANTED["name"],
        "note": _NOTE,
        "recorder": {"display": PLANTED["name"]},
    }
    for number, value in enumerate(
        (
            {"valueQuantity": {"value": 90, "unit": PLANTED["name"]}},
            {"valueString": f"{PLANTED['name']} {FISCAL_CODE}"},
            {"valueCodeableConcept": _concept("http://ospedale.example/risposte", FISCAL_CODE)},
            {
                "valueQuantity": {
                    "value": 5,
                    "unit": "%",
                    "code": PLANTED["record-number"],
                    "system": "http://unitsofmeasure.org",
                }
            },
            {"component": [{"code": _concept("http://loinc.org", "85337-4"), "valueString": PLANTED["name"]}]},
        )
    ):
        yield {
            **common,
            "resourceType": "Observation",
            "id": f"MRN88776655-{number}",
            "identifier": _IDENTIFIER,
            "status": "final",
            "category": [_concept("http://terminology.hl7.org/CodeSystem/observation-category", "laboratory")],
            "code": _concept("http://loinc.org", "85337-4"),
            "subject": _SUBJECT,
            "encounter": {"identifier": _IDENTIFIER[0], "display": PLANTED["name"]},
            "effectiveDateTime": "2021-03-01",
            "performer": [{"display": PLANTED["name"]}],
            "note": _NOTE,
            **value,
        }
    yield {
        **common,
        "resourceType": "MedicationStatement",
        "id": "m1",
        "status": "active",
        "contained": [
            {
                "resourceType": "Medication",
                "id": "ACC44332211",
                "code": _concept("http://ospedale.example/farmaci", "MRN88776655"),
            }
        ],
        "medicationReference": {"reference": "#ACC44332211", "display": PLANTED["name"]},
        "subject": _SUBJECT,
        "effectivePeriod": {"start": "2021-03-01"},
        "informationSource": {"display": PLANTED["name"]},
        "note": _NOTE,
        "dosage": [{"text": PLANTED["name"], "patientInstruction": PLANTED["address"]}],
    }
    yield {
        **common,
        "resourceType": "DiagnosticReport",
        "id": "r1",
        "identifier": _IDENTIFIER,
        "status": "final",
        "code": _concept("http://loinc.org", "11502-2"),
        "subject": _SUBJECT,
        "effectiveDateTime": "2021-03-01",
        "conclusion": f"{PLANTED['name']}, {FISCAL_CODE}",
        "presentedForm": [
            {
                "contentType": "text/plain",
                "data": base64.b64encode(PLANTED["name"].encode()).decode(),
                "title": PLANTED["name"],
            }
        ],
    }
    yield {
        **common,
        "resourceType": "DocumentReference",
        "id": "d1",
        "status": "current",
        "type": _concept("http://loinc.org", "34133-9"),
        "subject": _SUBJECT,
        "date": "2021-03-01T10:00:00Z",
        "description": PLANTED["name"],
        "content": [{"attachment": {"url": f"https://ospedale.example/{FISCAL_CODE}.pdf", "title": PLANTED["name"]}}],
    }
    yield {
        **common,
        "resourceType": "ImagingStudy",
        "id": "i1",
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{PLANTED['uid']}"}, *_IDENTIFIER],
        "status": "available",
        "subject": _SUBJECT,
        "started": "2021-03-01",
        "description": PLANTED["name"],
        "series": [
            {
                "uid": PLANTED["uid"],
                "modality": {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "CT"},
                "description": PLANTED["name"],
            }
        ],
    }
    yield {
        **common,
        "resourceType": "Specimen",
        "id": "s1",
        "accessionIdentifier": _IDENTIFIER[0],
        "type": _concept("http://snomed.info/sct", "119376003"),
        "subject": _SUBJECT,
        "collection": {"collectedDateTime": "2021-03-01"},
        "note": _NOTE,
    }
    yield {
        **common,
        "resourceType": "Procedure",
        "id": "pr1",
        "status": "completed",
        "code": _concept("http://snomed.info/sct", "392021009"),
        "subject": _SUBJECT,
        "performedDateTime": "2021-02-01",
        "note": _NOTE,
    }
    yield {
        **common,
        "resourceType": "RelatedPerson",
        "id": "rp1",
        "patient": _SUBJECT,
        "name": [{"text": PLANTED["name"]}],
    }
