"""Every pod of a namespace as the API showed it while a test ran, those that are gone since included."""

from __future__ import annotations

import json
import threading
from datetime import datetime
from typing import Any, Self

from cluster import Cluster
from kubernetes.client import ApiClient, V1Pod
from kubernetes.client.exceptions import ApiException

from kubernetes import watch

_TURN_SECONDS = 3


class PodWatch:
    """Keeps the states of a namespace's pods, by name and in order.

    with PodWatch(cluster) as seen:
        ...
    assert seen.last("fraud-fit-torch-...").status.phase == "Succeeded"
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._states: dict[str, list[V1Pod]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="pod-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5 * _TURN_SECONDS)

    def names(self, step: str = "", **labels: str) -> list[str]:
        """Return the names of the pods so far with a value of the label ``windsock.io/step``, in order of creation."""
        wanted = {f"windsock.io/{name}": value for name, value in {"step": step, **labels}.items() if value}
        found = [
            (states[0].metadata.creation_timestamp, name)
            for name, states in list(self._states.items())
            if wanted.items() <= (states[0].metadata.labels or {}).items()
        ]
        return [name for _, name in sorted(found)]

    def states(self, name: str) -> list[V1Pod]:
        """Return every state of a pod."""
        return list(self._states[name])

    def last(self, name: str) -> V1Pod:
        """Return a pod as it was last seen."""
        return self._states[name][-1]

    def ran(self, name: str) -> tuple[datetime, datetime]:
        """Return when a pod's container began and ended."""
        for pod in reversed(self._states[name]):
            for status in pod.status.container_statuses or ():
                if status.state is not None and status.state.terminated is not None:
                    return status.state.terminated.started_at, status.state.terminated.finished_at
        raise AssertionError(f"pod {name} was never seen to end")

    def text(self) -> str:
        """Return all that was seen as text, to look for what must not stand there."""
        plain = ApiClient().sanitize_for_serialization
        return json.dumps({name: [plain(pod) for pod in states] for name, states in list(self._states.items())})

    def _follow(self) -> None:
        core, namespace = self._cluster.core, self._cluster.namespace
        version: Any = None
        while not self._stop.is_set():
            stream = watch.Watch()
            try:
                for event in stream.stream(
                    core.list_namespaced_pod, namespace, timeout_seconds=_TURN_SECONDS, resource_version=version
                ):
                    pod = event["object"]
                    version = pod.metadata.resource_version
                    if not pod.metadata.name.startswith("probe-"):
                        self._states.setdefault(pod.metadata.name, []).append(pod)
            except ApiException:
                version = None  # too old: begin with what is there now
