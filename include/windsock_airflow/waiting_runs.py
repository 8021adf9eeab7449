"""Airflow's scheduler passes over the runs that wait, not to fall behind with hundreds of them.

It looks at every active run in each loop, some ten milliseconds each, and gives tasks away once a loop. A run with a
task under way, of which no task has changed since the last look, has nothing to be found: slot, worker and trigger take
the task on without that look. Why, and what it costs: docs/adr/0033. The top of this module is imported by every task:
nothing heavy may stand there.
"""

import inspect
import logging
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from airflow.listeners import hookimpl

from windsock.days import utc_now
from windsock_airflow.scheduler_threads import in_scheduler

log = logging.getLogger(__name__)

_LONGEST_UNSEEN = timedelta(minutes=5)
"""What the clock alone changes, as the timeout of a run, is found so late."""
_AT_ONCE = 20
"""Of the runs unseen for so long are looked at in one loop, that it stays short."""
_UNDER_WAY = frozenset({"scheduled", "queued", "running", "restarting", "deferred", "awaiting_input"})
"""What becomes of a task in these states is the executor's, a worker's, a trigger's or a person's to say."""
_SETTLED = timedelta(seconds=5)
"""A change is in the database that long after its time; so far may clocks be apart, too."""


@hookimpl
def on_starting(component: Any) -> None:
    """Have the runs passed over if this process is a scheduler."""
    if in_scheduler(component):
        pass_over_waiting_runs()


def pass_over_waiting_runs() -> bool:
    """Let the scheduler look at the other runs only; says if that is in place.

    The method is private to Airflow: it is wrapped only if it looks as in the versions that this was tried with.
    """
    from airflow import __version__ as version
    from airflow.models.dagrun import DagRun

    original: Any = DagRun.get_running_dag_runs_to_examine
    if getattr(original, "_windsock_wrapped", False):
        return True
    if not version.startswith("3.3.") or list(inspect.signature(original).parameters) != ["session"]:
        log.info("This Airflow's scheduler is not one we know: it looks at runs that wait in each loop.")
        return False

    def get_running_dag_runs_to_examine(session: Any) -> Sequence[DagRun]:
        return due(list(original(session=session)), session)

    get_running_dag_runs_to_examine._windsock_wrapped = True  # type: ignore[attr-defined]
    DagRun.get_running_dag_runs_to_examine = get_running_dag_runs_to_examine  # type: ignore[method-assign, assignment]
    return True


def due(runs: Sequence[Any], session: Any) -> Sequence[Any]:
    """Return those of the running runs that have a reason to be looked at, in their order."""
    now, found, overdue = utc_now(), [], 0
    changed = _changed(session, now)
    for run in runs:
        seen = run.last_scheduling_decision
        if seen is not None and run.id in changed and changed[run.id] + _SETTLED < seen:
            if now - seen < _LONGEST_UNSEEN or overdue == _AT_ONCE:
                continue
            overdue += 1
        found.append(run)
    return found


def _changed(session: Any, now: datetime) -> dict[int, datetime]:
    """Return when a task last changed of each run that goes on with a change of one: no look is needed for it."""
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.taskreschedule import TaskReschedule
    from sqlalchemy import func, select

    of_run = (TaskInstance.dag_id == DagRun.dag_id) & (TaskInstance.run_id == DagRun.run_id)
    poke = select(func.max(TaskReschedule.reschedule_date)).where(TaskReschedule.ti_id == TaskInstance.id)
    tasks = select(DagRun.id, TaskInstance.state, TaskInstance.updated_at, poke.scalar_subquery())
    by_run = defaultdict[int, list[tuple[bool | None, datetime]]](list)
    for run_id, state, changed, pokes in session.execute(
        tasks.join(TaskInstance, of_run).where(DagRun.state == "running")
    ):
        by_run[run_id].append((_goes_on_by_itself(state, pokes, now), changed))
    return {
        run_id: max(changed for _, changed in tasks)
        for run_id, tasks in by_run.items()
        if any(by_itself for by_itself, _ in tasks) and all(by_itself is not False for by_itself, _ in tasks)
    }


def _goes_on_by_itself(state: str | None, pokes: datetime | None, now: datetime) -> bool | None:
    """Say whether a task will change without a look at its run; False: it needs one; None: it waits for others."""
    if state in _UNDER_WAY:
        return True
    if state == "up_for_reschedule":
        return pokes is not None and pokes > now
    return False if state == "up_for_retry" else None
