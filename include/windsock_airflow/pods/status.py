"""What has become of a pod, in words that say what to do next.

==================  ====================================================================
state               the operator
==================  ====================================================================
QUEUED, STARTING    waits, rescheduled, up to ``wait_minutes``
RUNNING             follows the log
ENDING              waits until it is gone: there is never a second pod beside it
DONE                reads the result
BROKEN              fails for good: this pod can never start
FAILED              fails for good on exit codes 64 and 65, else is retried
OUT_OF_MEMORY       is retried with more memory, up to ``memory_limit``
INTERRUPTED         makes a new pod: deleted, evicted, preempted, killed or its node lost
OVERDUE             is retried: the pod ran into its deadline
==================  ====================================================================
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from airflow.providers.cncf.kubernetes.utils.pod_manager import detect_pod_terminate_early_issues
from kubernetes.client import models as k8s

from windsock_airflow.pods.manifest import CONTAINER


class State(Enum):
    """See the module's table."""

    QUEUED, STARTING, RUNNING, ENDING, DONE, BROKEN, FAILED, OUT_OF_MEMORY, INTERRUPTED, OVERDUE = range(10)


OVER = frozenset({State.DONE, State.FAILED, State.OUT_OF_MEMORY, State.INTERRUPTED, State.OVERDUE})
"""States in which nothing runs any more."""
_KILLED = {137: "SIGKILL", 143: "SIGTERM"}
_CANNOT_START = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_NEVER_STARTED = frozenset({"StartError", "ContainerCannotRun"})
_MOST_LINES = 12


@dataclass(frozen=True)
class PodStatus:
    """A pod's state, and what it or the cluster says of it."""

    state: State
    message: str = ""
    exit_code: int | None = None


def status_of(pod: k8s.V1Pod) -> PodStatus:
    """Say what has become of a pod."""
    ended = _ended(pod)
    if ended is not None:
        return ended
    if pod.metadata.deletion_timestamp is not None:
        return PodStatus(State.ENDING, f"Pod {pod.metadata.name} is being deleted.")
    waiting = _of_container(pod, "waiting")
    if waiting is not None and waiting.reason in _CANNOT_START:
        return PodStatus(State.BROKEN, f"{waiting.reason}: {waiting.message or 'no reason was given'}")
    if issue := detect_pod_terminate_early_issues(pod):
        return PodStatus(State.BROKEN, " ".join(issue.split()))
    if _of_container(pod, "running") is not None:
        return PodStatus(State.RUNNING)
    scheduled = _condition(pod, "PodScheduled")
    if scheduled is None or scheduled.status != "True":
        return PodStatus(State.QUEUED, (scheduled and scheduled.message) or "")
    reason = waiting.reason if waiting is not None and waiting.reason else "Pending"
    return PodStatus(State.STARTING, f"{reason}: {waiting.message}" if waiting and waiting.message else reason)


def has_ended(pod: k8s.V1Pod) -> bool:
    """Say whether nothing runs in a pod and nothing will."""
    return pod.status.phase in {"Succeeded", "Failed"} or _of_container(pod, "terminated") is not None


def last_words(message: str | None) -> str:
    """Return the sentence in a termination message.

    A container that left no message is quoted with the end of its log; there, the last
    line says most.
    """
    lines = [line.rstrip() for line in (message or "").strip().splitlines() if line.strip()]
    if len(lines) > _MOST_LINES or any(line.startswith("Traceback (most recent call last)") for line in lines):
        return lines[-1].strip()
    return "\n".join(lines)


def _ended(pod: k8s.V1Pod) -> PodStatus | None:
    status, terminated = pod.status, _of_container(pod, "terminated")
    if (terminated is not None and terminated.exit_code == 0) or status.phase == "Succeeded":
        return PodStatus(State.DONE, exit_code=0)
    if status.reason == "DeadlineExceeded":
        return PodStatus(State.OVERDUE, status.message or "")
    disruption = _condition(pod, "DisruptionTarget")
    if status.phase == "Failed" and (status.reason or disruption is not None):
        why = status.message or (disruption and disruption.message) or ""
        reason = status.reason or (disruption and disruption.reason)
        return PodStatus(State.INTERRUPTED, f"{reason}: {why}".rstrip(": "))
    if terminated is None:
        return PodStatus(State.INTERRUPTED, "it failed before its container ran") if status.phase == "Failed" else None
    code, message = terminated.exit_code, terminated.message
    if terminated.reason == "OOMKilled":
        return PodStatus(State.OUT_OF_MEMORY, last_words(message), code)
    if pod.metadata.deletion_timestamp is not None:
        return PodStatus(State.INTERRUPTED, "it was deleted while it ran", code)
    if terminated.reason in _NEVER_STARTED:
        return PodStatus(State.BROKEN, f"{terminated.reason}: {message or 'its command cannot be run'}", code)
    if code in _KILLED:
        return PodStatus(State.INTERRUPTED, f"its container was killed ({_KILLED[code]})", code)
    return PodStatus(State.FAILED, last_words(message), code)


def _of_container(pod: k8s.V1Pod, state: str) -> Any:
    statuses = pod.status.container_statuses or ()
    return next((getattr(s.state, state) for s in statuses if s.name == CONTAINER and s.state is not None), None)


def _condition(pod: k8s.V1Pod, kind: str) -> Any:
    return next((c for c in pod.status.conditions or () if c.type == kind), None)
