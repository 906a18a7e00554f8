"""The ways in which a hospital's data come, each behind the same three calls: add a record, close, count."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from omop_etl.synthetic.forms import Forms
from omop_etl.synthetic.messages import Messages
from omop_etl.synthetic.parameters import Parameters
from omop_etl.synthetic.plan import FHIR_WAYS, SitePlan
from omop_etl.synthetic.write import Files

if TYPE_CHECKING:
    from omop_etl.synthetic.defects import Additions
    from omop_etl.synthetic.hospital import Patient

Resources = Sequence[dict[str, Any]]


class Writer(Protocol):
    """What writes the records of a site."""

    counts: Counter[str]
    left_out: Counter[str]

    def add(self, resources: Resources, additions: "Additions | None" = None, patient: "Patient | None" = None) -> None:
        """One record: a patient's, or the hospital's own."""
        ...

    def close(self, sites: Path) -> None:
        """Write what was gathered, and into the folder of site settings what reads it back."""
        ...


def writer_of(folder: Path, plan: SitePlan, parameters: Parameters) -> Writer:
    """The writer of a site, below its folder."""
    if plan.way in FHIR_WAYS:
        return _AsFhir(folder, plan)
    return _AsForms(folder, plan, parameters, messages=plan.way == "hl7v2")


class _AsFhir:
    def __init__(self, folder: Path, plan: SitePlan) -> None:
        (folder / "fhir").mkdir(parents=True)
        self._files = Files(folder / "fhir", plan)
        self.counts, self.left_out = self._files.counts, Counter[str]()

    def add(self, resources: Resources, additions: "Additions | None" = None, patient: "Patient | None" = None) -> None:
        name = f"{patient.registration.number + 1:05}" if patient else ""
        self._files.add(resources, additions, name=name)

    def close(self, sites: Path) -> None:
        self._files.close()


class _AsForms:
    """eCRF tables, and for a site that sends HL7 v2 its messages."""

    def __init__(self, folder: Path, plan: SitePlan, parameters: Parameters, *, messages: bool) -> None:
        folder.mkdir(parents=True)
        self._plan = plan
        self._forms = Forms(folder / "tables", plan, parameters, registry_only=messages)
        self._messages = Messages(folder / "messages", plan, parameters) if messages else None
        self.counts, self.left_out = self._forms.counts, self._forms.left_out

    def add(self, resources: Resources, additions: "Additions | None" = None, patient: "Patient | None" = None) -> None:
        if patient is None:  # the hospital itself is no row of a form
            self.left_out.update(one["resourceType"] for one in resources)
            return
        rest = resources
        if self._messages is not None:
            self._messages.add(patient, resources)
            rest = [one for one in resources if not self._messages.takes(one)]
        self._forms.add(patient, rest)

    def close(self, sites: Path) -> None:
        maps = sites / "maps"
        maps.mkdir(exist_ok=True)
        self._forms.close()
        (maps / f"{self._plan.id}.toml").write_text(self._forms.column_map(), encoding="utf-8")
        if self._messages is not None:
            self._messages.close()
            self.counts.update(self._messages.counts)
            (maps / f"{self._plan.id}-hl7v2.toml").write_text(self._messages.site_map(), encoding="utf-8")
