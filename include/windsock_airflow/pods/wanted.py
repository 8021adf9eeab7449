"""Whether Airflow still wants a task to be done: what the states that it gives mean for the task's pod."""

import logging
from collections.abc import Mapping
from typing import Any

from windsock_airflow.runs import enum_text

log = logging.getLogger(__name__)

_OVER = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
"""States in which nobody waits for the pod."""


def still_wanted(states: Mapping[str, Mapping[str, Any]], run_id: str, task_id: str, map_index: int) -> bool:
    """Say whether a task instance is still to be done; one that was deleted is not.

    Args:
        states: By run and task, as Airflow's execution API gives them.
        run_id: The run.
        task_id: The task.
        map_index: Of a mapped task, else -1.
    """
    of_run, name = states.get(run_id) or {}, task_id if map_index < 0 else f"{task_id}_{map_index}"
    return name in of_run and enum_text(of_run[name]) not in _OVER


def is_wanted(context: Any) -> bool | None:
    """Ask from within a task's process whether it is still to be done; None if that cannot be told.

    The state is that of the task instance now, which may be another process's by now: a
    task whose process was taken for dead is wanted, as its next try goes on with the pod.
    One that was cleared while it ran (``restarting``) gets a new pod, and this one is not.
    """
    ti = context["ti"]
    index = -1 if ti.map_index is None else ti.map_index
    try:
        states = ti.get_task_states(
            dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=index if index >= 0 else None
        )
    except Exception as err:
        log.warning("Airflow could not be asked whether this task is still wanted: %s", err)
        return None
    restarting = "restarting" in map(enum_text, states.get(ti.run_id, {}).values())
    return not restarting and still_wanted(states, ti.run_id, ti.task_id, index)
