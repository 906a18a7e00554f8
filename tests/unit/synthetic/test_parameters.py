"""The knowledge of the generator: whole, sourced where it says so, and of one mind with the study's own parameters."""

import csv
import tomllib

import pytest

from fhir_adapters.knowledge import mappings_folder
from omop_etl.synthetic.calibration import DRUGS, TRAITS, calibrate, drug_weights
from omop_etl.synthetic.disease import _WAYS
from omop_etl.synthetic.parameters import CRITERIA, load
from omop_etl.synthetic.samples import _PLANS
from tests.shared import SHARED, needs_shared


def test_windows_are_those_of_the_study() -> None:
    study = tomllib.loads((mappings_folder() / "studies" / "palmares2" / "study.toml").read_text(encoding="utf-8"))
    ours = load()["study"]
    theirs = {name: entry["value"] for name, entry in study["parameters"].items()}
    assert ours["cut_off"] == study["cut_off"]
    assert ours["sample_days_after_index"] == theirs["receptor_days_after_index"]
    assert ours["lead_in_days"] == theirs["lead_in_days"]
    assert ours["et_days_before"] == theirs["partner_days_before_index"]
    assert ours["et_days_after"] == theirs["partner_days_after_index"]
    assert ours["follow_up_months"] == theirs["follow_up_months"]


@needs_shared("concepts")
def test_concepts_are_known_from_a_public_source() -> None:
    with (SHARED / "data" / "concepts" / "concepts.csv").open(encoding="utf-8", newline="") as lines:
        known = {int(row["concept_id"]) for row in csv.DictReader(lines) if row["tier"] in ("A", "B")}
    parameters = load()
    used = [entry["concept"] for entry in parameters["drug"].values()]
    used += [entry["concept"] for entry in parameters["laboratory"]["test"].values()]
    assert set(used) <= known


def test_doses_of_cdk46_inhibitors_are_the_protocols() -> None:
    doses = {drug: load()["drug"][drug]["doses"] for drug in DRUGS}
    assert doses == {"palbociclib": [125, 100, 75], "ribociclib": [600, 400, 200], "abemaciclib": [150, 100, 50]}


def test_scenarios_name_plans_that_exist_and_answers_that_are_words_of_the_contract() -> None:
    for scenario in load().scenarios:
        assert scenario.samples is None or scenario.samples in _PLANS
        assert scenario.disease is None or scenario.disease in _WAYS
        assert set(scenario.expect) <= set(CRITERIA)
        for answer in scenario.expect.values():
            assert answer.split(" ")[0] in ("PASS", "FAIL", "UNKNOWN")
        assert scenario.per_300 >= 1


def test_every_later_line_can_be_drawn() -> None:
    table = load()["drug"]
    for entry in load().tables["later_line"]:
        assert set(entry["drugs"]) <= set(table)
        assert set(entry["lines"]) == {"2", "3", "4"}


def test_base_weights_meet_the_shares_whatever_the_channelling() -> None:
    parameters = load()
    base = calibrate(parameters).base
    nobody = dict.fromkeys(TRAITS, False)
    assert drug_weights(parameters, base, 2016, nobody)["abemaciclib"] == 0
    late = drug_weights(parameters, base, 2024, nobody)
    assert late["palbociclib"] < late["ribociclib"]
    channelled = drug_weights(parameters, base, 2024, dict.fromkeys(TRAITS, True))
    assert channelled["abemaciclib"] / channelled["ribociclib"] > 5 * late["abemaciclib"] / late["ribociclib"]


def test_an_unknown_word_in_the_file_is_refused(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path)) / "studies" / "palmares2"
    folder.mkdir(parents=True)
    (folder / "synthetic.toml").write_text(
        '[[scenario]]\nname = "x"\nexpect = { nonsense = "PASS x" }\n', encoding="utf-8"
    )
    monkeypatch.setenv("PALMARES_MAPPINGS", str(tmp_path))
    with pytest.raises(ValueError, match="nonsense"):
        load()
