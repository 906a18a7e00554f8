"""# A data lock: the registry frozen at a cut-off date

Started by hand, with a name and a cut-off date. From the submissions in the intake as they are at this moment the warehouse is
built anew, lines and endpoints are **derived**, eligibility is answered, and the datasets are **published**, all at the
cut-off: nothing dated later enters. The result is **sealed** in `locks/<name>` with the hashes of what went in, of mappings,
vocabulary, code and environment, and of what came out, and with a text to cite it by. Then every byte is **verified**, and the
lock is made **again** from its own manifest and compared, file by file.

- A lock is never changed, and its name is never used twice. A run that is killed leaves none.
- The central team's warehouse, cohort and release are neither read nor changed: a lock may be made while they are.
- Where the lock made again differs, the run is red, and the task names the files and what has changed since.

Configuration: `home` (the workspace; else `PALMARES_HOME`), `name`, `cut_off` (YYYY-MM-DD), `study`.
"""

from airflow.sdk import Param, dag, task

from omop_etl.orchestration import centre_place, in_airflow


@dag(
    dag_id="data_lock",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    max_active_runs=1,
    params={
        "home": Param(None, type=["null", "string"], description="The workspace; default: PALMARES_HOME."),
        "name": Param("lock", type="string", description="The lock's name; it can be used once."),
        "cut_off": Param("2025-01-01", type="string", format="date", description="Nothing dated later enters."),
        "study": Param("palmares2", type="string", description="A folder of mappings/studies."),
    },
    tags=["palmares", "centre"],
)
def data_lock():
    @task(task_id="create", doc_md="Build, derive, answer eligibility and publish at the cut-off, and seal the lock.")
    def create(params=None) -> dict:
        from datetime import date

        from omop_etl import stages

        day = date.fromisoformat(params["cut_off"])
        return in_airflow(params["name"], stages.lock, centre_place(params), params["name"], day, params["study"])

    @task(task_id="verify", doc_md="Hold every byte of the lock against what was sealed.")
    def verify(params=None) -> dict:
        from omop_etl import stages

        return in_airflow(params["name"], stages.verify_lock, centre_place(params), params["name"])

    @task(task_id="rebuild", doc_md="Make the lock again from its manifest and compare every file.")
    def rebuild(params=None) -> dict:
        from omop_etl import stages

        return in_airflow(params["name"], stages.rebuild_lock, centre_place(params), params["name"])

    create() >> verify() >> rebuild()


way = data_lock()
