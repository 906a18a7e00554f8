"""The DAGs: which there are, that they say what they are, and that their shape is that of the stages."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from omop_etl.run_dag import dags_folder, load_dag
from omop_etl.stages import CENTRAL_STAGES, SITE_STAGES

LISTED = {"site_submission", "central_release", "data_lock"}


@pytest.fixture(scope="module")
def dags() -> dict[str, Any]:
    return {name: load_dag(name) for name in LISTED}


def test_every_dag_is_in_the_list() -> None:
    assert {path.stem for path in dags_folder().glob("*.py")} == LISTED


@pytest.mark.parametrize("name", sorted(LISTED))
def test_each_opens_with_its_story(dags: dict[str, Any], name: str) -> None:
    story = dags[name].doc_md
    assert story.startswith("# ")
    assert len(story) > 500
    assert all(task.doc_md for task in dags[name].tasks), "every task says what it does"


@pytest.mark.parametrize("name", sorted(LISTED))
def test_a_dag_file_holds_no_logic_and_no_secret(name: str) -> None:
    text = (dags_folder() / f"{name}.py").read_text(encoding="utf-8")
    code = text.split('"""', 2)[2]
    assert len(code.splitlines()) < 120
    assert not any(word in code.lower() for word in ("password", "token", "http://", "https://", "select "))


def chain(dag: Any, ids: list[str]) -> None:
    for first, second in pairwise(ids):
        assert second in dag.get_task(first).downstream_task_ids, f"{first} → {second}"


def test_the_hospitals_dag_follows_the_stages(dags: dict[str, Any]) -> None:
    dag = dags["site_submission"]
    ids = [f"hospital.{stage.name}" for stage in SITE_STAGES[1:]]
    chain(dag, ["list_sites", "list_sources", "extract", *ids, "report"])
    assert {task.task_id for task in dag.tasks} == {"list_sites", "list_sources", "extract", *ids, "report"}
    for stage in SITE_STAGES:
        task = dag.get_task(stage.name if stage.name == "extract" else f"hospital.{stage.name}")
        assert task.retries == stage.retries
        assert task.doc_md == stage.sentence
    assert dag.get_task("extract").is_mapped
    assert dag.get_task("hospital.map").get_closest_mapped_task_group() is not None


def test_a_failing_site_stops_no_other(dags: dict[str, Any]) -> None:
    dag = dags["site_submission"]
    assert dag.get_task("hospital.land").trigger_rule == "all_done"
    assert dag.get_task("report").trigger_rule == "all_done"
    assert dags["central_release"].get_task("build").trigger_rule == "all_done"


def test_the_centres_dag_follows_the_stages(dags: dict[str, Any]) -> None:
    dag = dags["central_release"]
    names = [stage.name for stage in CENTRAL_STAGES]
    chain(dag, ["list_submissions", *(name for name in names if name != "report")])
    chain(dag, ["derive", "report"])
    assert {task.task_id for task in dag.tasks} == {"list_submissions", *names}
    report = dag.get_task("report")
    assert report.trigger_rule == "all_done", "wanted most when something failed"
    assert not report.downstream_task_ids, "and it stops nothing"
    assert dag.get_task("receive").is_mapped
    for stage in CENTRAL_STAGES:
        assert dag.get_task(stage.name).retries == stage.retries


def test_the_centre_wakes_on_what_the_hospitals_write(dags: dict[str, Any]) -> None:
    outlets = [asset.name for asset in dags["site_submission"].get_task("hospital.submit").outlets]
    assert outlets == ["palmares_submissions"]
    assert "palmares_submissions" in str(dags["central_release"].timetable.asset_condition)


def test_the_centre_finds_what_the_hospitals_left(dags: dict[str, Any], tmp_path: Path) -> None:
    for name in ("s1/submission", "s2/notice", "s3/submission", "s3/notice", "s4/slice"):
        (tmp_path / "sites" / name).mkdir(parents=True)
    (tmp_path / "sites" / "s5").mkdir()
    (tmp_path / "sites" / "s5" / "notice").write_text("a file is none")
    listed = dags["central_release"].get_task("list_submissions").python_callable({"home": str(tmp_path)})
    found = [Path(one).relative_to(tmp_path / "sites").as_posix() for one in listed]
    assert found == ["s1/submission", "s3/submission", "s2/notice", "s3/notice"], "what was submitted comes first"


def test_the_lock_is_made_then_verified_then_made_again(dags: dict[str, Any]) -> None:
    dag = dags["data_lock"]
    chain(dag, ["create", "verify", "rebuild"])
    assert {task.task_id for task in dag.tasks} == {"create", "verify", "rebuild"}
    assert all(task.retries == 0 for task in dag.tasks), "a lock's name can be used once: a retry could not go well"
    assert set(dag.params) == {"home", "name", "cut_off", "study"}
    assert dag.schedule is None
