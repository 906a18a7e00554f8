"""What happens after the index day: assessments, progressions, later lines, death, loss to follow-up."""

import math
import random
from datetime import date, timedelta

from omop_etl.synthetic.calibration import Calibration, hazard_ratio
from omop_etl.synthetic.dates import between, days_after
from omop_etl.synthetic.disease import pick
from omop_etl.synthetic.model import Assessment, Diagnosis, History, Line, Progression
from omop_etl.synthetic.parameters import Parameters
from omop_etl.synthetic.samples import rebiopsy
from omop_etl.synthetic.treatment import Prescriber, local_therapy

LAST_LINE = 4


class Course:
    """Runs one history from its index day to death or to the horizon, after which nothing is known."""

    def __init__(
        self, history: History, rng: random.Random, parameters: Parameters, calibration: Calibration, horizon: date
    ) -> None:
        self.history, self.rng, self.parameters, self.horizon = history, rng, parameters, horizon
        self.calibration = calibration
        self.table = parameters["course"]
        self.prescriber = Prescriber(history, rng, parameters)
        self.month = parameters["study"]["days_per_month"]

    def run(self, line: int) -> None:
        """The index regimen as line `line`, then whatever follows."""
        history, rng, table = self.history, self.rng, self.table
        assert history.index is not None
        index = history.index
        plan = history.scenario.course
        days = self._first_event_days(plan)
        dies = plan in ("death-on-day-40", "long-then-death") or (
            rng.random() < table["death_as_first_event"] and plan is None
        )
        event = days_after(index, days)
        quiet = plan is not None or self._needs_time
        if event > self.horizon:
            self.prescriber.index_regimen(None, None, line=line, quiet=quiet)
            self._rounds(index, self.horizon)
        elif dies:
            self.prescriber.index_regimen(event, "death", line=line, quiet=quiet)
            self._rounds(index, event)
            history.death = event
        else:
            self._after_first_progression(index, event, line, quiet)
        if history.death is None:
            self._lose(plan)
        if any(diagnosis.site == "bone" for diagnosis in history.diagnoses):
            start = days_after(index, between(rng, 0, 30))
            if history.death is None or start < history.death:
                self.prescriber.bone_agent(start, history.death)

    # -- progression -------------------------------------------------------------------------------------------------

    def _first_event_days(self, plan: str | None) -> int:
        history, table = self.history, self.table
        if plan == "death-on-day-40":
            return 40
        ratio = hazard_ratio(
            self.parameters, history.index_drug or "", history.resistance != "sensitive", history.histology == "lobular"
        )
        draw = -math.log(1 - self.rng.random()) / ratio
        days = int(self.calibration.scale_months * draw ** (1 / table["shape"]) * self.month)
        least = table["least_rwpfs_days"]
        if plan == "long-then-death":
            return min(max(days, 430), 800)
        if plan == "long":
            least = 430
        elif self._needs_time:
            least = 150
        return int(max(days, least))

    @property
    def _needs_time(self) -> bool:
        """What is planned for the first weeks must happen before the first progression."""
        scenario = self.history.scenario
        late = ("only-at-31", "only-late", "metastatic-at-30")
        return scenario.samples in late or scenario.endocrine in ("from-day-28", "from-day-29")

    def _after_first_progression(self, index: date, first: date, line: int, quiet: bool) -> None:
        history, rng, table = self.history, self.rng, self.table
        beyond = rng.random() < table["beyond_progression"]
        if not beyond:
            end = days_after(first, between(rng, 0, 7))
            self.prescriber.index_regimen(end, "progression", line=line, quiet=quiet)
            self._rounds(index, first, progress=line)
            self._next(line, first, end)
            return
        therapy = str(pick(rng, table["local_therapy"]))
        second = days_after(first, max(40, self._exponential(table["median_beyond_months"])))
        if second > self.horizon:
            self.prescriber.index_regimen(None, None, line=line, quiet=quiet)
        else:
            end = days_after(second, between(rng, 0, 7))
            self.prescriber.index_regimen(end, "progression", line=line, quiet=quiet)
        self._rounds(index, first, progress=line)
        history.progressions[-1].continued = True
        history.progressions[-1].local_therapy = therapy
        local_therapy(history, first, therapy)
        if second > self.horizon:
            self._rounds(first, self.horizon)
        else:
            self._rounds(first, second, progress=line)
            self._next(line, second, end)

    def _next(self, line: int, progression: date, stopped: date) -> None:
        """A further line after a definitive stop, or the way to death without one."""
        history, rng, table = self.history, self.rng, self.table
        number = line + 1
        chances = table["next_line"]
        if number > LAST_LINE or number - 2 >= len(chances) or rng.random() > chances[number - 2]:
            death = days_after(progression, max(20, self._exponential(table["median_to_death_months"])))
            if death <= self.horizon:
                history.death = death
            self._visits(progression, min(death, self.horizon))
            return
        start = days_after(stopped, between(rng, 8, 35))
        drugs = self.prescriber.later_regimen(number)
        event = days_after(start, max(30, self._exponential(table["later_median_months"][number - 2])))
        if event > self.horizon:
            self._later_line(number, drugs, start, None, None)
            self._rounds(start, self.horizon)
        elif rng.random() < table["later_death"]:
            self._later_line(number, drugs, start, event, "death")
            self._rounds(start, event)
            history.death = event
        else:
            end = days_after(event, between(rng, 0, 7))
            self._later_line(number, drugs, start, end, "progression")
            self._rounds(start, event, progress=number)
            self._next(number, event, end)

    def _later_line(
        self, number: int, drugs: tuple[str, ...], start: date, end: date | None, reason: str | None
    ) -> None:
        history, rng = self.history, self.rng
        chemotherapy = all(self.parameters["drug"][drug]["class"] == "chemotherapy" for drug in drugs)
        whole: tuple[str, ...] = drugs
        stop = days_after(start, 150)
        if chemotherapy and (end is None or end > days_after(stop, 40)) and rng.random() < self.table["maintenance"]:
            self.prescriber.give(drugs[0], start, stop, number, "other")
            partner = "letrozole" if rng.random() < 0.5 else "fulvestrant"
            self.prescriber.give(partner, days_after(stop, between(rng, 7, 25)), end, number, reason)
            whole = (*drugs, partner)
        else:
            for drug in drugs:
                self.prescriber.give(drug, start, end, number, reason)
        history.lines.append(Line(number, start, end, tuple(sorted(whole)), reason))

    # -- follow-up ---------------------------------------------------------------------------------------------------

    def _rounds(self, start: date, end: date, progress: int | None = None) -> None:
        """Assessments from `start` to `end`, no gap above the limit; the last is the progression of line `progress`."""
        history, rng, table = self.history, self.rng, self.table
        length = (end - start).days
        count = max(1, math.ceil(length / table["assessment_days"]))
        jitter = table["assessment_jitter_days"]
        days = [round(length * place / count) + between(rng, -jitter, jitter) for place in range(1, count)]
        for day in days:
            if 0 < day < length:
                response = str(pick(rng, table["response"]))
                history.assessments.append(Assessment(days_after(start, day), response, self._modality()))
        if progress is not None:
            self._progress(end, progress)

    def _progress(self, day: date, line: int) -> None:
        history, rng, table = self.history, self.rng, self.table
        modality = self._modality()
        history.assessments.append(Assessment(day, "PD", modality))
        site = None
        if rng.random() < table["new_site_at_progression"]:
            present = {diagnosis.site for diagnosis in history.diagnoses}
            free = sorted({"bone", "liver", "lung", "node", "brain", "skin", "peritoneum"} - present)
            if free:
                site = rng.choice(free)
                history.diagnoses.append(Diagnosis(site, day))
        history.progressions.append(Progression(day, line, modality, site))
        if rng.random() < table["rebiopsy_at_progression"] and history.index is not None:
            late = self.parameters["study"]["sample_days_after_index"] + 5
            if (day - history.index).days > late:
                rebiopsy(history, days_after(day, 4), rng, self.parameters)

    def _modality(self) -> str:
        return str(pick(self.rng, self.table["modality"]))

    def _visits(self, start: date, end: date) -> None:
        day = days_after(start, 45)
        while day < end:
            self.history.visits.append(day)
            day = days_after(day, between(self.rng, 40, 60))

    def _exponential(self, median_months: float) -> int:
        return int(self.rng.expovariate(math.log(2) / (median_months * self.month)))

    def _lose(self, plan: str | None) -> None:
        history, rng = self.history, self.rng
        draw, day = rng.random(), between(rng, 150, 1500)
        lost = days_after(history.anchor, day)
        if draw < self.table["lost"] and plan is None and not history.tidy and lost < self.horizon:
            history.lost = lost


def mark_gap(history: History, rng: random.Random, gap_days: int) -> None:
    """Drop the assessments of one missed round, so that a gap above the limit remains, before the first progression."""
    first = min((progression.day for progression in history.progressions), default=None)
    rounds = sorted(assessment.day for assessment in history.assessments if first is None or assessment.day < first)
    if len(rounds) < 4 or history.index is None:
        return
    place = between(rng, 1, len(rounds) - 2)
    before, dropped, after = rounds[place - 1], rounds[place], rounds[place + 1]
    if (after - before) > timedelta(days=gap_days):
        history.assessments = [assessment for assessment in history.assessments if assessment.day != dropped]
        history.gap_after = before
