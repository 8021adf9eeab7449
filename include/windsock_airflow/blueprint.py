"""What DAG files are made of: for which models, names, defaults, schedules, and where a heavy step runs.

DAG files import this package and ``windsock.spec`` only; nothing here may import pandas, MLflow or their like, because
every task parses its DAG file again. The site's rules and the Kubernetes client are imported only if there is a pod to
make, so that DAG files of a laptop parse as fast as ever.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, time, timedelta
from typing import Any

from airflow.providers.standard.operators.python import BranchPythonOperator
from airflow.sdk import (
    BaseOperator,
    CronPartitionTimetable,
    CronTriggerTimetable,
    TaskGroup,
    TriggerRule,
    get_parsing_context,
)
from pendulum.tz.timezone import FixedTimezone

from windsock.days import ONE_DAY
from windsock.errors import SpecError
from windsock.settings import Settings
from windsock.spec import ModelSpec, get_spec, load_specs
from windsock.spec.estimators import CustomSpec, Estimator
from windsock_airflow.callbacks import on_task_failure
from windsock_airflow.step import StepOperator

MANY_RUNS = 1000
"""For DAGs whose runs may have to wait for earlier days: waiting must not keep those out."""
LONGEST_TRAINING = timedelta(hours=12)


def for_each_model(stage: str) -> Callable[[Callable[[ModelSpec], None]], None]:
    """Call a DAG file's function with each model that it makes a DAG of its stage for.

    A task's process asks for one DAG and gets its model alone. ``dags/specs.py`` reports the broken specs.
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
        "default_args": defaults(spec.owner),
    }


def defaults(owner: str) -> dict[str, Any]:
    """Return the arguments that every task has."""
    return {
        "owner": owner,
        # For services that are away for a moment; what a retry cannot mend is never retried.
        "retries": 2,
        "retry_delay": timedelta(seconds=20),
        "retry_exponential_backoff": 2,
        "max_retry_delay": timedelta(minutes=10),
        "execution_timeout": timedelta(hours=1),
        "on_failure_callback": [on_task_failure],
    }


def daily(cron: str) -> CronPartitionTimetable:
    """Run once a day, at ``M H * * *`` UTC, for the day before.

    A partition's date must be midnight: backfills and the trigger form ask for days from midnight to midnight, and
    with other ticks the last day of every backfill would silently be left out. So the clock is moved instead of the
    tick: the run at 00:30 UTC is the midnight of the zone UTC-00:30, which names the same days.
    """
    minute, hour = (int(field) for field in cron.split()[:2])
    zone = FixedTimezone(-60 * (60 * hour + minute))
    return CronPartitionTimetable("0 0 * * *", timezone=zone, run_offset=-1, key_format="%Y-%m-%d")


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


def fit_tasks(spec: ModelSpec, estimator: Estimator, options: Mapping[str, Any]) -> Any:
    """Make what trains one estimator: a task that fits it, or a group with a search by several tasks before it."""
    name = f"fit_{estimator.name}" if len(spec.training.estimators) > 1 else "fit"

    def step(task_id: str, **more: str) -> Any:
        return heavy_step(
            spec,
            step="fit",
            estimator=estimator,
            task_id=task_id,
            keyed=False,
            options={**options, **more},
            execution_timeout=LONGEST_TRAINING,
        )

    parallel = 1 if isinstance(estimator, CustomSpec) else estimator.budget.parallel
    if parallel == 1:
        return step(name)
    with TaskGroup(group_id=estimator.name, prefix_group_id=False) as group:
        searches = [step(f"search_{estimator.name}_{number}", role="search") for number in range(1, parallel + 1)]
        searches >> step(name)
    return group


def refit_tasks(spec: ModelSpec, judged: Mapping[str, Any]) -> BaseOperator:
    """Make the tasks that train again what passed the gate, and return the last one, which says what to promote.

    ``judged`` are options with the version and the champion that it was judged against. Of the estimators' tasks the
    one runs whose model was judged.
    """
    refit: Any = StepOperator(step="refit", model=spec.name, keyed=False, options=judged, skip_replayed=True)
    tasks = {estimator.name: f"fit_{estimator.name}" for estimator in spec.training.estimators}
    whose_refit = BranchPythonOperator(
        task_id="whose_refit", python_callable=_task_of, op_args=[refit.output["estimator"], tasks, "adopt"]
    )
    fits = [
        heavy_step(
            spec,
            step="fit",
            estimator=estimator,
            task_id=tasks[estimator.name],
            keyed=False,
            options={"run": refit.output["run"]},
            execution_timeout=LONGEST_TRAINING,
        )
        for estimator in spec.training.estimators
    ]
    adopt = StepOperator(
        step="adopt",
        model=spec.name,
        keyed=False,
        options={"version": refit.output["version"]},  # not the gate's: a refused version is nothing to adopt
        trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
    )
    refit >> whose_refit >> [*fits, adopt]
    fits >> adopt
    return adopt


def _task_of(estimator: str, tasks: Mapping[str, str], otherwise: str) -> str:
    return tasks.get(estimator, otherwise)


def heavy_step(spec: ModelSpec, *, step: str, estimator: Estimator | None = None, **kwargs: Any) -> BaseOperator:
    """Return the task that runs a heavy step of a model, in its own process or in a pod.

    The estimator's ``compute.backend`` decides, else ``WINDSOCK_COMPUTE``. ``fit`` trains the ``estimator``, in the
    trainer's image; other steps (``assemble``, ``monitor``) run in pods only if the site names an image with all of
    Windsock. ``kwargs`` are those of the operator.
    """
    settings, backend = Settings.from_env(), None
    if estimator is not None:
        kwargs["options"] = {**kwargs.get("options", {}), "estimator": estimator.name}
        backend = estimator.compute.backend
    if (backend or settings.compute) != "kubernetes":
        return StepOperator(step=step, model=spec.name, **kwargs)
    from windsock.compute import load_site, needs_of
    from windsock_airflow.pods.operator import PodStepOperator

    try:
        site = load_site(settings)
        if step != "fit" and site.step_image is None:
            return StepOperator(step=step, model=spec.name, **kwargs)
        needs = needs_of(spec, estimator, site)
        if needs.gpu:
            # Airflow starts no more of these at a time than there are GPUs.
            kwargs = {"pool": needs.pool, "pool_slots": needs.gpu, **kwargs}
    except SpecError:
        pass  # the task itself fails with this sentence; the DAG must not vanish for it
    return PodStepOperator(step=step, model=spec.name, **kwargs)
