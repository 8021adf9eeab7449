"""A namespace of these tests' own, on the cluster that ``KUBECONFIG`` names.

Nothing outside that namespace is touched, and it goes when the session ends; what a killed
session left is removed by the next one. Tests that hand files to pods by a folder of this
machine need a node that has the same folders: ``Cluster.can_run`` finds out.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from kubernetes.client import ApiClient, CoreV1Api, V1DeleteOptions, V1Pod
from kubernetes.client.exceptions import ApiException

from kubernetes import config

GPU = "nvidia.com/gpu"
SERVICE_ACCOUNT = "windsock-step"
UID = 10001
"""User and group of the pods."""
_MARK = "windsock.io/tests"
_OWNER = "windsock.io/owner"
_GONE_SECONDS = 60.0


@dataclass
class Cluster:
    """The session's namespace and the client that speaks to it."""

    core: CoreV1Api
    namespace: str
    address: str = ""
    """By which pods reach this machine, as ``can_run`` found out."""

    # --- pods

    def pods(self, selector: str = "") -> list[V1Pod]:
        """Return the namespace's pods."""
        return list(self.core.list_namespaced_pod(self.namespace, label_selector=selector).items)

    def pod(self, name: str) -> V1Pod | None:
        """Return a pod, or None if there is none of this name."""
        try:
            return self.core.read_namespaced_pod(name, self.namespace)
        except ApiException as err:
            if err.status == 404:
                return None
            raise

    def log(self, name: str) -> str:
        """Return what a pod has written so far; nothing while the cluster takes it for not started."""
        try:
            # The client would make "b'...'" of it.
            answer = self.core.read_namespaced_pod_log(name, self.namespace, _preload_content=False)
            return str(answer.data.decode(errors="replace"))
        except ApiException as err:
            if err.status == 400:
                return ""
            raise

    def delete_pod(self, name: str, grace_seconds: int | None = None) -> None:
        """Delete a pod; grace 0 is the end of it at once."""
        with contextlib.suppress(ApiException):
            options = V1DeleteOptions(grace_period_seconds=grace_seconds)
            self.core.delete_namespaced_pod(name, self.namespace, body=options)

    def processes_of(self, pod: str) -> list[psutil.Process]:
        """Return the processes in a pod whose node is this machine, its first one first; only root may look."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("HOSTNAME") == pod and process.uids().real == UID:
                    found.append(process)
        return sorted(found, key=lambda p: p.create_time())

    # --- what the session needs

    def secret(self, name: str, **values: str) -> None:
        """Make a Secret."""
        body = {"metadata": {"name": name}, "type": "Opaque", "stringData": values}
        self.core.create_namespaced_secret(self.namespace, body)

    def gpus(self) -> int:
        """Return how many GPUs the nodes advertise, in all."""
        return sum(int(node.status.allocatable.get(GPU, 0)) for node in self.core.list_node().items)

    def can_run(self, image: str, *, pull: str = "Never") -> bool:
        """Say whether a node has an image; skip the tests if it has not this machine's folders."""
        name = f"probe-{secrets.token_hex(3)}"
        with tempfile.TemporaryDirectory(prefix="windsock-") as folder:
            Path(folder).chmod(0o777)
            self.core.create_namespaced_pod(self.namespace, _probe_pod(name, image, pull, folder))
            try:
                pod = wait_for(lambda: _settled(self.pod(name)), 120, f"pod {name} to end or to be refused")
                if _waiting(pod) is not None:
                    return False
                if not Path(folder, "answer").exists():
                    pytest.skip("the cluster's nodes do not have this machine's folders (hostPath)")
                self.address = _address_towards(pod.status.pod_ip)
                return True
            finally:
                self.delete_pod(name, grace_seconds=0)

    # --- beginning and end

    def close(self) -> None:
        """Remove the namespace; returns once no pod of it is left, so that folders may be removed."""
        with contextlib.suppress(ApiException):
            self.core.delete_collection_namespaced_pod(
                self.namespace, body=V1DeleteOptions(grace_period_seconds=0), grace_period_seconds=0
            )
        with contextlib.suppress(ApiException):
            self.core.delete_namespace(self.namespace)
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not self.pods(), _GONE_SECONDS, f"the pods of {self.namespace} to go")


def open_cluster() -> Cluster:
    """Make this session's namespace; skip the tests where there is no cluster."""
    path = os.environ.get("KUBECONFIG")
    if not path:
        pytest.skip("no cluster: KUBECONFIG names none (`make test-kubernetes` starts one where it can)")
    try:
        config.load_kube_config(path)
        core = CoreV1Api(ApiClient())
        core.list_namespace(limit=1, _request_timeout=10)
    except Exception as err:
        pytest.skip(f"the cluster that KUBECONFIG names does not answer: {type(err).__name__}")
    sweep_dead(core)
    cluster = Cluster(core, f"windsock-test-{secrets.token_hex(4)}")
    labels, annotations = marks()
    core.create_namespace({"metadata": {"name": cluster.namespace, "labels": labels, "annotations": annotations}})
    account = {"metadata": {"name": SERVICE_ACCOUNT}, "automountServiceAccountToken": False}
    core.create_namespaced_service_account(cluster.namespace, account)
    return cluster


def wait_for(look: Callable[[], Any], seconds: float, what: str, pause: float = 0.2) -> Any:
    """Return what ``look`` finds as soon as it finds something; fail with ``what`` if it does not."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain for {what}"
        time.sleep(pause)
    return found


@contextlib.contextmanager
def group_writable(folder: Path) -> Iterator[None]:
    """Let pods and this process write the same new folder: one group for both, also for what is made below.

    A PersistentVolumeClaim gets this from ``fsGroup``; a folder of the node does not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        os.chown(folder, -1, UID)
    folder.chmod(0o2775)
    before = os.umask(0o002)
    try:
        yield
    finally:
        os.umask(before)


def _probe_pod(name: str, image: str, pull: str, folder: str) -> dict[str, Any]:
    container = {
        "name": "probe",
        "image": image,
        "imagePullPolicy": pull,
        "command": ["python3", "-c", "open('/probe/answer', 'w').close()"],
        "volumeMounts": [{"name": "probe", "mountPath": "/probe"}],
        "resources": {"limits": {"cpu": "1", "memory": "128Mi"}, "requests": {"cpu": "10m", "memory": "32Mi"}},
    }
    spec = {
        "containers": [container],
        "restartPolicy": "Never",
        "serviceAccountName": SERVICE_ACCOUNT,
        "automountServiceAccountToken": False,
        "securityContext": {"runAsUser": UID, "runAsGroup": UID, "runAsNonRoot": True},
        "volumes": [{"name": "probe", "hostPath": {"path": folder, "type": "DirectoryOrCreate"}}],
    }
    return {"metadata": {"name": name}, "spec": spec}


def _settled(pod: V1Pod | None) -> V1Pod | None:
    if pod is None or pod.status.phase in ("Succeeded", "Failed"):
        return pod
    waiting = _waiting(pod)
    return pod if waiting is not None and waiting != "ContainerCreating" else None


def _waiting(pod: V1Pod) -> str | None:
    states = [s.state.waiting for s in pod.status.container_statuses or () if s.state is not None]
    return next((waiting.reason for waiting in states if waiting is not None), None)


def _address_towards(pod_ip: str) -> str:
    """Return this machine's address on the pods' network: nobody else can reach what listens there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((pod_ip, 9))  # sends nothing; only asks for the route
        return str(probe.getsockname()[0])


def marks() -> tuple[dict[str, str], dict[str, str]]:
    """Return the labels and annotations of a namespace of this session's."""
    return {_MARK: "true", "app.kubernetes.io/part-of": "windsock"}, {_OWNER: f"{_boot()} {os.getpid()}"}


def sweep_dead(core: CoreV1Api) -> None:
    """Remove namespaces whose session was killed on this machine."""
    for namespace in core.list_namespace(label_selector=_MARK).items:
        boot, _, pid = (namespace.metadata.annotations or {}).get(_OWNER, "").partition(" ")
        if boot == _boot() and pid.isdigit() and not psutil.pid_exists(int(pid)):
            Cluster(core, namespace.metadata.name).close()


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
