"""The shape of the quality data, `data.json`: what the pages, the metrics and anyone else may count on.

One document of the centre (`scope = "centre"`, all sites) or of one hospital (`scope = "site"`, one site, without the parts that
need the others). Rules that hold everywhere:

- A share is a number from 0 to 1, or null where nothing was looked at. A threshold is in percent, as in thresholds.toml.
- A date is `YYYY-MM-DD`, an instant is ISO 8601 in UTC. A verdict is PASS, WARN or BLOCK.
- Lists are sorted (sites by id, the rest as each says), so that the same input gives the same document but for `made_at`.
- No date of a patient, no pseudonym, no id of a record and no value stands here: counts, codes of vocabularies, names of checks.
"""

from typing import Literal, TypedDict

FORMAT = 1
Verdict = Literal["PASS", "WARN", "BLOCK"]


class Family(TypedDict):
    """Checks of one kind: `G-REQUIRED` stands for one check per required column, `G-DEATH-02` for itself. A row of the matrix."""

    code: str
    title: str
    category: str  # Kahn: Conformance, Completeness, Plausibility
    subcategory: str
    level: str  # TABLE, FIELD, CONCEPT (OHDSI's levels), FILE (of the slice's files), STUDY
    dqd: str | None  # the check type of OHDSI's Data Quality Dashboard, e.g. isRequired
    place: Literal["site", "centre"]  # where it runs
    explanation: str
    remedy: str


class Result(TypedDict):
    """What one check found at one site: every check that is not PASS, and every check of the study whatever it says."""

    site: str
    code: str
    family: str
    title: str
    table: str
    column: str
    unit: str  # what is counted: records, persons, …
    numerator: int
    denominator: int
    share: float | None
    warn: float | None  # percent; above it WARN
    block: float | None  # percent; above it BLOCK
    severity: Literal["BLOCK", "WARN", "REPORT"]
    verdict: Verdict
    message: str
    override: "Override | None"


class Override(TypedDict):
    """A check that someone lets through, by name, with a reason and an end."""

    site: str
    check: str
    by: str
    reason: str
    until: str
    state: Literal["applied", "not needed", "expired", "refused"]
    note: str


class Cell(TypedDict):
    """One site × one family: the worst verdict of its checks."""

    site: str
    family: str
    verdict: Verdict
    checks: int
    broken: int
    worst: str | None  # the code of the worst check, where one is broken
    share: float | None  # of the worst check, or of the only one


class Notice(TypedDict):
    """What a site told when its gate said BLOCK and nothing else could leave (omop_etl/submission/notice.py)."""

    since: str  # when it told so for the first time since its last submission
    said_at: str  # when it told what is shown now
    number: str  # of the run
    extracted_to: str | None
    persons: int
    rows: int
    stands: bool  # whether an older submission stands in the intake, and so in the warehouse


class SiteFact(TypedDict):
    """One hospital: the submission that counts now. Of one that is blocked since: `verdict` and the counts of checks are those of its
    notice, the rest is of the submission that stands, or null where there is none."""

    site: str
    name: str
    number: str | None
    received_at: str | None  # when the centre took it in
    extracted_to: str | None
    verdict: Verdict | None  # of its gate; None for a slice that came without one
    centre_verdict: Verdict | None  # of the checks that run at the centre; None where nothing stands
    persons: int | None
    analysable: int | None  # with a CDK4/6 inhibitor
    rows: int | None
    checks: int
    passed: int
    warned: int
    blocked: int
    unmapped_records: int | None
    quarantined: int | None
    data_docs: str | None  # path of GX's pages, relative to this file, where they are at hand
    dqd_results: str | None  # path of the DQD results JSON, relative to this file
    notice: Notice | None  # where the site is blocked


class TrendPoint(TypedDict):
    """One submission of one site, oldest first within a site."""

    site: str
    number: str
    received_at: str
    extracted_to: str | None
    verdict: Verdict
    persons: int
    analysable: int
    rows: int
    unmapped_records: int
    quarantined: int
    checks: int
    passed: int
    warned: int
    blocked: int
    completeness: dict[str, float | None]  # variable → share known


class Recency(TypedDict):
    """How lately the patients of a site that live were seen, in months before `reference` (see QualityData)."""

    site: str
    patients: int
    dead: int
    alive: int
    late: int  # alive and not seen for longer than `late_months`
    late_share: float | None
    verdict: Verdict
    median_months: float | None
    quartiles_months: tuple[float, float] | None
    histogram: list[int]  # alive patients by whole months since they were seen: 0, 1, … the last bin holds the rest


class Variable(TypedDict):
    """A variable of the study whose completeness is watched."""

    code: str  # of its check, e.g. G-COMPLETE-02
    name: str  # ER
    goal: float | None  # percent that must be known; None: reported only


class Known(TypedDict):
    """One cell of the completeness heat map."""

    site: str
    variable: str  # code of the Variable
    known: int
    of: int
    share: float | None
    verdict: Verdict


class FunnelPoint(TypedDict):
    """A site's event rate against all sites'. Limits are exact (Poisson)."""

    site: str
    events: int
    person_years: float
    rate: float | None  # per 100 person-years
    low: float  # limits at this site's person-years, 99.8 %
    high: float
    outside: Literal[-1, 0, 1]
    verdict: Verdict


class FunnelLimit(TypedDict):
    """The limits at some person-years, to draw the lines."""

    person_years: float
    low_95: float
    high_95: float
    low_998: float
    high_998: float


class Funnel(TypedDict):
    code: str  # of the check
    measure: str  # progression, death
    title: str
    rate: float | None  # of all sites, per 100 person-years
    points: list[FunnelPoint]
    limits: list[FunnelLimit]


class UnmappedSite(TypedDict):
    site: str
    codes: int
    records: int
    share: float | None  # of the records whose code can be mapped


class UnmappedCode(TypedDict):
    """A source code without a standard concept; most records first."""

    vocabulary_id: str
    source_system: str
    source_code: str
    source_name: str
    cdm_field: str
    reason: str
    sites: list[str]
    records: int


class Balance(TypedDict):
    """What became of the resources of one type at one site: read = written + merged + excluded + quarantined."""

    site: str
    resource_type: str
    read: int
    written: int
    merged: int
    excluded: int
    quarantined: int
    rows: int


class Loss(TypedDict):
    """Why resources are not in the CDM."""

    site: str
    resource_type: str
    outcome: str
    reason: str
    resources: int


class Drift(TypedDict):
    """A variable whose distribution has moved: against the site's own previous submission, or against all other sites."""

    site: str
    code: str  # of the check
    variable: str
    against: Literal["previous", "others"]
    index: float  # population stability index; 0 is no change
    p_value: float
    verdict: Verdict
    here: dict[str, float]  # category → share
    there: dict[str, float]
    n_here: int
    n_there: int


class Duplicates(TypedDict):
    """Persons who are known at two sites (one linkage token), or twice at one site (both names equal)."""

    site: str
    other: str
    persons: int


class QueryCount(TypedDict):
    """The queries to a site's data manager, by what became of them."""

    site: str
    open: int
    answered: int
    resolved: int
    reappeared: int


class Condition(TypedDict):
    """What must hold before data are locked."""

    code: str
    title: str
    met: bool
    text: str
    sites: list[str]  # where it does not hold


class Readiness(TypedDict):
    ready: bool
    conditions: list[Condition]
    sites_ready: list[str]
    sites_not_ready: list[str]


class Mend(TypedDict):
    """Something for a site to mend; the first one first: what blocks, then what touches most patients."""

    site: str
    rank: int
    code: str
    title: str
    verdict: Verdict
    records: int
    unit: str
    more: list[str]  # other checks of the same kind that the site breaks, on other columns
    remedy: str
    why: str


class Change(TypedDict):
    """What is different from the site's previous submission."""

    site: str
    kind: Literal["new", "gone", "better", "worse", "count"]
    code: str  # of the check; or persons, rows, unmapped_records, quarantined
    title: str
    before: float | None
    now: float | None
    text: str


class Comparison(TypedDict):
    """A site's share for a check of the study beside the other sites': lower is better."""

    site: str
    code: str
    share: float | None
    median: float | None
    best: float | None
    worst: float | None
    rank: int | None  # 1 is the best of the sites that have something to look at
    sites: int


class QualityData(TypedDict):
    format: int
    scope: Literal["centre", "site"]
    made_at: str
    study: str
    cut_off: str | None  # the study's; None when it has none
    reference: str | None  # the day to which recency is counted: the cut-off, or the extraction where that is earlier
    late_months: int
    verdicts: dict[Verdict, int]  # sites by verdict
    families: list[Family]
    sites: list[SiteFact]
    matrix: list[Cell]
    results: list[Result]
    overrides: list[Override]
    trend: list[TrendPoint]
    recency: list[Recency]
    variables: list[Variable]
    completeness: list[Known]
    funnels: list[Funnel]
    unmapped_sites: list[UnmappedSite]
    unmapped_codes: list[UnmappedCode]
    balance: list[Balance]
    losses: list[Loss]
    drift: list[Drift]
    duplicates: list[Duplicates]
    queries: list[QueryCount]
    readiness: Readiness
    mend: list[Mend]
    changes: list[Change]
    comparison: list[Comparison]
    dqd_results: str | None  # path of OHDSI's results JSON of the warehouse, relative to this file
