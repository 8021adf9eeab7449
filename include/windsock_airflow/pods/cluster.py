"""The few things a step asks of Kubernetes, with its refusals told apart.

========================================  ===========================
the API answers                           here
========================================  ===========================
403 'exceeded quota'                      ``QuotaExceeded``: wait
400, 403, 404, 413, 422 to a new pod      ``PodRefused``: fail for good
409 'AlreadyExists'                       the pod that is there
429, 5xx, no answer                       a few retries, then the error
========================================  ===========================
"""

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from airflow.providers.cncf.kubernetes.kubernetes_helper_functions import generic_api_retry
from kubernetes.client import CoreV1Api, V1DeleteOptions, V1Pod, V1Preconditions
from kubernetes.client.exceptions import ApiException
from kubernetes.utils.quantity import parse_quantity

from windsock_airflow.pods.identity import KEPT_LABEL, TASK_LABEL
from windsock_airflow.pods.manifest import CONTAINER

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])

retried: Callable[[F], F] = generic_api_retry
"""Airflow's own retries of calls to the API: on 409, 429, 5xx and lost connections."""

_REFUSALS = frozenset({400, 403, 404, 413, 422})
_QUOTA = re.compile(r"exceeded quota: (?P<quota>[^,]+), requested: (?P<asked>.*?), used: .*?, limited: (?P<most>.*)")


class QuotaExceeded(Exception):
    """The namespace has no room for the pod now."""


class PodRefused(Exception):
    """The cluster will never take this pod as it is."""


def message_of(err: ApiException) -> str:
    """Return the API's own sentence."""
    try:
        return str(json.loads(err.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(err.reason or err)


def create_pod(client: CoreV1Api, pod: V1Pod) -> V1Pod:
    """Make a pod, or return the one of this name that exists.

    Raises:
        QuotaExceeded: There is no room now.
        PodRefused: There will never be.
        ApiException: The cluster does not answer.
    """
    try:
        return _create(client, pod)
    except ApiException as err:
        sentence = message_of(err)
        if err.status == 403 and "exceeded quota" in sentence:
            if more := _more_than_whole_quota(sentence):
                raise PodRefused(more) from err
            raise QuotaExceeded(sentence) from err
        if err.status in _REFUSALS:
            raise PodRefused(sentence) from err
        raise


@retried
def pods_of(client: CoreV1Api, namespace: str, digest: str) -> list[V1Pod]:
    """Return every pod of one task instance that was not kept to be looked at, the newest first."""
    selector = f"{TASK_LABEL}={digest},!{KEPT_LABEL}"
    found = client.list_namespaced_pod(namespace=namespace, label_selector=selector).items
    return sorted(found, key=lambda pod: pod.metadata.creation_timestamp, reverse=True)


@retried
def read_pod(client: CoreV1Api, name: str, namespace: str) -> V1Pod | None:
    """Return a pod as it is now; None if there is none."""
    with _tolerating(404):
        return client.read_namespaced_pod(name=name, namespace=namespace)
    return None


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


def log_lines(client: CoreV1Api, pod: V1Pod) -> Iterator[str]:
    """Yield the lines that a pod's container has written so far."""
    raw = client.read_namespaced_pod_log(
        name=pod.metadata.name, namespace=pod.metadata.namespace, container=CONTAINER, _preload_content=False
    )
    for line in raw:
        if text := line.decode("utf-8", errors="backslashreplace").rstrip():
            yield text


def last_warning(client: CoreV1Api, pod: V1Pod) -> str:
    """Return the newest warning among a pod's events, or nothing; events are a help, not a need."""
    try:
        events = client.list_namespaced_event(
            namespace=pod.metadata.namespace, field_selector=f"involvedObject.uid={pod.metadata.uid},type=Warning"
        ).items
    except Exception as err:
        log.debug("Events of pod %s could not be read: %s", pod.metadata.name, err)
        return ""
    return f"{events[-1].reason}: {events[-1].message}" if events else ""


@retried
def _create(client: CoreV1Api, pod: V1Pod) -> V1Pod:
    try:
        return client.create_namespaced_pod(namespace=pod.metadata.namespace, body=pod)
    except ApiException as err:
        if err.status == 409:
            # Not worth a retry: the name stands for this very pod (see ``identity``).
            found = read_pod(client, pod.metadata.name, pod.metadata.namespace)
            if found is not None:
                return found
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
    found = _QUOTA.search(sentence)
    if found is None:
        return None
    most, asked = (
        {
            name: parse_quantity(amount)
            for name, _, amount in (pair.strip().partition("=") for pair in listed.split(","))
        }
        for listed in (found["most"], found["asked"])
    )
    for name, amount in asked.items():
        if name in most and amount > most[name]:
            return f"{sentence}. This is more {name} than the whole quota {found['quota']!r} allows: ask for less."
    return None
