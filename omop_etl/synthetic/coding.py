"""Which code a site writes for a drug, a diagnosis or a laboratory test, and the site's own code maps."""

import hashlib
from typing import Any

from omop_etl.synthetic.parameters import Parameters
from omop_etl.synthetic.plan import SitePlan

Coding = dict[str, str]


class Coder:
    """The codes of one site. A code of its own has the system `urn:palmares:site:<site>:<drug|laboratory>`."""

    def __init__(self, plan: SitePlan, parameters: Parameters) -> None:
        self.plan, self.parameters = plan, parameters
        self.system: dict[str, str] = parameters["system"]
        self.local: frozenset[str] = frozenset(plan.profile["local"])

    def drug(self, name: str) -> Coding:
        """The coding of a drug."""
        if "drug" in self.local:
            return {"system": self.local_system("drug"), "code": self.drug_code(name), "display": name.upper()}
        entry = self.parameters["drug"][name]
        atc = entry.get("atc_old", entry["atc"]) if self.plan.profile["atc"] == "old" else entry["atc"]
        return {"system": self.system["atc"], "code": atc, "display": name}

    def condition(self, site: str, histology: str, sex: str) -> Coding:
        """The coding of the primary tumour (by histology, where the system knows it) or of a metastatic site."""
        style = str(self.plan.profile["conditions"])
        table = self.parameters["diagnosis"]
        if site == "primary":
            if style == "snomed":
                return {"system": self.system["snomed"], "code": table["primary"][histology]}
            code = table["primary"]["icd9cm_male" if style == "icd9cm" and sex == "male" else style]
            return {"system": self.system[style], "code": code}
        entry = table["metastasis"][site]
        for known in (style, "icd10", "snomed"):
            if known in entry:
                return {"system": self.system[known], "code": entry[known]}
        raise ValueError(f"no code for {site}")

    def histology_known(self) -> bool:
        """Whether this site's codes tell the histology."""
        return self.plan.profile["conditions"] == "snomed"

    def test(self, name: str) -> Coding:
        """The coding of a laboratory test."""
        entry = self.parameters["laboratory"]["test"][name]
        if "laboratory" in self.local:
            return {"system": self.local_system("laboratory"), "code": entry["local"], "display": name}
        return {"system": self.system["loinc"], "code": entry["loinc"]}

    def local_system(self, kind: str) -> str:
        """The system of the site's own codes."""
        return f"urn:palmares:site:{self.plan.id}:{kind}"

    def drug_code(self, name: str) -> str:
        """The site's own code of a drug: six digits that look like those of a hospital pharmacy."""
        return f"9{int(hashlib.md5(f'{self.plan.id}/{name}'.encode(), usedforsecurity=False).hexdigest()[:8], 16) % 10**5:05}"

    def code_maps(self) -> dict[str, list[dict[str, Any]]]:
        """The site's own code maps, one list of rows per kind: system, code, name and the standard concept."""
        maps: dict[str, list[dict[str, Any]]] = {}
        if "drug" in self.local:
            maps["drug"] = [
                {"code": self.drug_code(name), "name": name.upper(), "concept": entry["concept"], "domain": "Drug"}
                for name, entry in self.parameters["drug"].items()
            ]
        if "laboratory" in self.local:
            maps["laboratory"] = [
                {"code": entry["local"], "name": name, "concept": entry["concept"], "domain": "Measurement"}
                for name, entry in self.parameters["laboratory"]["test"].items()
            ]
        return maps
