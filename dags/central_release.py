"""# The centre's way: from submissions to a released cohort

Wakes when a hospital has submitted (asset `palmares_submissions`). Each submission is **received** in a task of its own:
every file is held against its hash, and a bad one keeps that site's previous submission. The **warehouse** is then built
anew beside the old one from every site in the intake. From it are **derived** the lines of therapy and the endpoints; with its eras
and episodes in it the new warehouse is swapped in by rename, so that no reader ever sees a half state. From both come the **cohort**
with its attrition table (its named analyses go into the warehouse as OMOP cohorts), and the released **datasets**.

Beside them the **quality** of all sites is put together: what each sent, against the others and against what it sent before.

- A submission that fails verification is reported by its task and stops nobody else.
- A hospital that is blocked sends a **notice** instead: what blocks, in numbers. It is received like a submission and kept beside the intake;
  the site's older submission stays, the warehouse has nothing of the notice, and the report shows the site as BLOCK until its next
  submission. A notice alone does not wake this way: it is taken in when the next hospital submits, or by hand.
- Nothing is published unless the warehouse was built.

Configuration: `home` (the workspace; else `PALMARES_HOME`), `study` (a folder of `mappings/studies`). The stages, their order and
their retries are those of `omop_etl/stages.py`.
"""

from airflow.sdk import Asset, Param, dag, task

from omop_etl.orchestration import SUBMISSIONS, WAREHOUSE, centre_place, in_airflow, workspace
from omop_etl.stages import CENTRAL_STAGES, stage


@dag(
    dag_id="central_release",
    doc_md=__doc__,
    schedule=[Asset(SUBMISSIONS)],
    catchup=False,
    max_active_runs=1,
    params={
        "home": Param(None, type=["null", "string"], description="The workspace; default: PALMARES_HOME."),
        "study": Param("palmares2", type="string", description="A folder of mappings/studies."),
    },
    tags=["palmares", "centre"],
)
def central_release():
    @task(doc_md="The submissions that lie in the workspace, and the notices of sites that are blocked.")
    def list_submissions(params=None) -> list[str]:
        from omop_etl.stages import arrived

        return [str(path) for path in arrived(workspace(params))]

    @task(
        task_id="receive",
        doc_md=stage("receive").sentence,
        retries=stage("receive").retries,
        retry_exponential_backoff=True,
        map_index_template="{{ label }}",
    )
    def receive(submission: str, params=None) -> dict:
        from pathlib import Path

        from omop_etl import stages

        folder = Path(submission)
        label = f"{folder.parent.name} {folder.name}"
        return in_airflow(label, stages.receive, centre_place(params), folder)

    # all_done: a submission that was refused keeps the site's previous one, and the others go on
    @task(
        task_id="build",
        doc_md=stage("build").sentence,
        retries=stage("build").retries,
        trigger_rule="all_done",
    )
    def build(params=None) -> dict:
        from omop_etl import stages

        return in_airflow("warehouse", stages.build, centre_place(params))

    def follow(name: str, rule: str = "all_success"):
        @task(
            task_id=name,
            doc_md=stage(name).sentence,
            retries=stage(name).retries,
            trigger_rule=rule,
            # deriving swaps the new warehouse in
            outlets=[Asset(WAREHOUSE)] if name == "derive" else [],
        )
        def run(params=None) -> dict:
            from omop_etl import stages

            return in_airflow(params["study"], getattr(stages, name), centre_place(params), params["study"])

        return run()

    last = build()
    receive.expand(submission=list_submissions()) >> last
    for one in CENTRAL_STAGES[2:-1]:
        following = follow(one.name)
        last >> following
        last = following
        if one.name == "derive":
            # all_done: the report on quality is wanted most when something else failed; and it stops nothing
            following >> follow(CENTRAL_STAGES[-1].name, "all_done")


way = central_release()
