"""A thread of the scheduler that starts ``windsock_watch`` every quarter of an hour, and then the runs that it wants.

Not Airflow's own clock: that waits for the tick after the last run, and after a clock that was ahead for half a minute
this may be years away. The thread goes by time that has passed. It calls Airflow's execution API as a task would. The
top of this module is imported by every task: nothing heavy may stand there.
"""

import logging
import queue
from http import HTTPStatus
from typing import Any

from airflow.listeners import hookimpl

from windsock.days import utc_now
from windsock_airflow.scheduler_threads import Looks, execution_client, in_scheduler, start_thread

log = logging.getLogger(__name__)

LOOK_SECONDS, AGAIN_SECONDS = 900.0, 60.0
DAG_ID, TASK_ID = "windsock_watch", "look"

_ended: queue.SimpleQueue[str] = queue.SimpleQueue()
"""Runs of the watch that have just succeeded in this scheduler."""


@hookimpl
def on_starting(component: Any) -> None:
    """Start the thread if this process is a scheduler."""
    if not in_scheduler(component):
        return
    # Imported by this thread: forks must not meet the other one in the middle of an import.
    import airflow.executors.base_executor
    import airflow.sdk.api.client  # noqa: F401

    start_thread("windsock-watch", _watch_for_ever)


@hookimpl
def on_dag_run_success(dag_run: Any, msg: str) -> None:
    """Hand a run of the watch to the thread; the scheduler itself waits for nothing."""
    if dag_run.dag_id == DAG_ID:
        _ended.put(dag_run.run_id)


def look(client: Any) -> None:
    """Start a run of the watch, unless it is paused, one is under way, or Airflow does not know it yet."""
    dag = client.dags.get(dag_id=DAG_ID)
    if not dag.is_paused and client.dag_runs.get_count(DAG_ID, states=["queued", "running"]).count == 0:
        _start(client, DAG_ID, f"watch__{utc_now():%Y-%m-%dT%H.%M.%SZ}")


def start_wanted(client: Any, run_id: str) -> bool:
    """Start the runs that a run of the watch wants, and say whether it is to look again soon."""
    wanted = client.xcoms.get(DAG_ID, run_id, TASK_ID, "return_value").value or {}
    for run in wanted.get("start", ()):
        _start(client, run["dag_id"], run["run_id"], run["key"])
    return bool(wanted.get("again"))


def _start(client: Any, dag_id: str, run_id: str, key: str | None = None) -> None:
    """Start a run; one of this name that is there already is no error."""
    from airflow.sdk.api.client import ServerResponseError

    try:
        client.post(f"dag-runs/{dag_id}/{run_id}", json={"partition_key": key} if key else {})
    except ServerResponseError as err:
        if err.response.status_code != HTTPStatus.CONFLICT:
            raise


def _watch_for_ever() -> None:
    # An Airflow that is away, or has not parsed the DAG yet, is asked again soon.
    pause, looks = AGAIN_SECONDS, Looks(log, "The days could not be looked after")
    while True:
        try:
            ended = _ended.get(timeout=pause)
        except queue.Empty:
            ended = None
        pause = AGAIN_SECONDS
        with looks.look(), execution_client() as client:
            if ended is None:
                look(client)
                pause = LOOK_SECONDS
            elif not start_wanted(client, ended):
                pause = LOOK_SECONDS
