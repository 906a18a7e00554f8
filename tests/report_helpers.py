"""A release that nobody made from patients: enough rows for a model, with planted ratios, confounding and missing values."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

ARMS = ("palbociclib", "ribociclib", "abemaciclib")
RATIOS = {"ribociclib": 0.8, "abemaciclib": 0.6, "resistant": 2.0}


def baseline(patients: int, rng: np.random.Generator) -> pd.DataFrame:
    """One row per patient: abemaciclib is channelled to the resistant."""
    resistant = rng.random(patients) < 0.35
    chance = np.where(resistant[:, None], [0.25, 0.25, 0.5], [0.45, 0.4, 0.15])
    arm = (rng.random(patients)[:, None] > chance.cumsum(axis=1)).sum(axis=1)
    frame = pd.DataFrame(
        {
            "patient": [f"{number:016x}" for number in rng.permutation(patients)],
            "site": rng.choice(["s01", "s02", "s03"], patients),
            "index_drug": pd.Categorical.from_codes(arm, list(ARMS)),
            "age_at_index": rng.integers(35, 85, patients),
            "menopausal_status": rng.choice(["pre", "peri", "post"], patients, p=[0.2, 0.1, 0.7]),
            "ecog": rng.choice(["0", "1", "2"], patients, p=[0.6, 0.3, 0.1]),
            "bmi": rng.normal(25, 4, patients).round(1),
            "histology": rng.choice(["NST", "ILC", "unspecified"], patients, p=[0.6, 0.2, 0.2]),
            "grade": rng.choice(["1", "2", "3"], patients, p=[0.15, 0.55, 0.3]),
            "pgr_percent": rng.integers(0, 100, patients).astype(float),
            "ki67_percent": rng.gamma(2, 10, patients).round(),
            "her2_group": rng.choice(["zero", "low"], patients),
            "de_novo": rng.random(patients) < 0.3,
            "endocrine_sensitivity": np.where(resistant, "primary-resistant", "sensitive"),
            "met_liver": pd.array(rng.random(patients) < 0.2, dtype="boolean"),
            "bone_only": pd.array(rng.random(patients) < 0.3, dtype="boolean"),
            "metastatic_sites": pd.array(rng.integers(1, 4, patients), dtype="Int64"),
            "index_year": rng.integers(2017, 2024, patients),
        }
    )
    gone = rng.random(patients) < 0.1
    frame.loc[gone, "ki67_percent"] = np.nan
    return frame


def times(frame: pd.DataFrame, rng: np.random.Generator, paramcd: str = "RWPFS") -> pd.DataFrame:
    """Exponential times with the planted ratios, uniform censoring, and a tenth who consented late."""
    rate = np.log(2) / 700 * frame["index_drug"].astype(str).map({"palbociclib": 1.0} | RATIOS).to_numpy(dtype=float)
    rate *= np.where(frame["endocrine_sensitivity"] == "sensitive", 1.0, RATIOS["resistant"])
    event, censored = rng.exponential(1 / rate), rng.uniform(100, 1800, len(frame))
    days = np.minimum(event, censored).astype(int)
    entry = np.where(rng.random(len(frame)) < 0.1, rng.integers(1, 300, len(frame)), -1)
    return pd.DataFrame(
        {
            "patient": frame["patient"],
            "PARAMCD": paramcd,
            "AVAL": days,
            "event": (event <= censored).astype(int),
            "entry_day": pd.array(np.where(entry > 0, entry, np.nan), dtype="Int64"),
            "at_risk": ~((entry > 0) & (entry >= days)),
        }
    )


def lines(frame: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Two lines for each patient: chemotherapy goes on for a shorter time."""
    rows = pd.concat([frame.assign(line_number=number) for number in (1, 2)], ignore_index=True)
    n = len(rows)
    chemotherapy = rng.random(n) < 0.4
    days = rng.exponential(np.where(chemotherapy, 150, 600)).astype(int)
    censored = rng.uniform(60, 1500, n)
    laboratory = ("hemoglobin", "neutrophils", "platelets", "alt", "ast", "alp", "bilirubin", "creatinine")
    return pd.DataFrame(
        {
            "patient": rows["patient"],
            "line_number": rows["line_number"],
            "classes": np.where(chemotherapy, "chemotherapy", "aromatase-inhibitor+cdk46"),
            "previous_classes": np.where(rows["line_number"] == 1, None, "aromatase-inhibitor+cdk46"),
            "previous_end_reason": np.where(rows["line_number"] == 1, None, "progression"),
            "previous_days": pd.array(np.where(rows["line_number"] == 1, np.nan, 300), dtype="Int64"),
            "previous_progressed": pd.array(np.where(rows["line_number"] == 1, None, True), dtype="boolean"),
            "prior_cdk46": rows["line_number"] > 1,
            "prior_chemotherapy": False,
            "progressions": rows["line_number"] - 1,
            "days_advanced_to_start": rng.integers(0, 900, n),
            "age_at_start": rows["age_at_index"],
            "sex": "F",
            "visceral": rows["met_liver"],
            "er_percent": rng.integers(1, 100, n).astype(float),
            **{name: rng.normal(10, 2, n).round(1) for name in laboratory},
            **{f"met_{site}": rng.random(n) < 0.2 for site in ("bone", "lung", "cns", "node", "skin", "other")},
            **{
                name: rows[name]
                for name in (
                    "pgr_percent", "ki67_percent", "metastatic_sites", "de_novo", "endocrine_sensitivity", "histology",
                    "her2_group", "ecog", "met_liver",
                )
            },
            "pfs_days": np.minimum(days, censored).astype(int),
            "pfs_event": (days <= censored).astype(int),
            "entry_day": pd.array([pd.NA] * n, dtype="Int64"),
        }
    )  # fmt: skip


def release(folder: Path, patients: int = 900, seed: int = 5) -> Path:
    """Write a release of so many patients."""
    rng = np.random.default_rng(seed)
    frame = baseline(patients, rng)
    folder.mkdir(parents=True)
    frame.to_parquet(folder / "baseline.parquet", index=False)
    beyond = frame[rng.random(patients) < 0.5]
    pd.concat([times(frame, rng), times(beyond, rng, "RWPFSBP")]).to_parquet(
        folder / "time_to_event.parquet", index=False
    )
    membership = {
        "all-comers": np.ones(patients, dtype=bool),
        "beyond-progression": frame["patient"].isin(beyond["patient"]).to_numpy(),
        "lobular": (frame["histology"] == "ILC").to_numpy(),
        "few": np.arange(patients) < 40,
        "nobody": np.zeros(patients, dtype=bool),
    }
    pd.concat(
        [
            pd.DataFrame({"patient": frame["patient"], "analysis": name, "member": pd.array(who, dtype="boolean")})
            for name, who in membership.items()
        ]
    ).to_parquet(folder / "analyses.parquet", index=False)
    lines(frame, rng).to_parquet(folder / "lines.parquet", index=False)
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "study": "palmares2", "files": {}}))
    return folder
