"""The quality of all sites, or of one, as one document, and what is drawn and read from it.

collect(intake)                            the centre's document: every site of the intake (shape.py says what stands in it)
collect_site(site, slice_, gate)           one hospital's, from its own slice and gate
report(intake, out, warehouse=…)           the centre's folder: pages, data.json, metrics.prom; and OHDSI's results of the warehouse
report_site(site, slice_, gate, out)       the same of one hospital
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fhir_adapters.folders import whole_folder
from omop_etl.reports.quality.shape import FORMAT, QualityData

__all__ = ["DATA", "FORMAT", "METRICS", "Quality", "QualityData", "collect", "collect_site", "report", "report_site"]

DATA, METRICS = "data.json", "metrics.prom"
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Quality:
    """What was written: sites by verdict, checks that are not PASS, whether data can be locked."""

    sites: int
    verdicts: dict[str, int]
    findings: int
    lock_ready: bool
    file: str


def collect(intake: Path, *, derived: Path | None = None, made_at: datetime | None = None) -> QualityData:
    """The document of the centre, from its intake, what is remembered of earlier submissions, and the lines of therapy in `derived`.

    Raises E-QUALITY-01 when the intake holds no submission; E-GATE-02, E-SLICE-01 and E-SLICE-02 for one that does not read.
    """
    from omop_etl.reports.quality.collecting import put_together, received

    return put_together(received(Path(intake)), scope="centre", made_at=made_at, derived=derived)


def collect_site(
    site: str, slice_: Path, gate: Path, *, made_at: datetime | None = None, history: Path | None = None
) -> QualityData:
    """The document of one hospital: the same shape with one site, without what needs the others. `history` is the folder in which the
    hospital remembers its runs: this one is added to it, and held against the one before.

    Raises E-GATE-02 and E-SLICE-01 when gate or slice do not read.
    """
    from omop_etl.reports.quality.collecting import of_gate, put_together
    from omop_etl.submission.history import history_of, remember_run

    one = of_gate(site, Path(slice_), Path(gate))
    if history is not None:
        one.number = remember_run(
            Path(history), site, one.verdict, one.manifest, extracted_to=one.extracted_to, at=made_at
        )
        one.past = history_of(Path(history))
        one.received_at = one.past[-1]["received_at"]
    return put_together([one], scope="site", made_at=made_at)


def report(
    intake: Path,
    out: Path,
    *,
    warehouse: Path | None = None,
    derived: Path | None = None,
    progress: Progress = lambda _: None,
) -> Quality:
    """Write the centre's quality folder, whole or not at all: data.json, metrics.prom and, with a warehouse, OHDSI's results of
    all sites together in dqd/. Raises as `collect`, and E-WAREHOUSE-01."""
    from omop_etl.gates import gate_warehouse
    from omop_etl.gates.dqd_results import FILE

    progress("sites")
    data = collect(Path(intake), derived=derived)
    with whole_folder(Path(out)) as folder:
        if warehouse is not None:
            progress("warehouse")
            gate_warehouse(Path(warehouse), folder / "dqd", progress=progress)
            shutil.rmtree(
                folder / "dqd" / "rejects", ignore_errors=True
            )  # rows are the sites' business: each has its own
            data["dqd_results"] = f"dqd/{FILE}"
        _written(data, folder)
    return _said(data, Path(out))


def report_site(site: str, slice_: Path, gate: Path, out: Path, *, history: Path | None = None) -> Quality:
    """Write one hospital's quality folder. Raises as `collect_site`."""
    data = collect_site(site, slice_, gate, history=history)
    data["sites"][0]["data_docs"] = _link(Path(gate) / "data_docs" / "index.html", Path(out))
    data["sites"][0]["dqd_results"] = _link(Path(gate) / "dqd_results.json", Path(out))
    with whole_folder(Path(out)) as folder:
        _written(data, folder)
    return _said(data, Path(out))


def _link(file: Path, folder: Path) -> str | None:
    """How a page in `folder` leads to a file; None when it is not there."""
    return os.path.relpath(file, folder).replace(os.sep, "/") if file.is_file() else None


def _written(data: QualityData, folder: Path) -> None:
    from omop_etl.reports.quality.collecting import as_json
    from omop_etl.reports.quality.metrics import metrics
    from omop_etl.reports.quality.pages import write

    (folder / DATA).write_text(as_json(data), encoding="utf-8")
    (folder / METRICS).write_text(metrics(data), encoding="utf-8")
    write(data, folder)


def _said(data: QualityData, out: Path) -> Quality:
    return Quality(
        sites=len(data["sites"]),
        verdicts={str(name): count for name, count in data["verdicts"].items()},
        findings=sum(one["verdict"] != "PASS" for one in data["results"]),
        lock_ready=data["readiness"]["ready"],
        file=str(out / DATA),
    )
