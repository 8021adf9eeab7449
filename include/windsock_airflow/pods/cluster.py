"""What a step asks of Kubernetes, with its refusals told apart, and what has become of its pod.

==================  ====================================================================
a pod's state       the operator
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

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any, NamedTuple, TypeVar

from airflow.providers.cncf.kubernetes.kubernetes_helper_functions import generic_api_retry
from airflow.providers.cncf.kubernetes.utils.pod_manager import detect_pod_terminate_early_issues
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from kubernetes.client import CoreV1Api, V1DeleteOptions, V1Pod, V1Preconditions
from kubernetes.client.exceptions import ApiException
from kubernetes.utils.quantity import parse_quantity

from windsock_airflow.pods.identity import KEPT_LABEL, TASK_LABEL
from windsock_airflow.pods.manifest import CONTAINER

F = TypeVar("F", bound=Callable[..., Any])

retried: Callable[[F], F] = generic_api_retry
"""Airflow's own retries of calls to the API: on 409, 429, 5xx and lost connections."""

_REFUSALS = frozenset({400, 403, 404, 413, 422})
_QUOTA = re.compile(r"exceeded quota: (?P<quota>[^,]+), requested: (?P<asked>.*?), used: .*?, limited: (?P<most>.*)")
_AMOUNT = re.compile(r"([^=,\s]+)=([^=,\s]+)")
_KILLED = {137: "SIGKILL", 143: "SIGTERM"}
_CANNOT_START = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_NEVER_STARTED = frozenset({"StartError", "ContainerCannotRun"})
_MOST_LINES = 12


class QuotaExceeded(Exception):
    """The namespace has no room for the pod now."""


class State(Enum):
    """See the module's table."""

    QUEUED, STARTING, RUNNING, ENDING, DONE, BROKEN, FAILED, OUT_OF_MEMORY, INTERRUPTED, OVERDUE = range(10)


OVER = frozenset({State.DONE, State.FAILED, State.OUT_OF_MEMORY, State.INTERRUPTED, State.OVERDUE})
"""States in which nothing runs any more."""


class PodStatus(NamedTuple):
    """A pod's state, and what it or the cluster says of it."""

    state: State
    message: str = ""
    exit_code: int | None = None


def create_pod(client: CoreV1Api, pod: V1Pod) -> V1Pod:
    """Make a pod, or return the one of this name that exists.

    Raises:
        QuotaExceeded: There is no room now.
        AirflowFailException: The cluster will never take this pod as it is.
        AirflowException: The cluster does not answer.
    """
    try:
        return _create(client, pod)
    except ApiException as err:
        sentence = message_of(err)
        if err.status == 403 and "exceeded quota" in sentence:
            too_much = _more_than_whole_quota(sentence)
            if too_much is None:
                raise QuotaExceeded(sentence) from err
            sentence = too_much
        if err.status in _REFUSALS:
            raise AirflowFailException(f"The cluster refuses pod {pod.metadata.name}: {sentence}") from err
        raise AirflowException(f"The cluster did not take pod {pod.metadata.name}: {sentence}") from err


@retried
def pods_of(client: CoreV1Api, namespace: str, digest: str) -> list[V1Pod]:
    """Return every pod of one task instance that was not kept to be looked at, the newest first."""
    selector = f"{TASK_LABEL}={digest},!{KEPT_LABEL}"
    found = client.list_namespaced_pod(namespace=namespace, label_selector=selector).items
    return sorted(found, key=lambda pod: pod.metadata.creation_timestamp, reverse=True)


@retried
def delete_pod(client: CoreV1Api, pod: V1Pod, *, grace_seconds: int | None = None) -> None:
    """Delete this very pod, not another one of its name (409); nothing happens if it is gone."""
    options = V1DeleteOptions(preconditions=V1Preconditions(uid=pod.metadata.uid), grace_period_seconds=grace_seconds)
    with _tolerating(404, 409):
        client.delete_namespaced_pod(pod.metadata.name, pod.metadata.namespace, body=options)


@retried
def keep_pod(client: CoreV1Api, pod: V1Pod) -> None:
    """Keep a failed pod to be looked at, so that no task takes it for its own."""
    with _tolerating(404):
        body = {"metadata": {"labels": {KEPT_LABEL: "true"}}}
        client.patch_namespaced_pod(pod.metadata.name, pod.metadata.namespace, body)


def message_of(err: ApiException) -> str:
    """Return the API's own sentence."""
    try:
        return str(json.loads(err.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(err.reason or err)


def status_of(pod: V1Pod) -> PodStatus:
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


def has_ended(pod: V1Pod) -> bool:
    """Say whether nothing runs in a pod and nothing will."""
    return pod.status.phase in {"Succeeded", "Failed"} or _of_container(pod, "terminated") is not None


def last_words(message: str | None) -> str:
    """Return the sentence in a termination message: of a log's end, left by a container without one, the last line."""
    lines = [line.rstrip() for line in (message or "").strip().splitlines() if line.strip()]
    if len(lines) > _MOST_LINES or any(line.startswith("Traceback (most recent call last)") for line in lines):
        return lines[-1].strip()
    return "\n".join(lines)


def _ended(pod: V1Pod) -> PodStatus | None:
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


def _of_container(pod: V1Pod, state: str) -> Any:
    statuses = pod.status.container_statuses or ()
    return next((getattr(s.state, state) for s in statuses if s.name == CONTAINER and s.state is not None), None)


def _condition(pod: V1Pod, kind: str) -> Any:
    return next((c for c in pod.status.conditions or () if c.type == kind), None)


@retried
def _create(client: CoreV1Api, pod: V1Pod) -> V1Pod:
    try:
        return client.create_namespaced_pod(namespace=pod.metadata.namespace, body=pod)
    except ApiException as err:
        if err.status == 409:
            # Not worth a retry: the name stands for this very pod (see ``identity``), unless it has just gone.
            with _tolerating(404):
                return client.read_namespaced_pod(name=pod.metadata.name, namespace=pod.metadata.namespace)
        raise


@contextmanager
def _tolerating(*statuses: int) -> Iterator[None]:
    try:
        yield
    except ApiException as err:
        if err.status not in statuses:
            raise


def _more_than_whole_quota(sentence: str) -> str | None:
    """Say so if what is asked for is more than the whole quota."""
    if (found := _QUOTA.search(sentence)) is None:
        return None
    most, asked = (dict(_AMOUNT.findall(found[listed])) for listed in ("most", "asked"))
    for name, amount in asked.items():
        if name in most and parse_quantity(amount) > parse_quantity(most[name]):
            return f"{sentence}. This is more {name} than the whole quota {found['quota']!r} allows: ask for less."
    return None
