"""A hospital's eCRF as a registry exports it: Italian CSV files and the column map that reads them back.

The rows are written from the FHIR record of a patient, so that the truth stays the same. What the forms have no place for is
counted in `left_out`: see `mappings/studies/palmares2/ecrf/not_carried.csv`.
"""

import csv
import json
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from fhir_adapters.knowledge import mappings_folder
from omop_etl.synthetic.coding import Coder
from omop_etl.synthetic.parameters import Parameters
from omop_etl.synthetic.plan import SitePlan

if TYPE_CHECKING:
    from omop_etl.synthetic.hospital import Patient

Resource = Mapping[str, Any]

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "pazienti": ("cartella", "cognome", "nome", "codice_fiscale", "sesso", "data_nascita", "data_decesso", "note"),
    "visite": ("cartella", "n", "classe", "inizio", "fine"),
    "diagnosi": ("cartella", "n", "sistema", "codice", "data", "note"),
    "campioni": (
        *("cartella", "n", "campione", "data", "diagnosi", "materiale"),
        *("er", "pgr", "ki67", "grado", "her2_ihc", "her2_ish", "note"),
    ),
    "farmaci": ("cartella", "n", "codice", "dose_mg", "inizio", "fine", "stato", "motivo", "riferito"),
    "rivalutazioni": ("cartella", "n", "data", "modalita", "risposta"),
    "procedure": ("cartella", "n", "procedura", "data", "inizio", "fine"),
    "stato": ("cartella", "n", "data", "menopausa", "ecog", "peso", "altezza", "consenso", "linea"),
    "laboratorio": (
        *("cartella", "n", "visita", "prelievo", "emoglobina", "neutrofili", "piastrine", "alt", "ast"),
        *("fosfatasi_alcalina", "creatinina", "bilirubina"),
    ),
}
_HOSPITAL = frozenset(["pazienti", "visite", "laboratorio"])  # what a site that sends messages has there
_TESTS = {
    "haemoglobin": "emoglobina",
    "neutrophils": "neutrofili",
    "platelets": "piastrine",
    "alt": "alt",
    "ast": "ast",
    "alkaline_phosphatase": "fosfatasi_alcalina",
    "creatinine": "creatinina",
    "bilirubin": "bilirubina",
}


def parts_folder() -> Path:
    """Where the parts of the column map stand."""
    return mappings_folder() / "studies" / "palmares2" / "ecrf"


class Forms:
    """The CSV files of one site. `registry_only`: patients, visits and laboratory come another way."""

    def __init__(self, folder: Path, plan: SitePlan, parameters: Parameters, *, registry_only: bool = False) -> None:
        self.folder, self.plan, self.parameters = folder, plan, parameters
        self.zone = ZoneInfo(parameters["hospital"]["zone"])
        self.coder = Coder(plan, parameters)
        self.names = [name for name in COLUMNS if not (registry_only and name in _HOSPITAL)]
        self.rows: dict[str, list[dict[str, str]]] = {name: [] for name in self.names}
        self.counts: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self._words = _words()
        self._tests = {
            (coding["system"], coding["code"]): column
            for name, column in _TESTS.items()
            for coding in (self.coder.test(name),)
        }
        findings = parameters["finding"]
        self._findings = {
            findings["er"]: "er",
            findings["pgr"]: "pgr",
            findings["ki67"]: "ki67",
            findings["grade"]: "grado",
            findings["her2_ihc"]: "her2_ihc",
            findings["her2_ish"]: "her2_ish",
        }
        body = parameters["laboratory"]["body"]
        self._body = {body["weight"]["loinc"]: "peso", body["height"]["loinc"]: "altezza"}

    def add(self, patient: "Patient", resources: Sequence[Resource]) -> None:
        """The rows of one patient."""
        record = _Record(self, patient)
        for resource in resources:
            record.take(resource)
        record.close()

    def close(self) -> None:
        """Write what was gathered, in Windows-1252."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, rows in self.rows.items():
            path = self.folder / f"{name}.csv"
            with path.open("w", encoding="cp1252", errors="replace", newline="") as file:
                writer = csv.DictWriter(file, [*COLUMNS[name], "aggiornato"], delimiter=";", lineterminator="\r\n")
                writer.writeheader()
                writer.writerows(rows)

    def column_map(self) -> str:
        """The site's column map as TOML: the parts for the files that it writes."""
        profile = self.plan.profile
        parts = ["head", "registry", f"drugs-{profile['drugs']}"]
        parts += [
            part
            for part, name in (("patients", "pazienti"), ("visits", "visite"), ("laboratory", "laboratorio"))
            if name in self.names
        ]
        text = "".join((parts_folder() / f"{part}.toml").read_text(encoding="utf-8") for part in parts)
        local = "drug" in self.coder.local
        text = text.replace(
            "@system:drug@", self.coder.local_system("drug") if local else self.parameters["system"]["atc"]
        )
        text = text.replace("@drugs@", "9[0-9]{5}" if local else "[A-Z][0-9]{2}[A-Z]{2}[0-9]{2}")
        for name in _TESTS:
            coding = self.coder.test(name)
            inline = f'{{ system = "{coding["system"]}", code = "{coding["code"]}" }}'
            text = text.replace(f"@test:{name}@", inline)
        return text

    def day(self, text: str) -> str:
        """A FHIR date or dateTime as Italy writes it, in local time; as precise as it is."""
        if len(text) > 10:
            local = datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(self.zone)
            return f"{local:%d/%m/%Y %H:%M}"
        return "/".join(reversed(text.split("-")))

    def touched(self, resource: Resource) -> str:
        """When the record was last changed, to the second."""
        text = resource.get("meta", {}).get("lastUpdated")
        if not text:
            return ""
        return f"{datetime.fromisoformat(text.replace('Z', '+00:00')).astimezone(self.zone):%d/%m/%Y %H:%M:%S}"

    def word(self, name: str, code: str) -> str:
        """The form's word for a code, '' when its list has none."""
        return self._words[name].get(code, "")


def _words() -> dict[str, dict[str, str]]:
    """list → code → the word that the forms write."""
    found: dict[str, dict[str, str]] = {}
    for part in ("head", "drugs-MedicationStatement", "drugs-MedicationAdministration"):
        text = (parts_folder() / f"{part}.toml").read_text(encoding="utf-8")
        for name, entries in tomllib.loads(text).get("lists", {}).items():
            words = found.setdefault(name, {})
            for word, value in entries.items():
                words[value if isinstance(value, str) else json.dumps(value, sort_keys=True)] = word
    return found


def _number(value: Any) -> str:
    return str(value).replace(".", ",")


class _Record:
    """One patient's rows while they are written."""

    def __init__(self, forms: Forms, patient: "Patient") -> None:
        self.forms, self.patient = forms, patient
        self.numbers: dict[str, dict[str, str]] = {}
        self.samples: dict[tuple[str, str, str], dict[str, str]] = {}
        self.panels: dict[tuple[str, str, str], dict[str, str]] = {}

    def take(self, resource: Resource) -> None:
        """One resource."""
        writers = {
            "Patient": self._patient,
            "Encounter": self._encounter,
            "Condition": self._condition,
            "Specimen": self._specimen,
            "MedicationStatement": self._drug,
            "MedicationAdministration": self._drug,
            "Procedure": self._procedure,
            "Observation": self._observation,
        }
        kind = str(resource.get("resourceType"))
        written = kind in writers and writers[kind](resource)
        (self.forms.counts if written else self.forms.left_out)[kind] += 1

    def close(self) -> None:
        """Put the rows that were gathered over several resources into their files."""
        for name, gathered in (("campioni", self.samples), ("laboratorio", self.panels)):
            for row in gathered.values():
                self._row(name, row)

    def _row(self, name: str, row: dict[str, str], resource: Resource | None = None) -> bool:
        if name not in self.forms.rows:
            return False
        row.setdefault("cartella", self.patient.number)
        if "n" in COLUMNS[name] and "n" not in row:
            row["n"] = self._count(name)
        if resource is not None:
            row["aggiornato"] = self.forms.touched(resource)
        self.forms.rows[name].append(row)
        return True

    def _count(self, name: str) -> str:
        counter = self.numbers.setdefault(f"#{name}", {"": "0"})
        counter[""] = str(int(counter[""]) + 1)
        return counter[""]

    def _named(self, name: str, identifier: str) -> str:
        """The number of a row that others refer to."""
        known = self.numbers.setdefault(name, {})
        return known.setdefault(identifier, str(len(known) + 1))

    def _referred(self, name: str, resource: Resource, *path: str | int) -> str:
        place: Any = resource
        for step in path:
            place = place[step] if (isinstance(step, int) and len(place) > step) or step in place else {}
        identifier = str(place.get("reference", "") if isinstance(place, dict) else "").rpartition("/")[2]
        return self.numbers.get(name, {}).get(identifier, "")

    def _patient(self, resource: Resource) -> bool:
        person = self.patient.identity
        row = {
            "cognome": person.surname,
            "nome": person.given,
            "codice_fiscale": person.codice_fiscale if self.patient.token else "",
            "sesso": self.forms.word("sesso", resource["gender"]),
            "data_nascita": f"{person.birth:%d/%m/%Y}",
            "data_decesso": self.forms.day(resource.get("deceasedDateTime", "")),
            "note": f"{person.given} {person.surname}, segue altrove",
        }
        return self._row("pazienti", row, resource)

    def _encounter(self, resource: Resource) -> bool:
        row = {
            "n": self._named("visite", resource["id"]),
            "classe": self.forms.word("classe", resource["class"]["code"]),
            "inizio": self.forms.day(resource["period"]["start"]),
            "fine": self.forms.day(resource["period"].get("end", "")),
        }
        return bool(row["classe"]) and resource["status"] == "finished" and self._row("visite", row, resource)

    def _condition(self, resource: Resource) -> bool:
        coding = resource["code"]["coding"][0]
        row = {
            "n": self._named("diagnosi", resource["id"]),
            "sistema": self.forms.word("sistema", coding["system"]),
            "codice": coding["code"],
            "data": self.forms.day(resource["onsetDateTime"]),
            "note": f"paziente {self.patient.identity.surname}",
        }
        return bool(row["sistema"]) and self._row("diagnosi", row, resource)

    def _specimen(self, resource: Resource) -> bool:
        number = self._named("campione", resource["id"])
        row = self._sample(number, resource["collection"]["collectedDateTime"], "", resource)
        row["materiale"] = resource["type"]["coding"][0]["code"]
        return True

    def _sample(self, specimen: str, day: str, diagnosis: str, resource: Resource) -> dict[str, str]:
        """The row of a sample; one without a Specimen is known by its day and the diagnosis that was sampled."""
        key = (specimen, "" if specimen else day, "" if specimen else diagnosis)
        if key not in self.samples:
            number = specimen or self._count("campione-senza")
            self.samples[key] = {
                "cartella": self.patient.number,
                "n": number,
                "campione": specimen,
                "data": self.forms.day(day),
                "aggiornato": self.forms.touched(resource),
            }
        return self.samples[key]

    def _drug(self, resource: Resource) -> bool:
        dose = resource.get("dosage")
        quantity = dose[0]["doseAndRate"][0]["doseQuantity"] if isinstance(dose, list) else (dose or {}).get("dose", {})
        reasons = {key: resource[key] for key in ("statusReason",) if key in resource}
        row = {
            "codice": resource["medicationCodeableConcept"]["coding"][0]["code"],
            "dose_mg": _number(quantity.get("value", "")),
            "inizio": self.forms.day(resource["effectivePeriod"]["start"]),
            "fine": self.forms.day(resource["effectivePeriod"].get("end", "")),
            "stato": self.forms.word("stato", resource["status"]),
            "motivo": self.forms.word("motivo_fine", json.dumps(reasons, sort_keys=True)) if reasons else "",
            "riferito": self.forms.day(resource.get("dateAsserted", "")),
        }
        return bool(row["stato"]) and self._row("farmaci", row, resource)

    def _procedure(self, resource: Resource) -> bool:
        period = resource.get("performedPeriod", {})
        row = {
            "procedura": self.forms.word("procedura", resource["code"]["coding"][0]["code"]),
            "data": self.forms.day(resource.get("performedDateTime", "")),
            "inizio": self.forms.day(period.get("start", "")),
            "fine": self.forms.day(period.get("end", "")),
        }
        return bool(row["procedura"]) and resource["status"] == "completed" and self._row("procedure", row, resource)

    def _observation(self, resource: Resource) -> bool:
        coding = resource["code"]["coding"][0]
        system, code = coding["system"], coding["code"]
        if resource["status"] != "final":
            return False
        if code in self.forms._findings:
            return self._finding(self.forms._findings[code], resource)
        if (system, code) in self.forms._tests:
            return self._test(self.forms._tests[system, code], resource)
        if system == "urn:palmares:tumour-response":
            modality = resource["method"]["coding"][0]["code"]
            row = {
                "data": self.forms.day(resource["effectiveDateTime"]),
                "risposta": self.forms.word("risposta", code),
                "modalita": self.forms.word("modalita", modality),
            }
            return bool(row["risposta"] and row["modalita"]) and self._row("rivalutazioni", row, resource)
        return self._state(code, resource)

    def _finding(self, column: str, resource: Resource) -> bool:
        diagnosis = self._referred("diagnosi", resource, "focus", 0)
        row = self._sample(
            self._referred("campione", resource, "specimen"), resource["effectiveDateTime"], diagnosis, resource
        )
        row["diagnosi"] = diagnosis
        if column in row:
            return False
        if column == "her2_ish":
            kept = {key: resource[key] for key in ("valueCodeableConcept", "dataAbsentReason") if key in resource}
            row[column] = self.forms.word("ish", json.dumps(kept, sort_keys=True))
        elif "valueCodeableConcept" in resource:
            value = resource["valueCodeableConcept"]["coding"][0]["code"]
            row[column] = self.forms.word("grado" if column == "grado" else "ihc", value)
        else:
            quantity = resource["valueQuantity"]
            row[column] = f"{quantity.get('comparator', '')} {_number(quantity['value'])}".strip()
        row["aggiornato"] = max(row["aggiornato"], self.forms.touched(resource), key=_sortable)
        return bool(row[column])

    def _test(self, column: str, resource: Resource) -> bool:
        if "laboratorio" not in self.forms.rows:
            return False
        visit = self._referred("visite", resource, "encounter")
        when = resource["effectiveDateTime"]
        key = (when, visit, str(sum(one[0] == when and column in row for one, row in self.panels.items())))
        row = self.panels.setdefault(
            key, {"visita": visit, "prelievo": self.forms.day(when), "aggiornato": self.forms.touched(resource)}
        )
        row[column] = _number(resource["valueQuantity"]["value"])
        row["aggiornato"] = max(row["aggiornato"], self.forms.touched(resource), key=_sortable)
        return True

    def _state(self, code: str, resource: Resource) -> bool:
        forms = self.forms
        row = {"data": forms.day(resource["effectiveDateTime"])}
        if code == "menopausal-status":
            row["menopausa"] = forms.word("menopausa", resource["valueCodeableConcept"]["coding"][0]["code"])
        elif code == forms.parameters["finding"]["ecog"]:
            row["ecog"] = forms.word("ecog", resource["valueCodeableConcept"]["coding"][0]["code"])
        elif code in forms._body:
            row[forms._body[code]] = _number(resource["valueQuantity"]["value"])
        elif code == "consent":
            row = {"consenso": row["data"]}
        elif code == "line-of-therapy":
            row["linea"] = str(resource["valueInteger"])
        else:
            return False
        return all(row.values()) and self._row("stato", row, resource)


def _sortable(text: str) -> tuple[str, ...]:
    """dd/mm/yyyy HH:MM:SS in the order of time."""
    return (text[6:10], text[3:5], text[:2], text[11:])
