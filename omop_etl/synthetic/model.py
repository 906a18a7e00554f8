"""A human's history as it truly happened, before any hospital wrote it down. Days are local dates."""

from dataclasses import dataclass, field
from datetime import date

from omop_etl.synthetic.parameters import Scenario


@dataclass
class Diagnosis:
    """The primary tumour (`site` "primary") or one site of advanced disease, with the day it was diagnosed."""

    site: str
    day: date


@dataclass
class Sample:
    """A biopsy: `origin` primary or metastatic, what it was taken from (index of `History.diagnoses`), its findings.

    ER, PgR and Ki-67 in percent (None: not on record); `er_below` marks a finding written as "< 1 %".
    `ihc` 0, 1+, 2+, 3+ or None; `ish` amplified, not-amplified, not-performed or None.
    """

    day: date
    origin: str
    diagnosis: int
    er: int | None
    pgr: int | None
    ki67: int | None
    grade: int | None
    ihc: str | None
    ish: str | None = None
    er_below: bool = False


@dataclass
class Segment:
    """One drug at one dose, from `start` to `end` (both days included; None: still taken). `line` 0 is (neo)adjuvant."""

    drug: str
    start: date
    end: date | None
    dose: float
    line: int
    stop_reason: str | None = None


@dataclass
class Assessment:
    """A tumour assessment: CR, PR, SD or PD."""

    day: date
    response: str
    modality: str


@dataclass
class Progression:
    """A progression as declared: what it was seen by, new site or None, whether the same drugs went on, local therapy."""

    day: date
    line: int
    modality: str
    new_site: str | None = None
    continued: bool = False
    local_therapy: str | None = None


@dataclass
class Line:
    """A line of therapy: its number, first and last day (None: it goes on), its drugs, and what ended it."""

    number: int
    start: date
    end: date | None
    drugs: tuple[str, ...]
    reason: str | None = None


@dataclass
class Operation:
    """`kind` surgery or radiotherapy; `last` is the last day of a radiotherapy course."""

    kind: str
    day: date
    last: date | None = None


@dataclass
class History:
    """One human. `index` is day 0 when a CDK4/6 inhibitor was started for advanced disease, else None."""

    person: str
    scenario: Scenario
    sex: str
    birth: date
    anchor: date  # the index day, or the day that stands for it when nothing was started
    tidy: bool = False  # of the clean site
    lead: int = 0  # days before the index on which the first drug for advanced disease was begun
    index: date | None = None
    index_drug: str | None = None
    de_novo: bool = False
    resistance: str = "sensitive"  # sensitive, primary, secondary
    histology: str = "nst"
    low_pgr: bool = False
    menopause: str | None = None
    primary: date = date.min
    advanced: date | None = None
    diagnoses: list[Diagnosis] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    chosen: int | None = None  # the sample of criterion 3, by construction
    segments: list[Segment] = field(default_factory=list)
    assessments: list[Assessment] = field(default_factory=list)
    progressions: list[Progression] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    visits: list[date] = field(default_factory=list)
    stays: list[tuple[date, date]] = field(default_factory=list)
    death: date | None = None
    lost: date | None = None
    gap_after: date | None = None  # the assessment before a planted gap
    ecog: int | None = 0  # None: not on record
    consent: date | None = None  # of one who was enrolled after the index
    declared: list[tuple[int, date]] = field(default_factory=list)  # lines as the site declares them: number, first day
    answers: dict[str, str] = field(default_factory=dict)
