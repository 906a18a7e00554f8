"""All hospitals of a run, each in a process of its own, and the truth over them."""

import json
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import whole_folder
from omop_etl.synthetic.calibration import Calibration, calibrate
from omop_etl.synthetic.hospital import Hospital, secret, write_hospital
from omop_etl.synthetic.parameters import Parameters, load
from omop_etl.synthetic.plan import MIXED, WAYS, SitePlan, plan_sites
from omop_etl.synthetic.truth import Rows, join_pairs, true_hazards, write_truth
from omop_etl.synthetic.write import write_key


@dataclass(frozen=True)
class Synthetic:
    """What was written: sites, patients (registrations), resources, eligible patients, planted defects."""

    sites: int
    patients: int
    resources: int
    eligible: int
    defects: int


def generate(
    out: Path,
    *,
    sites: int = 5,
    patients: int = 300,
    seed: int = 2024,
    dirty: bool = True,
    jobs: int | None = None,
    formats: str = "files",
    progress: Callable[..., None] | None = None,
) -> Synthetic:
    """Write `out` with `sites/`, `hospitals/` and `truth/`, whole or not at all.

    `formats`: how the sites write: all as FHIR `files`, for a `server` or a `bulk` export, all as eCRF `tables`, all as `hl7v2` with
    tables, or `mixed`, each as its profile says (E-SYN-01). The truth is the same in every one, but for defects: only those that
    the form can hold are planted.

    `patients` counts registrations over all sites, at least one per site (E-SYN-01). `dirty` plants defects and a site
    that a gate must block. `progress` is called with the id of each site that is done.
    """
    if sites < 1 or patients < sites:
        raise PalmaresError("E-SYN-01", "synthetic", detail=f"{sites} sites, {patients} patients")
    if formats not in (*WAYS, MIXED):
        raise PalmaresError("E-SYN-01", "synthetic", detail=f"formats is one of {', '.join(WAYS)}, {MIXED}")
    parameters = load()
    calibration = calibrate(parameters)
    plans = plan_sites(sites, patients, seed, dirty, parameters, formats)
    with whole_folder(Path(out)) as partial:
        for name in ("sites/keys", "hospitals"):
            (partial / name).mkdir(parents=True)
        write_key(partial / "sites" / "keys" / "linkage.key", secret(seed, "linkage"))
        arguments = [(plan, partial, seed, dirty, parameters, calibration) for plan in plans]
        workers = min(jobs or os.cpu_count() or 1, sites)
        done: dict[str, Hospital] = {}
        if workers == 1:
            for argument in arguments:
                _note(done, write_hospital(*argument), progress)
        else:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(workers, mp_context=context) as pool:
                largest_first = sorted(arguments, key=lambda argument: -len(argument[0].registrations))
                for future in [pool.submit(write_hospital, *argument) for argument in largest_first]:
                    _note(done, future.result(), progress)
        return _finish(partial, plans, done, seed, dirty, parameters, calibration)


def _note(done: dict[str, Hospital], hospital: Hospital, progress: Callable[..., None] | None) -> None:
    done[hospital.site] = hospital
    if progress:
        progress(hospital.site)


def _finish(
    out: Path,
    plans: list[SitePlan],
    done: dict[str, Hospital],
    seed: int,
    dirty: bool,
    parameters: Parameters,
    calibration: Calibration,
) -> Synthetic:
    """Write the truth in the order of the sites, and what it was made with."""
    rows: Rows = {}
    for plan in plans:
        for name, more in done[plan.id].rows.items():
            rows.setdefault(name, []).extend(more)
    join_pairs(rows)
    counts = write_truth(out / "truth", rows, true_hazards(parameters, calibration))
    resources = {plan.id: dict(sorted(done[plan.id].resources.items())) for plan in plans}
    result = Synthetic(
        sites=len(plans),
        patients=counts["patients"],
        resources=sum(sum(types.values()) for types in resources.values()),
        eligible=sum(row["eligible"] for row in rows.get("patients", [])),
        defects=counts["defects"],
    )
    manifest = {
        "format": 1,
        "seed": seed,
        "dirty": dirty,
        "parameters_sha256": parameters.sha256,
        "rows": counts,
        "resources": resources,
        "eligible": result.eligible,
        "sites": [
            {
                "site": plan.id,
                "kind": plan.kind,
                "profile": plan.profile["name"],
                "way": plan.way,
                "left_out": dict(sorted(done[plan.id].left_out.items())),
                "extracted": plan.extracted.isoformat(),
                "patients": len(plan.registrations),
            }
            for plan in plans
        ],
    }
    text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
    (out / "truth" / "manifest.json").write_text(text, encoding="utf-8")
    return result
