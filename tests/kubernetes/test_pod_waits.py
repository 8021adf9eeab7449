"""No room on the cluster: the task waits where everybody can see it, holds no slot, and gives up at its limit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pod_world import GPUS_OF_POOL, World, until


@pytest.fixture(scope="module")
def runs(pods: World) -> dict[str, str]:
    """Those that wait out their minute, side by side; seen to wait, each with its pod on the cluster."""
    started = {name: pods.start(name) for name in ("too_big", "no_gpu", "many_gpus")}
    for name in ("too_big", "no_gpu"):
        until(lambda name=name: waits(pods, name, started[name]), 60, "the task does not wait")
        (pod,) = pods.pods(name)
        assert pod.status.phase == "Pending"
    return started


def waits(pods: World, name: str, run: str) -> bool:
    return bool(pods.task(name, run)["state"] == "up_for_reschedule")


@contextmanager
def full_quota(pods: World) -> Iterator[None]:
    """Let the namespace take no further pod, and none of 500 GiB ever."""
    core, namespace = pods.cluster.core, pods.cluster.namespace
    hard = {"count/pods": "1", "requests.memory": "500Gi"}
    container = {"name": "base", "image": "windsock.invalid/x", "resources": {"requests": {"memory": "1Mi"}}}
    spec = {"nodeSelector": {"windsock.io/none": "x"}, "containers": [container]}
    core.create_namespaced_pod(namespace, {"metadata": {"name": "blocker"}, "spec": spec})
    core.create_namespaced_resource_quota(namespace, {"metadata": {"name": "full"}, "spec": {"hard": hard}})
    try:

        def counted() -> bool:
            used = core.read_namespaced_resource_quota("full", namespace).status.used
            return bool(used) and int(used["count/pods"]) >= 1

        until(counted, 30, "the quota counts no pods")
        yield
    finally:
        core.delete_namespaced_resource_quota("full", namespace)
        pods.cluster.delete_pod("blocker", grace_seconds=0)


def test_a_quota_that_is_used_up_is_waited_out(pods: World, runs: dict[str, str]):
    with full_quota(pods):
        run, never = pods.start("quota"), pods.start("over_quota")
        until(lambda: waits(pods, "quota", run), 60, "the task does not wait")
        assert pods.pods("quota") == []
        told = until(lambda: "exceeded quota: full" in (t := pods.log("quota", run)) and t, 20, "no word of the quota")
        assert "waits for the cluster" in told
        assert pods.end("over_quota", never) == "failed"
    assert pods.end("quota", run) == "success"
    assert pods.task("quota", run)["try_number"] == 1
    assert len(pods.starts("quota")) == 1
    assert pods.task("over_quota", never)["try_number"] == 1
    assert "more requests.memory than the whole quota 'full' allows" in pods.log("over_quota", never)


@pytest.mark.parametrize(
    ("name", "asked", "said"),
    [("too_big", "900 cpu", "Insufficient cpu"), ("no_gpu", "400 nvidia.com/gpu", "Insufficient nvidia.com/gpu")],
)
def test_without_a_node_it_waits_visibly_then_fails_at_the_limit_with_what_the_scheduler_says(
    pods: World, runs: dict[str, str], name: str, asked: str, said: str
):
    assert pods.end(name, runs[name], 180) == "failed"
    assert pods.task(name, runs[name])["try_number"] == 1
    log = pods.log(name, runs[name])
    waiting = [line for line in log.splitlines() if "waits for the cluster" in line]
    assert len(waiting) >= 2
    assert all(said in line for line in waiting)
    sentence = next(line for line in log.splitlines() if "had no place for its pod within 1 min" in line)
    assert asked in sentence
    assert said in sentence
    assert "compute.wait_minutes" in sentence
    assert pods.gone(name)


@contextmanager
def all_gpus_taken(pods: World) -> Iterator[None]:
    """Let somebody else hold every GPU."""
    gpus = pods.cluster.gpus()
    if not gpus:
        pytest.skip("no node of this cluster has a GPU")
    container = {
        "name": "base",
        "image": pods.image,
        "command": ["sleep", "600"],
        "resources": {"limits": {"nvidia.com/gpu": str(gpus), "cpu": "50m", "memory": "32Mi"}},
    }
    body = {"metadata": {"name": "somebody"}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 0}}
    pods.cluster.core.create_namespaced_pod(pods.cluster.namespace, body)
    try:
        yield
    finally:
        pods.cluster.delete_pod("somebody", grace_seconds=0)


def test_a_pod_that_waited_for_a_gpu_is_found_again_once_it_runs(pods: World):
    with all_gpus_taken(pods):
        until(lambda: pods.cluster.pod("somebody").spec.node_name, 90, "nobody holds the GPU")
        run = pods.start("gpu_freed")
        until(lambda: waits(pods, "gpu_freed", run), 60, "the task does not wait")
        (pod,) = pods.pods("gpu_freed")
    assert pods.end("gpu_freed", run, 180) == "success"
    assert pods.starts("gpu_freed") == [pod.metadata.name]
    assert pods.task("gpu_freed", run)["try_number"] == 1
    assert "Insufficient nvidia.com/gpu" in pods.log("gpu_freed", run)


def test_gpu_steps_go_through_the_pool_and_take_a_slot_for_each_gpu(pods: World, runs: dict[str, str]):
    pool = pods.stack.api.call("GET", "pools/windsock_gpu")
    assert (pool["slots"], pool["include_deferred"]) == (GPUS_OF_POOL, True)
    task = pods.task("no_gpu", runs["no_gpu"])
    assert (task["pool"], task["pool_slots"]) == ("windsock_gpu", 400)
    assert pods.task("too_big", runs["too_big"])["pool"] == "default_pool"


def test_a_step_that_asks_for_more_gpus_than_the_pool_has_fails_and_says_so(pods: World, runs: dict[str, str]):
    assert pods.end("many_gpus", runs["many_gpus"], 60) == "failed"
    log = pods.log("many_gpus", runs["many_gpus"])
    assert f"asks for 500 GPUs, but Airflow's pool 'windsock_gpu' has {GPUS_OF_POOL}" in log
    assert pods.task("many_gpus", runs["many_gpus"])["try_number"] == 1
    assert pods.pods("many_gpus") == []
