"""A trainer of the user's own, in an image that holds Python and one file, keeps the contract in restricted pods."""

import contextlib
import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from cluster import UID, Cluster, group_writable, wait_for
from kubernetes.client import V1Pod
from kubernetes.client.exceptions import ApiException

from windsock.compute import SiteCompute, needs_of
from windsock.runs.contract import REQUEST_VARIABLE
from windsock.served.model import load
from windsock.settings import REPO_ROOT
from windsock.trainer_kit.practice import practice_rows, practice_run, practice_spec
from windsock.trainer_kit.trainer_trial import Ended, ProgramRunner, try_trainer
from windsock_airflow.pods.manifest import pod_manifest

EXAMPLE = REPO_ROOT / "docker" / "examples" / "trainer"
VARIABLE = "WINDSOCK_EXAMPLE_TRAINER_IMAGE"
"""Names an image built from docker/examples/trainer, for clusters that nothing can be loaded into from here."""
ROWS = 150_000
"""So many that it is long not done after its first checkpoint: a cluster needs seconds to pass a signal on."""
ESTIMATOR = {
    "kind": "custom",
    "name": "mine",
    "data": "csv",
    "params": {"rows": ROWS},
    "compute": {"image": "windsock/example-trainer"},
}
_MOUNT = "/windsock"


@pytest.fixture(scope="module")
def image(cluster: Cluster) -> str:
    """The image built from docker/examples/trainer, on the node."""
    if given := os.environ.get(VARIABLE):
        assert cluster.can_run(given, pull="IfNotPresent"), f"the cluster cannot run {given}, which {VARIABLE} names"
        return given
    content = b"".join((EXAMPLE / name).read_bytes() for name in ("Dockerfile", "trainer.py"))
    name = f"windsock/example-trainer:test-{hashlib.sha256(content).hexdigest()[:12]}"
    if not cluster.can_run(name):
        _build(name, Path(os.environ["KUBECONFIG"]).parent)
        assert cluster.can_run(name), f"{name} was built, but the cluster cannot run it"
    return name


def _build(name: str, lab: Path) -> None:
    """Build with Debian's buildah from the base that such a cluster keeps beside its kubeconfig, and load the image."""
    base = lab / "images" / "debian-python.tar"
    if shutil.which("buildah") is None or not base.exists():
        pytest.skip(f"no buildah, or no base image beside KUBECONFIG; {VARIABLE} can name an image that is built")

    def run(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.strip()

    base_id = run("buildah", "pull", "--quiet", f"docker-archive:{base}")
    run("buildah", "bud", "--isolation", "chroot", "--pull-never", "--build-arg", f"BASE={base_id}", "-t", name,
        str(EXAMPLE))  # fmt: skip
    with contextlib.closing(_Archive()) as archive:
        run("buildah", "push", "--quiet", name, f"docker-archive:{archive.path}:{name}")
        run("bash", "-c", f". {lab}/env.sh && ctr -n k8s.io images import {archive.path}")


class _Archive:
    """A file name that goes with its file."""

    def __init__(self) -> None:
        self.path = Path("/tmp") / f"windsock-example-{secrets.token_hex(4)}.tar"

    def close(self) -> None:
        self.path.unlink(missing_ok=True)


@dataclass
class PodRunner:
    """Starts the trainer in a restricted pod as Airflow's operator makes it, with the run's folder as its volume."""

    cluster: Cluster
    image: str
    logs: list[str] = field(default_factory=list)

    def start(self, request: Path) -> "RunningPod":
        name = f"trainer-{secrets.token_hex(4)}"
        self.cluster.core.create_namespaced_pod(self.cluster.namespace, self._pod(name, request))
        wait_for(lambda: self.cluster.pod(name).status.phase != "Pending", 60, f"pod {name} to start")
        return RunningPod(self, name, time.monotonic())

    def _pod(self, name: str, request: Path) -> V1Pod:
        """Return the pod that Airflow's operator would start for this estimator."""
        run = request.parents[2]
        site = SiteCompute(
            namespace=self.cluster.namespace,
            image_pull_policy="Never" if VARIABLE not in os.environ else "IfNotPresent",
            memory="512Mi",
            cpu=0.1,
            volumes=({"name": "run", "mount": _MOUNT, "host_path": str(run)},),
        )
        spec = practice_spec("binary", {**ESTIMATOR, "compute": {"image": self.image}})
        needs = needs_of(spec, spec.training.estimators[0], site)
        env = {REQUEST_VARIABLE: f"{_MOUNT}/{request.relative_to(run)}"}
        return pod_manifest(needs, name=name, labels={}, annotations={}, env=env)


@dataclass
class RunningPod:
    """One pod; when it was deleted, its absence is its end."""

    runner: PodRunner
    name: str
    started: float
    deleted_by: int | None = None

    def wait(self, seconds: float) -> Ended | None:
        deadline = time.monotonic() + seconds
        while True:
            pod = self.runner.cluster.pod(self.name)
            if pod is None:
                return Ended(128 + self.deleted_by, "", time.monotonic() - self.started)
            if self.deleted_by is None and pod.status.phase in ("Succeeded", "Failed"):
                return self._ended(pod)
            if time.monotonic() > deadline:
                return None
            time.sleep(0.1)

    def send(self, signal_number: int) -> None:
        """Delete the pod: at once for SIGKILL, else with twice the grace that a trainer may use up."""
        self.deleted_by = int(signal_number)
        self.runner.cluster.delete_pod(self.name, 0 if signal_number == signal.SIGKILL else 60)

    def _ended(self, pod) -> Ended:
        cluster = self.runner.cluster
        with contextlib.suppress(ApiException):
            self.runner.logs.append(cluster.core.read_namespaced_pod_log(self.name, cluster.namespace))
        state = pod.status.container_statuses[0].state.terminated
        cluster.delete_pod(self.name, 0)
        return Ended(state.exit_code, state.message or "", time.monotonic() - self.started)


def test_a_trainer_with_only_its_own_code_and_python_keeps_the_contract_in_pods(cluster, image, tmp_path):
    runner = PodRunner(cluster, image)
    with group_writable(tmp_path / "store"):
        request = Path(practice_run(str(tmp_path / "store"), ESTIMATOR, rows=ROWS))
        findings = {f.clause: f for f in try_trainer(runner, request, seconds=240)}

    assert [f for f in findings.values() if f.kept is not True] == []
    for name in ("killed", "stopped"):
        assert "with the same model" in findings[name].message
    assert sum("goes on from its checkpoint" in log for log in runner.logs) == 2
    # In a pod, what was said is the termination message: the sentence that Airflow shows.
    assert "the request is 'windsock-trainer/999'" in findings["refuses-request"].message
    assert "is not the file that the request names" in findings["refuses-rows"].message
    assert (request.parent / "metrics.json").stat().st_uid == UID


def test_the_pods_model_is_that_of_a_local_child(cluster, image, tmp_path):
    local = Path(practice_run(str(tmp_path / "local"), {**ESTIMATOR, "command": ["x"]}, rows=2000))
    child = ProgramRunner((sys.executable, "-I", "-S", str(EXAMPLE / "trainer.py")), {}).start(local).wait(60)
    with group_writable(tmp_path / "store"):
        request = Path(practice_run(str(tmp_path / "store"), {**ESTIMATOR, "command": ["x"]}, rows=2000))
        pod = PodRunner(cluster, image).start(request).wait(120)

    assert (child.code, pod.code) == (0, 0)
    rows = practice_rows("binary", 500, seed=8)
    scores = [load(r.parent / "model").predict(rows) for r in (local, request)]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-9)
