"""Whether Airflow still wants a task to be done, asked from within its process."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger(__name__)

_OVER = frozenset({"success", "failed", "skipped", "upstream_failed", "removed", "restarting"})
"""States in which nobody waits for the pod; ``restarting``: the running task was cleared."""


def is_wanted(context: Any) -> bool | None:
    """Say whether the task instance is still to be done; None if that cannot be told.

    The state is that of the task instance now, which may be another process's by now: a
    task whose process was taken for dead is wanted, as its next try goes on with the pod.
    """
    ti = context["ti"]
    index = ti.map_index if ti.map_index is not None else -1
    try:
        states = ti.get_task_states(
            dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=index if index >= 0 else None
        )
    except Exception as err:
        log.warning("Airflow could not be asked whether this task is still wanted: %s", err)
        return None
    of_run = states.get(ti.run_id)
    if not of_run:
        return False  # the run was deleted
    state = of_run.get(ti.task_id if index < 0 else f"{ti.task_id}_{index}")
    return str(getattr(state, "value", state)) not in _OVER
