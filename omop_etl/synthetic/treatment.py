"""Drugs: the index regimen segment by segment, what was given before it, and the regimens of later lines."""

import random
from datetime import date, timedelta

from omop_etl.synthetic.calibration import Calibration, drug_weights
from omop_etl.synthetic.dates import between, days_after
from omop_etl.synthetic.disease import pick
from omop_etl.synthetic.model import Assessment, History, Line, Operation, Progression, Segment
from omop_etl.synthetic.parameters import Parameters

CDK46 = "cdk46"
AROMATASE = "ai"


def draw_index_drug(history: History, rng: random.Random, parameters: Parameters, calibration: Calibration) -> None:
    """The index drug, by calendar year and the traits that channel it."""
    traits = {
        "resistant": history.resistance != "sensitive",
        "liver": any(diagnosis.site == "liver" for diagnosis in history.diagnoses),
        "lobular": history.histology == "lobular",
        "low_pgr": history.low_pgr,
    }
    history.index = history.anchor
    history.index_drug = pick(rng, drug_weights(parameters, calibration.base, history.anchor.year, traits))


class Prescriber:
    """Writes segments into one history. Every end is the last day on which the drug was taken."""

    def __init__(self, history: History, rng: random.Random, parameters: Parameters) -> None:
        self.history, self.rng, self.parameters = history, rng, parameters

    def give(
        self, drug: str, start: date, end: date | None, line: int, reason: str | None = None, step: int = 0
    ) -> Segment:
        """Add a segment at the drug's dose step (0: full)."""
        doses = self.parameters["drug"][drug]["doses"]
        segment = Segment(drug, start, end, doses[min(step, len(doses) - 1)], line, reason)
        self.history.segments.append(segment)
        return segment

    def partner(self) -> str:
        """The endocrine partner of the index drug."""
        table, rng = self.parameters["partner"], self.rng
        kind = "sensitive" if self.history.resistance == "sensitive" else "resistant"
        if rng.random() < table["fulvestrant"][kind]:
            return "fulvestrant"
        if self.history.sex == "female" and rng.random() < table["tamoxifen_of_the_rest"][kind]:
            return "tamoxifen"
        return str(pick(rng, table["ai"]))

    def index_regimen(self, end: date | None, reason: str | None, *, line: int, quiet: bool) -> None:
        """CDK4/6 inhibitor with its partner, from the index day to `end`. `quiet`: no switch, stop or pause."""
        history = self.history
        assert history.index is not None and history.index_drug is not None
        endocrine = self.endocrine(end, reason, line)
        self.cdk46(end, reason, line, quiet)
        if history.menopause == "pre" and history.scenario.endocrine != "lhrh-alone":
            drug = pick(self.rng, self.parameters["partner"]["lhrh"])
            self.give(drug, history.index, end, line, reason)
        drugs = tuple(sorted({history.index_drug, *endocrine}))
        # a lead-in in time belongs to the first line; after an earlier line this one begins with the CDK4/6 inhibitor
        start = history.index - timedelta(days=history.lead) if line == 1 else history.index
        history.lines.append(Line(line, start, end, drugs, reason))

    def cdk46(self, end: date | None, reason: str | None, line: int, quiet: bool) -> None:
        """Dose by dose, with pauses, and with the switch or the stop that toxicity may bring."""
        history, rng, course = self.history, self.rng, self.parameters["course"]
        drug, start = history.index_drug, history.index
        assert drug is not None and start is not None
        far = end or start + timedelta(days=3650)
        step = 0
        if not quiet and rng.random() < course["toxicity_switch"]:
            switch = days_after(start, between(rng, 30, 150))
            if days_after(switch, 60) < far:
                self.give(drug, start, switch - timedelta(days=between(rng, 1, 14)), line, "toxicity")
                others = sorted({"palbociclib", "ribociclib", "abemaciclib"} - {drug})
                drug, start = rng.choice(others), switch
        last, last_reason = end, reason
        if not quiet and rng.random() < course["toxicity_stop"]:
            stop = days_after(start, between(rng, 60, 300))
            if stop < far:
                last, last_reason = stop, "toxicity"
        far = min(far, last or far)
        if rng.random() < course["dose_reduction"][drug]:
            changes = sorted(between(rng, 21, 400) for _ in range(2 if rng.random() < 0.25 else 1))
            for change in changes:
                day = days_after(start, change)
                if day <= days_after(start, 13) or days_after(day, 14) >= far:
                    break
                pause = between(rng, 7, 28) if not quiet and rng.random() < course["hold"] else 0
                pause = min(pause, (far - day).days - 1)  # it is taken up again before it is stopped for good
                self.give(drug, start, day - timedelta(days=1), line, None, step)
                start, step = days_after(day, pause), step + 1
        self.give(drug, start, last, line, last_reason, step)

    def endocrine(self, end: date | None, reason: str | None, line: int) -> set[str]:
        """The partner, started as the plan says. Returns the drugs that belong to the regimen."""
        history, rng = self.history, self.rng
        assert history.index is not None
        index = history.index
        plan = history.scenario.endocrine
        if plan == "none":
            return set()
        if plan == "lhrh-alone":
            self.give("triptorelin", index, end, line, reason)
            return set()
        if plan == "adjuvant-goes-on":
            return {"letrozole"}
        running = [segment for segment in history.segments if segment.line == line and segment.end is None]
        if running:  # a planned lead-in that now goes on together with the CDK4/6 inhibitor
            running[0].end, running[0].stop_reason = end, reason
            return {running[0].drug}
        drug = self.partner()
        table = self.parameters["partner"]
        start = index - timedelta(days=history.lead) if line == 1 else index
        if plan == "from-day-28":
            start = days_after(index, self.parameters["study"]["et_days_after"])
        elif plan == "from-day-29":
            start = days_after(index, self.parameters["study"]["et_days_after"] + 1)
        elif history.lead == 0 and rng.random() < table["delayed"]["share"]:
            start = days_after(index, between(rng, table["delayed"]["low"], table["delayed"]["high"]))
        if drug in table["ai"] and rng.random() < self.parameters["course"]["ai_swap"]:
            swap = days_after(start, between(rng, 60, 500))
            if end is None or days_after(swap, 30) < end:
                self.give(drug, start, swap - timedelta(days=1), line, "toxicity")
                others = sorted(set(table["ai"]) - {drug})
                drug, start = rng.choice(others), swap
        self.give(drug, start, end, line, reason)
        return {drug}

    def bone_agent(self, start: date, end: date | None) -> None:
        """Denosumab or zoledronic acid for bone metastases: never a line."""
        table = self.parameters["partner"]["bone_agent"]
        if self.rng.random() < table["share"]:
            drug = "denosumab" if self.rng.random() < table["denosumab"] else "zoledronic acid"
            if end is None or start < end:
                self.give(drug, start, end, -1)

    def later_regimen(self, number: int) -> tuple[str, ...]:
        """Drugs of line `number`, none of them taken before in advanced disease."""
        taken = {segment.drug for segment in self.history.segments if segment.line > 0}
        weights = {
            tuple(entry["drugs"]): entry["lines"][str(number)]
            for entry in self.parameters["later_line"]
            if not taken & set(entry["drugs"]) and entry["lines"][str(number)] > 0
        }
        return tuple(pick(self.rng, weights))


# ---- what came before the index ---------------------------------------------------------------------------------------


def draw_lead(history: History, rng: random.Random, parameters: Parameters) -> None:
    """How many days before the index the first drug for advanced disease was begun: `history.lead`, mostly 0."""
    plan = history.scenario.before
    limit = parameters["study"]["lead_in_days"]
    usual = parameters["partner"]["lead_in"]
    lead_in = rng.random() < usual["share"] and history.scenario.endocrine is None and history.scenario.course is None
    history.lead = {
        "lead-in-90": limit,
        "lead-in-91": limit + 1,
        "lead-in-long": between(rng, limit + 15, limit + 150),
        "lead-in-progression": between(rng, 50, limit - 5),
        "induction": between(rng, 98, 144),
        "induction-and-lead-in": between(rng, 220, 260),
        "prior-everolimus": between(rng, 140, 330),
        "prior-alpelisib": between(rng, 140, 330),
    }.get(plan or "", between(rng, usual["low"], usual["high"]) if lead_in and plan is None else 0)


def before_index(history: History, rng: random.Random, parameters: Parameters) -> int:
    """Give what the scenario plans between the advanced diagnosis and the index. Returns the line of the index regimen."""
    plan = history.scenario.before
    if plan is None:
        return 1
    prescriber = Prescriber(history, rng, parameters)
    start = history.anchor - timedelta(days=history.lead)
    if plan.startswith("lead-in"):
        drug = str(pick(rng, parameters["partner"]["ai"]))
        if plan == "lead-in-90":
            prescriber.give(drug, start, None, 1)
            return 1
        # the rule of lines: a drug of a new class more than 28 days in, or after a progression, begins line 2
        prescriber.give(drug, start, None, 2)
        history.lines.append(Line(1, start, history.anchor - timedelta(days=1), (drug,)))
        if plan == "lead-in-progression":
            _progress(history, history.anchor - timedelta(days=between(rng, 5, 15)), 1)
            history.resistance = "primary"
        return 2
    if plan.startswith("induction"):
        end = history.anchor - timedelta(days=14) if plan == "induction" else days_after(start, 85)
        drug = rng.choice(["paclitaxel", "docetaxel"])
        prescriber.give(drug, start, end, 1, "other")
        history.lines.append(Line(1, start, end, (drug,), "other"))
        if plan == "induction-and-lead-in":
            prescriber.give("letrozole", days_after(end, 20), None, 2)
        return 2
    drugs = ("everolimus", "exemestane") if plan == "prior-everolimus" else ("alpelisib", "fulvestrant")
    end = history.anchor - timedelta(days=between(rng, 12, 30))
    for drug in drugs:
        prescriber.give(drug, start, end, 1, "progression")
    history.lines.append(Line(1, start, end, drugs, "progression"))
    _progress(history, end - timedelta(days=2), 1)
    return 2


def _progress(history: History, day: date, line: int) -> None:
    history.assessments.append(Assessment(day, "PD", "CT"))
    history.progressions.append(Progression(day, line, "CT", continued=False))


def local_therapy(history: History, day: date, kind: str | None) -> None:
    """Radiotherapy or surgery of a progressing lesion."""
    if kind == "radiotherapy":
        history.operations.append(Operation("radiotherapy", days_after(day, 12), days_after(day, 22)))
    elif kind == "surgery":
        history.operations.append(Operation("surgery", days_after(day, 20)))
        history.stays.append((days_after(day, 19), days_after(day, 23)))
