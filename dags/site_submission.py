"""# A hospital's way: from its sources to a submission

Each **source** of each site is extracted in a task of its own and becomes FHIR R4. Then, per site: the newest version of
every resource **lands**, new resources are **validated**, the sound ones are **mapped** to OMOP CDM 5.4, the slice passes
the **gate**, and what may leave the hospital is **submitted**.

- One run may carry one hospital (at a hospital) or all (the demo): `sites` in the run's configuration, else every site
  that has a TOML.
- A source gives what changed since it last landed; with `full`, all that it has. What it remembers moves on only after
  landing, so a run that fails anywhere is repeated, not skipped.
- A source that fails is retried, then reported, and the site goes on with its other sources. A site that fails stops
  nobody else.
- The run is red when a site failed, though the others submitted: the `report` task names it.
- After a BLOCK the `submit` task of that site fails with a message that says what to do; the site's previous submission
  stays, and beside it a notice tells the centre what blocks, in numbers.
- Beside the verdict the gate leaves the list of records to look at (`queries/queries.xlsx`) and what to mend first (`quality/`).
- Each submission updates the asset `palmares_submissions`, on which `central_release` wakes.

Configuration: `home` (the workspace; else the environment's `PALMARES_HOME`), `sites`, `full` (every source anew, landed
from nothing; on top of what had landed where a source failed). The stages, their order and their retries are those of
`omop_etl/stages.py`.
"""

from airflow.sdk import Asset, Param, dag, task, task_group

from omop_etl.orchestration import SUBMISSIONS, in_airflow, site_place, workspace
from omop_etl.stages import SITE_STAGES, stage


@dag(
    dag_id="site_submission",
    doc_md=__doc__,
    schedule="@daily",
    catchup=False,
    max_active_runs=1,
    params={
        "home": Param(None, type=["null", "string"], description="The workspace; default: PALMARES_HOME."),
        "sites": Param(None, type=["null", "array"], description="Site ids; default: every site with a TOML."),
        "full": Param(
            False, type="boolean", description="All that the sources have, not what changed since last time."
        ),
    },
    tags=["palmares", "hospital"],
)
def site_submission():
    @task(doc_md="Which sites this run carries.")
    def list_sites(params=None) -> list[str]:
        from omop_etl.config import site_ids

        return params["sites"] or site_ids()

    @task(doc_md="Every source of every site, each to be extracted by itself.")
    def list_sources(sites: list[str]) -> list[dict]:
        from omop_etl.orchestration import sources_of

        return sources_of(sites)

    @task(
        task_id="extract",
        doc_md=stage("extract").sentence,
        retries=stage("extract").retries,
        retry_exponential_backoff=True,
        map_index_template="{{ label }}",
    )
    def extract(source: dict, params=None) -> dict:
        from omop_etl import stages

        place = site_place(params, source["site"])
        label = f"{source['site']} source {source['number'] + 1}"
        return source | in_airflow(label, stages.extract, place, source["number"], full=params["full"])

    def step(name: str, **options):
        """A task per site for the stage of this name."""
        described = stage(name)
        return task(
            task_id=name,
            doc_md=described.sentence,
            retries=described.retries,
            map_index_template="{{ label }}",
            **options,
        )

    @task_group(group_id="hospital")
    def hospital(site: str, extracted: list[dict]):
        # all_done: a source that failed must not stop the site's other sources, nor the other sites
        @step("land", trigger_rule="all_done")
        def land(site: str, extracted: list[dict], params=None) -> dict:
            from omop_etl import stages

            mine = [one["out"] for one in extracted or [] if one and one["site"] == site]
            return in_airflow(site, stages.land, site_place(params, site), mine, full=params["full"])

        def follow(name: str, **options):
            @step(name, **options)
            def run(site: str, params=None) -> dict:
                from omop_etl import stages

                return in_airflow(site, getattr(stages, "map_" if name == "map" else name), site_place(params, site))

            return run(site)

        last = land(site, extracted)
        for one in SITE_STAGES[2:]:
            outlets = {"outlets": [Asset(SUBMISSIONS)]} if one.name == "submit" else {}
            following = follow(one.name, **outlets)
            last >> following
            last = following

    @task(
        trigger_rule="all_done", doc_md="One line per site: how far it came, and its verdict. Red when a site failed."
    )
    def report(sites: list[str], params=None) -> None:
        from omop_etl.orchestration import in_airflow, report_sites

        in_airflow("report", report_sites, workspace(params), sites)

    sites = list_sites()
    extracted = extract.expand(source=list_sources(sites))
    hospital.partial(extracted=extracted).expand(site=sites) >> report(sites)


way = site_submission()
