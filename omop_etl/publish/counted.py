"""Every number that a release counts of its patients, hidden together: table one, the named analyses, the shares of missing values
of the dictionary, and the patients with whom the table of numbers at risk begins."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omop_etl.cohorts.analyses import ANSWERS
from omop_etl.cohorts.together import Family, Place, hide
from omop_etl.publish.dictionary import Variable
from omop_etl.publish.table_one import ALL, columns, family

if TYPE_CHECKING:
    import pandas as pd

Answers = dict[Place, bool]


@dataclass(frozen=True)
class Hidden:
    """Which numbers are hidden: by variable of table one, by analysis, by endpoint (part 0: has it); of each the part and the
    group's place. `silent` are the variables of baseline of which nobody is told how many miss them."""

    variables: dict[str, Answers]
    analyses: dict[str, Answers]
    endpoints: dict[str, Answers]
    groups: tuple[str, ...]
    silent: frozenset[str]


def hidden(
    folder: Path, chosen: Sequence[Variable], listed: Sequence[Variable], group: str, at_risk: str, *, threshold: int
) -> Hidden:
    """What is hidden of the datasets in `folder`. `chosen` are the variables of table one, `listed` all of baseline; `group` is
    that of table one, `at_risk` that of the numbers at risk."""
    import pandas as pd

    frame = pd.read_parquet(folder / "baseline.parquet")
    shown = columns(frame, group, threshold=threshold)
    in_table = {one.variable for one in chosen}
    families = [
        *(family(frame, one) for one in chosen),
        *(_missing(frame, one) for one in listed if one.variable not in in_table),
        *_analyses(frame, pd.read_parquet(folder / "analyses.parquet", columns=["patient", "analysis", "member"])),
        *_endpoints(
            frame,
            pd.read_parquet(folder / "time_to_event.parquet", columns=["patient", "PARAMCD", "main"]),
            grouped=group == at_risk,
        ),
    ]
    found = hide(
        families,
        frame[group].cat.codes.to_numpy(),
        [is_shown for name, is_shown in shown.items() if name != ALL],
        whole=shown[ALL],
        threshold=threshold,
    )

    def of(kind: str) -> dict[str, Answers]:
        return {name.partition(" ")[2]: one for name, one in found.items() if name.partition(" ")[0] == kind}

    last = {one.name: one.parts - 1 for one in families}
    return Hidden(
        variables={one.variable: found[one.variable] for one in chosen},
        analyses=of("analysis"),
        endpoints=of("endpoint"),
        groups=tuple(name for name in shown if name != ALL),
        silent=frozenset(one.variable for one in listed if found[one.variable].get((last[one.variable], None), True)),
    )


def _missing(frame: "pd.DataFrame", one: Variable) -> Family:
    """A variable of which only the share of missing values is told."""
    return Family(one.variable, 2, frame[one.variable].isna().to_numpy().astype(int), grouped=False)


def _analyses(frame: "pd.DataFrame", rows: "pd.DataFrame") -> list[Family]:
    """The answers of each analysis: member, not, cannot be told."""
    import numpy as np

    found = []
    for name, own in rows.groupby(rows["analysis"].astype(str)):
        members = own.set_index("patient")["member"].astype("boolean").reindex(frame["patient"])
        codes = np.full(len(frame), ANSWERS.index(None))
        for answer in (True, False):
            codes[(members == answer).fillna(False).to_numpy(dtype=bool)] = ANSWERS.index(answer)
        found.append(Family(f"analysis {name}", len(ANSWERS), codes, grouped=False))
    return found


def _endpoints(frame: "pd.DataFrame", rows: "pd.DataFrame", *, grouped: bool) -> list[Family]:
    """Who has each main endpoint; how many have it not is printed nowhere."""
    main = rows[rows["main"].astype(bool)]
    found = []
    for name, own in main.groupby(main["PARAMCD"].astype(str)):
        codes = (~frame["patient"].isin(own["patient"])).to_numpy().astype(int)
        found.append(Family(f"endpoint {name}", 2, codes, grouped=grouped, printed=frozenset({0})))
    return found
