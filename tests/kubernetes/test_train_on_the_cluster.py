"""``fraud_train`` through a real scheduler, LightGBM and torch in pods with a GPU each: the same model as here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from cluster import GPU, SERVICE_ACCOUNT, UID, wait_for
from cluster_stack import ClusterStack
from kubernetes.client import V1Pod
from pod_watch import PodWatch

from windsock.runs.run_folder import CANDIDATE_TAG

STEPS = ("fit_lightgbm", "fit_torch")


@dataclass(frozen=True)
class Trained:
    """A training in pods, and the same one in a process here."""

    run_id: str
    """Of Airflow."""
    run: str
    """Name of the run folder."""
    seen: PodWatch
    here: str
    """Name of the run folder of the local backend."""


@pytest.fixture(scope="module")
def trained(cluster_stack: ClusterStack) -> Trained:
    if not cluster_stack.cluster.gpus():
        pytest.skip(f"no node advertises {GPU}")
    runs = cluster_stack.fraud
    with PodWatch(cluster_stack.cluster) as seen:
        run_id = cluster_stack.train(runs)
        here = cluster_stack.local_run  # meanwhile
        runs.finish("train", run_id, seconds=300)
    return Trained(run_id, runs.result("train", run_id, "assemble")["run"], seen, here)


def pods_of(trained: Trained) -> dict[str, V1Pod]:
    """Return each estimator's pod as it was last seen; there must have been one of each."""
    by_estimator = {}
    for name in trained.seen.names("fit"):
        pod = trained.seen.last(name)
        (variable,) = [e.value for e in pod.spec.containers[0].env if e.name == "WINDSOCK_REQUEST"]
        if f"/{trained.run}/" in variable:
            estimator = variable.split("/")[-2]
            assert estimator not in by_estimator, f"a second pod for {estimator}: {name}"
            by_estimator[estimator] = pod
    assert sorted(by_estimator) == ["lightgbm", "torch"]
    return by_estimator


def test_each_estimator_ran_in_one_pod_with_a_gpu_of_its_own(cluster_stack: ClusterStack, trained: Trained) -> None:
    pods = pods_of(trained)
    for pod in pods.values():
        (container,) = pod.spec.containers
        assert container.image == cluster_stack.site["trainer_image"]
        assert container.resources.limits[GPU] == "1"
        assert container.resources.requests[GPU] == "1"
    assert pods["torch"].spec.containers[0].resources.limits["memory"] == "1536Mi"
    if cluster_stack.cluster.gpus() == 1:
        first, second = sorted(trained.seen.ran(pod.metadata.name) for pod in pods.values())
        assert first[1] <= second[0], "two pods held the only GPU at once"


def test_pods_keep_the_restricted_standard(trained: Trained) -> None:
    for pod in pods_of(trained).values():
        spec, (container,) = pod.spec, pod.spec.containers
        own = container.security_context
        assert (own.read_only_root_filesystem, own.run_as_non_root, own.allow_privilege_escalation) == (
            True,
            True,
            False,
        )
        assert own.capabilities.drop == ["ALL"]
        assert not own.capabilities.add
        assert (spec.security_context.run_as_user, spec.security_context.run_as_non_root) == (UID, True)
        assert spec.security_context.seccomp_profile.type == "RuntimeDefault"
        assert spec.service_account_name == SERVICE_ACCOUNT
        assert spec.automount_service_account_token is False
        assert not any(m.mount_path.startswith("/var/run/secrets") for m in container.volume_mounts)
        assert not any((spec.host_network, spec.host_pid, spec.host_ipc))


def test_pods_carry_what_their_cost_is_booked_by(trained: Trained) -> None:
    for pod in pods_of(trained).values():
        labels = pod.metadata.labels
        assert labels["app.kubernetes.io/part-of"] == "windsock"
        assert labels["windsock.io/team"] == "risk-ml"
        assert labels["windsock.io/model"] == "fraud"
        assert labels["windsock.io/step"] == "fit"
        assert labels["windsock.io/cost-centre"] == "research"
        assert labels["windsock.io/run"]


def test_the_models_are_those_of_the_local_backend(cluster_stack: ClusterStack, trained: Trained) -> None:
    for estimator, file in {"lightgbm": "model.txt", "torch": "model.safetensors"}.items():
        there, here = (cluster_stack.candidate("fraud", run, estimator) for run in (trained.run, trained.here))
        reports = [json.loads((folder / "metrics.json").read_bytes()) for folder in (there, here)]
        for library in ("lightgbm", "numpy", "optuna", "torch"):
            assert reports[0]["trainer"][library] == reports[1]["trainer"][library] != "absent"
        for part in ("selection", "params", "rounds", "trial", "trials", "folds", "importance"):
            assert reports[0][part] == reports[1][part], f"{estimator}: {part}"
        for name in ("model.json", file):
            assert (there / "model" / name).read_bytes() == (here / "model" / name).read_bytes(), f"{estimator}/{name}"


def test_a_challenger_is_registered_with_the_metrics_of_the_local_backend(
    cluster_stack: ClusterStack, trained: Trained
) -> None:
    registered = cluster_stack.fraud.result("train", trained.run_id, "register")
    client = cluster_stack.mlflow_client()
    version = client.get_model_version_by_alias("fraud", "challenger")
    known = client.get_run(version.run_id).data
    there, here = (run_metrics(cluster_stack, run) for run in (trained.run, trained.here))

    assert version.version == registered["version"]
    assert version.tags["windsock.run"] == trained.run
    assert there["metrics"] == here["metrics"]
    assert there["metrics"]["average_precision"] > 0.5
    assert there["chosen"] == here["chosen"]
    assert {n: c["selection"] for n, c in there["candidates"].items()} == {
        n: c["selection"] for n, c in here["candidates"].items()
    }
    assert known.metrics["average_precision"] == there["metrics"]["average_precision"]
    assert known.params["estimator"] == there["chosen"]["estimator"]
    lineage = cluster_stack.store.read_json("runs", "fraud", trained.run, "lineage.json")
    assert lineage["origin"] == trained.run_id
    assert lineage["pins"]


def test_the_training_was_to_be_watched_in_mlflow(cluster_stack: ClusterStack, trained: Trained) -> None:
    client = cluster_stack.mlflow_client()
    experiment = client.get_experiment_by_name("fraud")
    filter_string = f"tags.`{CANDIDATE_TAG}` = '{trained.run}/torch'"
    (watched,) = client.search_runs([experiment.experiment_id], filter_string)
    assert any(name.startswith("loss.trial-0-fold-") for name in watched.data.metrics)
    registered = client.get_model_version_by_alias("fraud", "challenger")
    assert watched.data.tags["mlflow.parentRunId"] == registered.run_id


def test_the_pods_logs_are_the_tasks_logs(cluster_stack: ClusterStack, trained: Trained) -> None:
    for step, estimator in zip(STEPS, ("lightgbm", "torch"), strict=True):
        assert f"fraud: training {estimator} on" in cluster_stack.fraud.log("train", trained.run_id, step)


def test_nothing_of_the_pods_is_left(cluster_stack: ClusterStack, trained: Trained) -> None:
    wait_for(lambda: not cluster_stack.cluster.pods(), 60, "the last pods to go")
    for estimator in ("lightgbm", "torch"):
        folder = cluster_stack.candidate("fraud", trained.run, estimator)
        assert sorted(p.name for p in folder.iterdir()) == ["metrics.json", "model", "request.json"]
        assert not list(folder.rglob("*.tmp"))


def run_metrics(cluster_stack: ClusterStack, run: str) -> dict[str, Any]:
    return dict(cluster_stack.store.read_json("runs", "fraud", run, "metrics.json"))
