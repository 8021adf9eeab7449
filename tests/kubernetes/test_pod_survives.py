"""Whatever happens to the pod or to the process that watches it: the work goes on, in one pod at a time."""

from __future__ import annotations

import os
import signal

import psutil
from pod_world import World, until

from windsock_local.stack.home import read_stack
from windsock_local.stack.parts import SCHEDULER


def go(pods: World, name: str) -> None:
    """Let a slow trainer end well."""
    (pods.folder(name) / "go").touch()


def task_process(pods: World, run: str, name: str) -> psutil.Process:
    """The process that runs the task's code: the child of the executor's worker."""
    pid = until(lambda: pods.task(name, run)["pid"], 30, "the task has no process")
    return psutil.Process(pid)


def test_a_pod_that_was_deleted_is_replaced_within_the_same_try(pods: World):
    run = pods.start("removed")
    first = pods.running("removed")
    pods.cluster.delete_pod(first, grace_seconds=1)
    second = pods.running("removed", 2)
    go(pods, "removed")
    assert pods.end("removed", run) == "success"
    assert second != first
    assert pods.task("removed", run)["try_number"] == 1
    log = pods.log("removed", run)
    assert f"Pod {first} was lost" in log
    assert "goes on from the last checkpoint" in log
    assert pods.gone("removed")


def test_a_container_that_was_killed_is_replaced_too(pods: World):
    run = pods.start("killed")
    first = pods.running("killed")
    pods.cluster.processes_of(first)[0].kill()
    pods.running("killed", 2)
    go(pods, "killed")
    assert pods.end("killed", run) == "success"
    assert pods.task("killed", run)["try_number"] == 1
    assert "its container was killed (SIGKILL)" in pods.log("killed", run)


def test_after_the_worker_was_killed_the_next_try_finds_the_same_pod(pods: World):
    run = pods.start("watched")
    pods.running("watched")
    process = task_process(pods, run, "watched")
    uid = pods.pods("watched")[0].metadata.uid
    process.parent().kill()
    until(lambda: pods.task("watched", run)["try_number"] == 2, 90, "there was no second try")
    until(lambda: "Following pod" in pods.log("watched", run, 2), 60, "the second try follows no pod")
    assert [pod.metadata.uid for pod in pods.pods("watched")] == [uid]
    go(pods, "watched")
    assert pods.end("watched", run) == "success"
    assert len(pods.starts("watched")) == 1
    assert pods.gone("watched")


def test_a_pod_that_ended_while_nobody_watched_counts(pods: World):
    run = pods.start("unwatched")
    pods.running("unwatched")
    process = task_process(pods, run, "unwatched")
    worker = process.parent()
    process.suspend()  # it must not see the end
    worker.kill()
    process.kill()
    go(pods, "unwatched")
    assert pods.end("unwatched", run) == "success"
    assert pods.task("unwatched", run)["try_number"] == 2
    assert len(pods.starts("unwatched")) == 1
    assert pods.gone("unwatched")


def test_a_worker_that_is_told_to_end_leaves_the_pod_to_the_next_one(pods: World):
    run = pods.start("drained")
    pods.running("drained")
    uid = pods.pods("drained")[0].metadata.uid
    process = task_process(pods, run, "drained")
    os.kill(process.pid, signal.SIGTERM)
    until(lambda: process.pid != pods.task("drained", run)["pid"], 60, "no other process took over")
    assert [pod.metadata.uid for pod in pods.pods("drained")] == [uid]
    go(pods, "drained")
    assert pods.end("drained", run) == "success"
    assert len(pods.starts("drained")) == 1
    assert pods.task("drained", run)["try_number"] == 1
    assert "The pod goes on; the next one will find it." in pods.log("drained", run)


def test_after_the_scheduler_was_killed_the_same_pod_is_found(pods: World):
    run = pods.start("orphaned")
    pods.running("orphaned")
    uid = pods.pods("orphaned")[0].metadata.uid
    before = read_stack(pods.stack.settings).parts[SCHEDULER].pid
    psutil.Process(before).kill()
    until(lambda: pods.task("orphaned", run)["try_number"] == 2, 150, "there was no second try")
    assert [pod.metadata.uid for pod in pods.pods("orphaned")] == [uid]
    go(pods, "orphaned")
    assert pods.end("orphaned", run) == "success"
    assert len(pods.starts("orphaned")) == 1
