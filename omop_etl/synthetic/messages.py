"""A hospital's interface engine: ADT and ORU messages in HL7 v2, and the map of the source that reads them back.

Patients, visits and laboratory results of a patient's FHIR record become messages, as they would have been sent at the time:
registration, admission and discharge, results by panel, deaths. One file is a batch, the other a log of MLLP frames.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from omop_etl.synthetic.coding import Coder
from omop_etl.synthetic.parameters import Parameters
from omop_etl.synthetic.plan import SitePlan

if TYPE_CHECKING:
    from omop_etl.synthetic.hospital import Patient

Resource = Mapping[str, Any]
_CLASSES = {"AMB": "O", "IMP": "I"}
_SEX = {"female": "F", "male": "M"}


class Messages:
    """The HL7 v2 files of one site."""

    def __init__(self, folder: Path, plan: SitePlan, parameters: Parameters) -> None:
        self.folder, self.plan, self.parameters = folder, plan, parameters
        self.zone = ZoneInfo(parameters["hospital"]["zone"])
        self.coder = Coder(plan, parameters)
        self.adt: list[str] = []
        self.oru: list[str] = []
        self.counts: Counter[str] = Counter()
        self._tests = {
            (coding["system"], coding["code"]): name
            for name in parameters["laboratory"]["test"]
            for coding in (self.coder.test(name),)
        }

    def takes(self, resource: Resource) -> bool:
        """Whether messages tell of this resource; whatever else there is goes into the registry's forms."""
        if resource.get("resourceType") in ("Patient", "Encounter"):
            return True
        if resource.get("resourceType") != "Observation":
            return False
        coding = resource["code"]["coding"][0]
        return (coding["system"], coding["code"]) in self._tests

    def add(self, patient: "Patient", resources: Sequence[Resource]) -> None:
        """The messages of one patient."""
        visits: dict[str, str] = {}
        panels: dict[tuple[str, str], list[Resource]] = {}
        for resource in resources:
            if not self.takes(resource):
                continue
            kind = resource["resourceType"]
            self.counts[kind] += 1
            if kind == "Patient":
                self._person(patient, resource)
            elif kind == "Encounter":
                visits[resource["id"]] = f"{patient.number}-V{len(visits) + 1:03}"
                self._visit(patient, resource, visits[resource["id"]])
            else:
                visit = resource.get("encounter", {}).get("reference", "").rpartition("/")[2]
                panels.setdefault((resource["effectiveDateTime"], visits.get(visit, "")), []).append(resource)
        for number, ((when, visit), results) in enumerate(panels.items(), start=1):
            self._results(patient, when, visit, results, f"{patient.number}-L{number:03}")

    def close(self) -> None:
        """Write what was gathered: ADT as a batch in Windows-1252, results as a log of frames in UTF-8."""
        self.folder.mkdir(parents=True, exist_ok=True)
        batch = [
            f"FHS|^~\\&|ADT|{self.plan.id}",
            f"BHS|^~\\&|ADT|{self.plan.id}",
            *self.adt,
            f"BTS|{len(self.adt)}",
            "FTS|1",
        ]
        (self.folder / "adt.hl7").write_bytes(("\r".join(batch) + "\r").encode("cp1252", "replace"))
        frames = "".join(f"\x0b{message}\r\x1c\r" for message in self.oru)
        (self.folder / "results.hl7").write_bytes(frames.encode())

    def site_map(self) -> str:
        """The map of the source: the codes of this laboratory."""
        codes = (
            [self.coder.test(name)["code"] for name in self._tests.values()] if "laboratory" in self.coder.local else []
        )
        listed = ", ".join(f'"{code}"' for code in ["PROFILO", *codes])
        system = self.coder.local_system("laboratory")
        return (
            "# The coding systems of a hospital that does not exist, as its messages name them.\n\n"
            f'[systems]\nLAB = {{ system = "{system}", codes = [{listed}] }}\n'
        )

    def _time(self, text: str) -> str:
        if len(text) <= 10:
            return text.replace("-", "")
        return f"{datetime.fromisoformat(text.replace('Z', '+00:00')).astimezone(self.zone):%Y%m%d%H%M%S}"

    def _header(self, kind: str, time: str, number: int, charset: str) -> str:
        sender = "ADT" if kind.startswith("ADT") else "LIS"
        return f"MSH|^~\\&|{sender}|{self.plan.id}|ETL|{self.plan.id}|{time}||{kind}|{sender}{number:07}|P|2.5||||||{charset}"

    def _pid(self, patient: "Patient", death: str = "") -> str:
        person = patient.identity
        numbers = f"{patient.number}^^^{self.plan.id.upper()}^MR"
        if patient.token:
            numbers += f"~{person.codice_fiscale}^^^MEF^NNITA"
        fields = [""] * 31
        fields[:4] = ["PID", "1", "", numbers]
        fields[5] = f"{person.surname.upper()}^{person.given.upper()}"
        fields[7], fields[8] = f"{person.birth:%Y%m%d}", _SEX[person.sex]
        fields[11], fields[13] = "VIA ROMA 1^^MILANO^MI^20121^ITA", "^PRN^PH^^39^02^5551234"
        if death:
            fields[29], fields[30] = death, "Y"
        return "|".join(fields).rstrip("|")

    def _message(self, kind: str, time: str, *segments: str) -> None:
        if kind.startswith("ADT"):
            event = f"EVN|{kind[4:7]}|{time}"
            self.adt.append("\r".join([self._header(kind, time, len(self.adt) + 1, "8859/1"), event, *segments]))
        else:
            self.oru.append("\r".join([self._header(kind, time, len(self.oru) + 1, "UNICODE UTF-8"), *segments]))

    def _person(self, patient: "Patient", resource: Resource) -> None:
        time = self._time(resource["meta"]["lastUpdated"])
        death = self._time(resource.get("deceasedDateTime", ""))
        self._message("ADT^A31^ADT_A05", time, self._pid(patient, death))

    def _visit(self, patient: "Patient", resource: Resource, number: str) -> None:
        start, end = self._time(resource["period"]["start"]), self._time(resource["period"].get("end", ""))
        touched = self._time(resource["meta"]["lastUpdated"])
        code = _CLASSES[resource["class"]["code"]]
        begins = "ADT^A01^ADT_A01" if code == "I" else "ADT^A04^ADT_A01"
        self._message(begins, min(start, touched), self._pid(patient), _pv1(code, number, start, ""))
        if end:
            self._message("ADT^A03^ADT_A03", touched, self._pid(patient), _pv1(code, number, start, end))

    def _results(self, patient: "Patient", when: str, visit: str, results: Sequence[Resource], order: str) -> None:
        time = self._time(when)
        touched = max(self._time(one["meta"]["lastUpdated"]) for one in results)
        segments = [self._pid(patient)]
        if visit:
            segments.append(_pv1("O", visit, "", ""))
        fields = [""] * 26
        fields[:5] = ["OBR", "1", order, f"{order}^LIS", "PROFILO^PROFILO EMATOCHIMICO^LAB"]
        fields[7], fields[22], fields[24], fields[25] = time, touched, "LAB", "F"
        segments.append("|".join(fields))
        for place, one in enumerate(results, start=1):
            coding = one["code"]["coding"][0]
            name = self._tests[coding["system"], coding["code"]]
            system = "LAB" if "laboratory" in self.coder.local else "LN"
            quantity = one["valueQuantity"]
            segments.append(
                f"OBX|{place}|NM|{coding['code']}^{name.upper()}^{system}||{quantity['value']}|{quantity['code']}|||||F|||{time}"
            )
        self._message("ORU^R01^ORU_R01", touched, *segments)


def _pv1(code: str, number: str, start: str, end: str) -> str:
    fields = [""] * 46
    fields[:3] = ["PV1", "1", code]
    fields[7] = "1234^VERDI^LUCIA"
    fields[19], fields[44], fields[45] = number, start, end
    return "|".join(fields).rstrip("|")
