"""What all DAGs have in common: for which models they are made, names, defaults, schedules.

DAG files import this package and ``windsock.spec`` only; nothing here may import pandas,
MLflow or their like, because every task parses its DAG file again.
"""

from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from typing import Any

from airflow.sdk import CronPartitionTimetable, CronTriggerTimetable, get_parsing_context
from pendulum.tz.timezone import FixedTimezone

from windsock.days import ONE_DAY
from windsock.settings import Settings
from windsock.spec import ModelSpec, get_spec, load_specs
from windsock_airflow.callbacks import on_task_failure

MANY_RUNS = 1000
"""For DAGs whose runs may have to wait for earlier days: waiting must not keep those out."""


def for_each_model(stage: str) -> Callable[[Callable[[ModelSpec], None]], None]:
    """Call a DAG file's function with each model that it makes a DAG of its stage for.

    A task's process asks for one DAG and gets its model alone. Broken specs are left out
    here; ``dags/specs.py`` reports them.
    """

    def make_dags(make_dag: Callable[[ModelSpec], None]) -> None:
        settings = Settings.from_env()
        asked = get_parsing_context().dag_id
        if asked is None:
            for spec in load_specs(settings)[0].values():
                make_dag(spec)
        elif asked.endswith(f"_{stage}"):
            make_dag(get_spec(settings, asked.removesuffix(f"_{stage}")))

    return make_dags


def identity(spec: ModelSpec, stage: str, doc: str | None) -> dict[str, Any]:
    """Return the DAG arguments that only depend on model, stage and the DAG file's docstring, which the UI shows."""
    return {
        "dag_id": f"{spec.name}_{stage}",
        "description": (doc or "").strip().partition("\n")[0],
        "doc_md": f"{doc}\n\nModel `{spec.name}` ({spec.owner}): {spec.description}",
        "tags": [f"stage:{stage}", f"model:{spec.name}"],
        "catchup": False,
        "default_args": {
            "owner": spec.owner,
            # For services that are away for a moment; what a retry cannot mend is never retried.
            "retries": 2,
            "retry_delay": timedelta(seconds=20),
            "retry_exponential_backoff": 2,
            "max_retry_delay": timedelta(minutes=10),
            "execution_timeout": timedelta(hours=1),
            "on_failure_callback": [on_task_failure],
        },
    }


def daily(cron: str) -> CronPartitionTimetable:
    """Run once a day, at ``M H * * *`` UTC, for the day before.

    A partition's date must be midnight: backfills and the trigger form ask for days from
    midnight to midnight, and with ticks at half past midnight the last day of every
    backfill would silently be left out. So the clock is moved instead of the tick: the
    run at 00:30 UTC is the midnight of the zone UTC-00:30, which names the same days.
    """
    minute, hour = (int(field) for field in cron.split()[:2])
    return CronPartitionTimetable(
        "0 0 * * *",
        timezone=FixedTimezone(-60 * (60 * hour + minute)),
        run_offset=-1,
        key_format="%Y-%m-%d",
    )


def weekly(cron: str | None) -> CronTriggerTimetable | None:
    """Run at a cron's ticks (UTC), or never by the clock."""
    return None if cron is None else CronTriggerTimetable(cron, timezone="UTC")


def live_from(spec: ModelSpec) -> datetime:
    """Return the instant after the model's first day: the first at which that day is over."""
    return datetime.combine(spec.first_day + ONE_DAY, time(), UTC)


def live_until(spec: ModelSpec) -> datetime | None:
    """Return the last instant at which the clock may start a run, or None for no end."""
    if spec.last_day is None:
        return None
    return datetime.combine(spec.last_day + 2 * ONE_DAY, time(), UTC) - timedelta(seconds=1)
