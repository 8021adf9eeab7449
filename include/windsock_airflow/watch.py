"""What ``windsock_watch`` asks of Airflow about the days that a model lacks, by the interface that every task has.

A task cannot start a run for a day, as its interface has no field for one. It says which runs it wants, and the
scheduler's thread that started it (``watch_clock``) starts them.
"""

import logging
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowRuntimeError
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import DagRunResult, GetDagRun

from windsock.days import utc_now
from windsock.errors import UpstreamUnavailable, WindsockError
from windsock.settings import Settings
from windsock.spec import load_specs
from windsock_airflow.runs import enum_text

log = logging.getLogger(__name__)

_OVER = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
_NOT_FOUND = 404


def look_after_all(context: Context) -> dict[str, Any]:
    """Look after each model.

    Returns:
        ``start``: the runs that are wanted, each with ``dag_id``, ``run_id`` and ``key``; ``again``: whether more is to
        follow soon.
    """
    from windsock.upkeep.watch import ALIVE, RunState, look_after, tell_fault

    settings, start, again = Settings.from_env(), list[dict[str, str]](), False
    ti: Any = context["ti"]

    class OfTask:
        """The scheduler, as this task sees it."""

        def is_paused(self, dag_id: str) -> bool:
            try:
                return bool(ti.get_dag(dag_id).is_paused)
            except AirflowRuntimeError as err:
                raise UpstreamUnavailable(f"Airflow does not know {dag_id} yet, or cannot say: {err}") from err

        @cache  # noqa: B019  # lives as long as one look
        def days_on_their_way(self, dag_id: str) -> Mapping[str, datetime | None]:
            states: Mapping[str, Mapping[str, Any]] = ti.get_task_states(dag_id=dag_id)
            alive = (id for id, tasks in states.items() if not {enum_text(s) for s in tasks.values()} <= _OVER)
            runs = (_run(dag_id, run_id) for run_id in alive)
            return {str(run.partition_key): run.start_date for run in runs if run and enum_text(run.state) in ALIVE}

        def run_state(self, dag_id: str, run_id: str) -> RunState | None:
            run = _run(dag_id, run_id)
            return RunState(enum_text(run.state), run.end_date) if run is not None else None

        def start(self, dag_id: str, run_id: str, key: str) -> None:
            start.append({"dag_id": dag_id, "run_id": run_id, "key": key})

    for _, spec in sorted(load_specs(settings)[0].items()):
        try:
            again |= look_after(settings, spec, OfTask(), utc_now())
        except WindsockError as err:
            tell_fault(settings, spec, err)
    for run in start:
        log.info("To be run: %s for %s", run["dag_id"], run["key"])
    return {"start": start, "again": again}


def _run(dag_id: str, run_id: str) -> DagRunResult | None:
    try:
        found = task_runner.SUPERVISOR_COMMS.send(GetDagRun(dag_id=dag_id, run_id=run_id))
    except AirflowRuntimeError as err:
        if (err.error.detail or {}).get("status_code") == _NOT_FOUND:
            return None
        raise
    return found if isinstance(found, DagRunResult) else None
