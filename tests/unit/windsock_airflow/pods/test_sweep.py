"""Which pods nobody waits for."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from kubernetes.client import V1ObjectMeta, V1Pod

from windsock.settings import Settings
from windsock_airflow.pods import sweep
from windsock_airflow.pods.identity import TaskIdentity

KEY = ("d", "r", "t", -1)


def pod(*, mine: bool = True, deleted: bool = False) -> V1Pod:
    said = TaskIdentity("0", "d", "r", "t", -1).annotations if mine else {"other": "x"}
    at = datetime.now(UTC) if deleted else None
    return V1Pod(metadata=V1ObjectMeta(name="p", annotations=said, deletion_timestamp=at))


@pytest.mark.parametrize("state", ["success", "failed", "skipped", "upstream_failed", "removed"])
def test_the_pod_of_a_task_that_is_over_is_unwanted(state: str):
    assert len(sweep.unwanted([pod()], {KEY: state})) == 1


@pytest.mark.parametrize(
    "state", [None, "scheduled", "queued", "running", "restarting", "up_for_retry", "up_for_reschedule", "deferred"]
)
def test_the_pod_of_a_task_that_may_go_on_stays(state: str | None):
    assert sweep.unwanted([pod()], {KEY: state}) == []


def test_the_pod_of_a_task_that_was_deleted_is_unwanted():
    assert len(sweep.unwanted([pod()], {})) == 1


def test_pods_of_others_and_those_being_deleted_are_left_alone():
    assert sweep.unwanted([pod(mine=False), pod(deleted=True)], {}) == []


def test_only_schedulers_sweep_and_only_if_something_may_run_in_pods(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("sys.argv", ["airflow", "triggerer"])
    assert sweep.start_in_scheduler() is None
    monkeypatch.setattr("sys.argv", ["airflow", "scheduler"])
    monkeypatch.setenv("WINDSOCK_MODELS", str(tmp_path))
    monkeypatch.delenv("WINDSOCK_COMPUTE", raising=False)
    assert sweep.start_in_scheduler() is None
    assert sweep.pods_are_used(Settings.from_env({"WINDSOCK_COMPUTE": "kubernetes"}))
