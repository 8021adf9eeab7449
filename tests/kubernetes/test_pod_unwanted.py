"""A task that nobody wants any more has no pod, whether or not a process of it runs."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import pytest
from pod_world import World, until

from windsock_airflow.pods.cluster import OVER, status_of

SECONDS = 30


def running(pods: World, name: str) -> str:
    """Start a run whose pod runs."""
    run = pods.start(name)
    pods.running(name)
    return run


def waiting(pods: World, name: str) -> str:
    """Start a run whose pod finds no node, until its task waits without a process."""
    run = pods.start(name)
    until(
        lambda: pods.task(name, run)["state"] == "up_for_reschedule" and pods.pods(name), 60, "the task does not wait"
    )
    return run


def deferred(pods: World, name: str) -> str:
    """Start a run whose pod runs, watched by the triggerer alone."""
    run = pods.start(name)
    pods.running(name)
    until(lambda: pods.task(name, run)["state"] == "deferred", 60, "the task is not deferred")
    return run


def mark(pods: World, name: str, run: str, state: str = "failed") -> None:
    """Mark the task."""
    path = f"dags/pods_{name}/dagRuns/{quote(run, safe='')}/taskInstances/fit"
    pods.stack.api.call("PATCH", path, {"new_state": state})


def clear(pods: World, name: str, run: str) -> None:
    """Clear the task, whatever its state."""
    body = {"dry_run": False, "dag_run_id": run, "task_ids": ["fit"], "only_failed": False, "reset_dag_runs": True}
    pods.stack.api.call("POST", f"dags/pods_{name}/clearTaskInstances", body)


def delete_run(pods: World, name: str, run: str) -> None:
    """Delete a run at once; Airflow wants one that is over."""
    path = f"dags/pods_{name}/dagRuns/{quote(run, safe='')}"
    pods.stack.api.call("PATCH", path, {"state": "failed"})
    pods.stack.api.call("DELETE", path)


@pytest.mark.parametrize(
    ("name", "begin"), [("marked", running), ("queued_marked", waiting), ("deferred_marked", deferred)]
)
def test_the_pod_of_a_task_marked_failed_is_gone_within_seconds(
    pods: World, name: str, begin: Callable[[World, str], str]
):
    run = begin(pods, name)
    mark(pods, name, run)
    assert pods.gone(name)
    assert pods.end(name, run) == "failed"
    assert pods.task(name, run)["state"] == "failed"


def test_the_pod_of_a_deleted_run_is_gone_within_seconds(pods: World):
    run = running(pods, "run_gone")
    delete_run(pods, "run_gone", run)
    assert pods.gone("run_gone")


def test_a_cleared_task_gets_a_new_pod_once_the_old_one_is_gone(pods: World):
    run = running(pods, "cleared")
    (first,) = pods.pods("cleared")
    clear(pods, "cleared", run)
    second = pods.running("cleared", 2)
    assert second != first.metadata.name
    others = [pod for pod in pods.pods("cleared") if pod.metadata.name != second]
    assert all(status_of(pod).state in OVER for pod in others)  # what is left of the first is its last words
    (pods.folder("cleared") / "go").touch()
    assert pods.end("cleared", run) == "success"
    assert pods.gone("cleared")


def test_a_task_cleared_while_its_pod_waits_gets_a_new_one(pods: World):
    run = waiting(pods, "queued_cleared")
    (first,) = pods.pods("queued_cleared")
    clear(pods, "queued_cleared", run)

    def replaced() -> bool:
        names = [pod.metadata.name for pod in pods.pods("queued_cleared")]
        return len(names) == 1 and names != [first.metadata.name]

    until(replaced, SECONDS, "the old pod still waits")
    delete_run(pods, "queued_cleared", run)
    assert pods.gone("queued_cleared")
