"""What ``doctor`` and ``status`` say about the days of each model: dates that cannot be, gaps, pauses, who waits."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from windsock.days import utc_now
from windsock.errors import WindsockError
from windsock.settings import Settings
from windsock_local.stack.airflow_api import AirflowApi
from windsock_local.stack.airflow_session import QUICKLY

Findings = Iterator[tuple[str, ...]]
"""Verdict, what was found and, if that is not well, the next step."""
_FAR_AHEAD = timedelta(days=2)
_CHAIN = ("ingest", "labels", "features", "score", "monitor")


@dataclass(frozen=True)
class DagFacts:
    """What Airflow says of a DAG."""

    paused: bool
    next_run: datetime | None
    """When the clock starts it next; None: never."""


def dag_facts(settings: Settings) -> dict[str, DagFacts]:
    """Ask Airflow for each DAG; nothing where none answers."""
    try:
        with AirflowApi.of(settings, **QUICKLY) as api:
            dags = list(api.pages("dags", "dags"))
    except WindsockError:
        return {}
    return {
        dag["dag_id"]: DagFacts(dag["is_paused"], datetime.fromisoformat(at) if at else None)
        for dag in dags
        for at in [dag.get("next_dagrun_run_after")]
    }


def check_dates(settings: Settings) -> Findings:
    """Name all that is dated after today, which no run records; 0.1 did, where it was asked to."""
    from windsock import promotions
    from windsock.ledger import records_after
    from windsock.spec import load_specs
    from windsock.store import Store

    today, well = utc_now().date(), True
    specs, broken = load_specs(settings)
    for model in sorted({*specs, *broken}):
        for stage, day in records_after(Store.of(settings), model, today):
            well = False
            step = f"windsock void {model} {stage} {day} --reason ..."
            yield "problem", f"{model}: {stage} of {day} is recorded, but today is {today} (UTC)", step
    for model, spec in sorted(specs.items()):
        last = promotions.current(settings, spec)
        if last is not None and last.in_force_from > today:
            well = False
            finding = f"{model}: version {last.version} is in force only from {last.in_force_from} on"
            yield "problem", finding, f"windsock correct-promotion {model} --reason ..."
    if well:
        yield "ok", f"nothing is dated after today, {today} (UTC)"


def check_gaps(settings: Settings) -> Findings:
    """Name days that are lacking, DAGs that are paused over them, clocks far ahead, and models without a spec."""
    from windsock.spec import load_specs
    from windsock.store import Store
    from windsock.upkeep.overview import days_of_model, models_without_spec

    now, well = utc_now(), True
    specs, broken = load_specs(settings)
    dags = dag_facts(settings)
    for model, spec in sorted(specs.items()):
        days = days_of_model(settings, spec, now)
        if days.fault:
            well = False
            yield "problem", f"{model}: it is not known which days are lacking: {days.fault}", "Mend what it names."
        elif gaps := days.gaps():
            well = False
            step = (
                f"windsock_watch runs those of the last {spec.schedule.catch_up_days} days; others: windsock backfill"
            )
            yield "warning", f"{model}: not settled by now: {'; '.join(gaps)}", step
        has_days = any(stage.last is not None for stage in days.stages)
        for finding, step in _of_dags(model, dags) if has_days else ():
            well = False
            yield "warning", finding, step
    if dags and ("windsock_watch" not in dags or dags["windsock_watch"].paused):
        well = False
        yield (
            "warning",
            "windsock_watch is paused or not there: nobody makes up for lost days",
            "Unpause it in Airflow.",
        )
    for model in models_without_spec(Store.of(settings), {*specs, *broken}):
        well = False
        finding = f"{model}: days of it stand in the store, but no spec is of it: it was renamed or removed"
        yield (
            "warning",
            finding,
            "Name it so again, or backfill its new name; its runs that wait must be ended by hand.",
        )
    if well:
        yield "ok", "every due day of every model is settled"


def _of_dags(model: str, dags: Mapping[str, DagFacts]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the DAGs of a model that has days, and the next step."""
    ours = {stage: dags[f"{model}_{stage}"] for stage in _CHAIN if f"{model}_{stage}" in dags}
    if paused := [f"{model}_{stage}" for stage, dag in ours.items() if dag.paused]:
        yield f"{', '.join(paused)}: paused, although days of the model stand in the store", "Unpause them in Airflow."
    for stage, dag in ours.items():
        if not dag.paused and dag.next_run is not None and dag.next_run - utc_now() > _FAR_AHEAD:
            yield (
                f"{model}_{stage}: its next run is at {dag.next_run:%Y-%m-%d %H:%M} UTC: a clock was ahead",
                "Set the clock; windsock_watch runs the days meanwhile. Delete the runs of days to come in Airflow.",
            )
