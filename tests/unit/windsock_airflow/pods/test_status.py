"""What has become of a pod, told from its status alone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.client import models as k8s

from windsock_airflow.pods.cluster import OVER, State, has_ended, last_words, status_of


def pod(
    phase: str = "Running",
    *,
    terminated: dict[str, Any] | None = None,
    waiting: tuple[str, str] | None = None,
    running: bool = False,
    conditions: list[tuple[str, str, str, str]] | None = None,
    reason: str | None = None,
    message: str | None = None,
    deleted: bool = False,
) -> k8s.V1Pod:
    state = k8s.V1ContainerState(
        terminated=k8s.V1ContainerStateTerminated(**terminated) if terminated else None,
        waiting=k8s.V1ContainerStateWaiting(reason=waiting[0], message=waiting[1]) if waiting else None,
        running=k8s.V1ContainerStateRunning() if running else None,
    )
    status = k8s.V1ContainerStatus(name="base", state=state, image="i", image_id="", ready=False, restart_count=0)
    has = terminated or waiting or running
    made = [k8s.V1PodCondition(type=t, status=s, reason=r, message=m) for t, s, r, m in conditions or []]
    return k8s.V1Pod(
        metadata=k8s.V1ObjectMeta(name="p", deletion_timestamp=datetime.now(UTC) if deleted else None),
        status=k8s.V1PodStatus(
            phase=phase, container_statuses=[status] if has else None, conditions=made, reason=reason, message=message
        ),
    )


def ended(code: int, message: str | None = None, reason: str = "Error") -> dict[str, Any]:
    return {"exit_code": code, "message": message, "reason": reason}


SCHEDULED = [("PodScheduled", "True", "", "")]
NO_NODE = [("PodScheduled", "False", "Unschedulable", "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")]


@pytest.mark.parametrize(
    ("given", "state", "message"),
    [
        ({"phase": "Pending"}, State.QUEUED, ""),
        ({"phase": "Pending", "conditions": NO_NODE}, State.QUEUED, "3 Insufficient nvidia.com/gpu."),
        ({"phase": "Pending", "conditions": SCHEDULED}, State.STARTING, "Pending"),
        (
            {"phase": "Pending", "conditions": SCHEDULED, "waiting": ("ContainerCreating", "")},
            State.STARTING,
            "Creating",
        ),
        ({"phase": "Pending", "waiting": ("ErrImagePull", "not found")}, State.BROKEN, "not found"),
        ({"phase": "Pending", "waiting": ("ImagePullBackOff", "")}, State.BROKEN, "ImagePullBackOff"),
        ({"phase": "Pending", "waiting": ("InvalidImageName", "")}, State.BROKEN, "InvalidImageName"),
        (
            {"phase": "Pending", "waiting": ("CreateContainerConfigError", 'secret "s" not found')},
            State.BROKEN,
            'secret "s" not found',
        ),
        ({"conditions": SCHEDULED, "running": True}, State.RUNNING, ""),
        ({"conditions": SCHEDULED, "running": True, "deleted": True}, State.ENDING, "being deleted"),
        ({"phase": "Succeeded", "terminated": ended(0)}, State.DONE, ""),
        ({"phase": "Succeeded", "terminated": ended(0), "deleted": True}, State.DONE, ""),
        ({"phase": "Running", "terminated": ended(0)}, State.DONE, ""),
        ({"phase": "Failed", "terminated": ended(65, "DataContractError: x")}, State.FAILED, "DataContractError: x"),
        ({"phase": "Failed", "terminated": ended(137, reason="OOMKilled")}, State.OUT_OF_MEMORY, ""),
        ({"phase": "Failed", "terminated": ended(137)}, State.INTERRUPTED, "SIGKILL"),
        ({"phase": "Failed", "terminated": ended(143)}, State.INTERRUPTED, "SIGTERM"),
        ({"phase": "Failed", "terminated": ended(1, "x"), "deleted": True}, State.INTERRUPTED, "deleted"),
        ({"phase": "Failed", "terminated": ended(128, "no such file", "StartError")}, State.BROKEN, "no such file"),
        (
            {"phase": "Failed", "reason": "Evicted", "message": "low on memory"},
            State.INTERRUPTED,
            "Evicted: low on memory",
        ),
        ({"phase": "Failed", "reason": "NodeLost", "terminated": ended(137)}, State.INTERRUPTED, "NodeLost"),
        ({"phase": "Failed", "reason": "OutOfnvidia.com/gpu"}, State.INTERRUPTED, "OutOf"),
        (
            {
                "phase": "Failed",
                "terminated": ended(1),
                "conditions": [("DisruptionTarget", "True", "PreemptionByScheduler", "preempted")],
            },
            State.INTERRUPTED,
            "PreemptionByScheduler: preempted",
        ),
        ({"phase": "Failed", "reason": "DeadlineExceeded", "message": "60 s"}, State.OVERDUE, "60 s"),
        ({"phase": "Failed"}, State.INTERRUPTED, "before its container ran"),
    ],
)
def test_each_way_to_stand_or_end_has_its_state(given: dict[str, Any], state: State, message: str):
    status = status_of(pod(**given))
    assert status.state is state
    assert message in status.message
    ended_for_good = state in OVER or "terminated" in given
    assert has_ended(pod(**given)) == ended_for_good


def test_a_registry_that_is_only_busy_is_waited_for():
    busy = pod("Pending", conditions=SCHEDULED, waiting=("ErrImagePull", "toomanyrequests: rate limit exceeded"))
    assert status_of(busy).state is State.STARTING


def test_of_a_logs_end_the_last_line_is_the_sentence_and_own_words_are_kept_whole():
    traceback = "Traceback (most recent call last):\n  File x\nValueError: rows differ\n"
    assert last_words(traceback) == "ValueError: rows differ"
    assert last_words("\n".join(map(str, range(20)))) == "19"
    assert last_words("SpecError: two faults:\n  - a\n  - b\n") == "SpecError: two faults:\n  - a\n  - b"
    assert last_words(None) == ""


@given(st.text(max_size=300))
def test_last_words_never_fail_and_invent_nothing(text: str):
    words = last_words(text)
    assert all(line.strip() in text for line in words.splitlines())
    assert bool(words) == any(line.strip() for line in text.strip().splitlines())
