"""`assemble` and `monitor` in pods of the site's step image, pods that run too long, and failed pods that are kept."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from pod_world import python_image, until
from step_world import CHAMPION, ENDS, LAST, MISSING, TRAINERS, StepWorld, put_settled_day, step_world

from training_world import AS_OF
from windsock.ledger import Ledger
from windsock.settings import Settings
from windsock.steps import run_step
from windsock_airflow.pods.identity import KEPT_LABEL

TRAINED_AS_OF = AS_OF + timedelta(days=1)
LIVE, REPLAYED = LAST, LAST - timedelta(days=1)


@pytest.fixture(scope="module")
def world(cluster: Cluster) -> Iterator[StepWorld]:
    image = python_image(cluster)
    if image is None:
        pytest.skip("no node has an image with python3; name one in WINDSOCK_TEST_PYTHON_IMAGE")
    with step_world(cluster, image) as running:
        yield running


@pytest.fixture(scope="module")
def runs(world: StepWorld) -> dict[str, str]:
    """All of them at once: they take less time together than one by one."""
    api = world.stack.api
    for dag in ("fraud_train", "fraud_monitor", *(f"{ENDS}_{name}" for name in TRAINERS)):
        api.wait_for_dag(dag, 120)
    api.set_paused("fraud_monitor", False)
    return {
        "train": api.trigger("fraud_train", conf={"as_of": str(TRAINED_AS_OF)}),
        "live": api.trigger("fraud_monitor", str(LIVE)),
        "replayed": api.trigger("fraud_monitor", str(REPLAYED), {"live": False}),
        **{name: api.trigger(f"{ENDS}_{name}") for name in TRAINERS},
    }


@pytest.fixture
def local(world: StepWorld, tmp_path: Path) -> Settings:
    """The same days, untouched by any pod, where steps run in this process."""
    shutil.copytree(world.days, tmp_path, dirs_exist_ok=True)
    return Settings.from_env({"WINDSOCK_HOME": str(tmp_path), "WINDSOCK_MODELS": str(tmp_path / "models")})


def assembled(world: StepWorld, run: str) -> dict[str, Any]:
    """The task ``assemble``."""
    (task,) = (t for t in world.stack.api.task_instances("fraud_train", run) if t["task_id"] == "assemble")
    return task


def test_assemble_waits_in_a_pod_for_missing_days_and_later_tasks_go_on_with_its_run(
    world: StepWorld, runs: dict[str, str], local: Settings
):
    run = runs["train"]
    until(lambda: assembled(world, run)["state"] == "up_for_reschedule", 120, "assemble does not wait")
    log = world.fraud.log("train", run, "assemble")
    assert f"Not ready: fraud: ingest of 1 of 8 needed days is still missing: {MISSING}." in log
    put_settled_day(world.stack.settings, world.spec, MISSING)
    world.fraud.finish("train", run, 180)
    log, task = world.fraud.log("train", run, "assemble"), assembled(world, run)
    assert (task["operator"], task["try_number"]) == ("PodStepOperator", 1), log
    assert "[base]" in log
    result = world.fraud.result("train", run, "assemble")
    assert world.stack.api.xcom("fraud_train", run, "assemble", "run") == result["run"]
    assert {world.fraud.result("train", run, task)["run"] for task in ("fit", "choose", "register")} == {result["run"]}
    assert world.left("fraud_train") == [], "a step that is not ready has not failed: its pod is not kept"

    put_settled_day(local, world.spec, MISSING)
    here = run_step("assemble", model="fraud", origin=run, options={"as_of": str(TRAINED_AS_OF)}, settings=local)
    assert {**here, "seconds": 0} == {**result, "seconds": 0}
    for name in ("train.parquet", "holdout.parquet", "request.json", "candidates/lightgbm/request.json"):
        place = Path("store", "runs", "fraud", result["run"], name)
        assert (world.stack.home / place).read_bytes() == (local.home / place).read_bytes(), name


@pytest.mark.parametrize(("name", "day"), [("live", LIVE), ("replayed", REPLAYED)])
def test_monitor_in_a_pod_reports_on_its_day_what_it_reports_here(
    world: StepWorld, runs: dict[str, str], local: Settings, name: str, day: Any
):
    world.fraud.finish("monitor", runs[name], 180)
    log = world.fraud.log("monitor", runs[name], "monitor")
    assert f"fraud monitor {day}: started ({name})" in log
    assert "[base]" in log
    assert world.fraud.result("monitor", runs[name], "govern")
    assert world.left("fraud_monitor") == []
    result = world.fraud.result("monitor", runs[name], "monitor")
    here = run_step("monitor", model="fraud", key=str(day), settings=local)
    assert {**here, "seconds": 0} == {**result, "seconds": 0}
    assert result["champion"] == CHAMPION
    there, mine = (Ledger.of(s, "fraud", "monitor").get(day) for s in (world.stack.settings, local))
    assert there is not None
    assert mine is not None
    assert (there.content_hash, there.detail, there.inputs) == (mine.content_hash, mine.detail, mine.inputs)
    report = Path("store", "reports", "fraud", str(day), "drift.json")
    assert (world.stack.home / report).read_bytes() == (local.home / report).read_bytes()


@pytest.mark.parametrize("name", ["timed", "deferred"])
def test_a_pod_over_its_execution_timeout_is_ended_and_the_next_try_goes_on_from_its_checkpoint(
    world: StepWorld, runs: dict[str, str], name: str
):
    task, first, second = (world.end(name, runs[name]), *(world.log(name, runs[name], n) for n in (1, 2)))
    assert (task["run"], task["try_number"]) == ("success", 2), first + second
    assert "execution_timeout" in first
    assert "was lost" not in second, "it was not lost: its task had ended it"
    (begins, one), (ends, still_one), (begins_again, two) = world.notes(name)
    assert (begins, ends, begins_again) == ("begins", "ends", "begins"), "there is never a second pod beside the first"
    assert one == still_one
    assert (one.rsplit("-", 1), two.rsplit("-", 1)[1]) == ([two.rsplit("-", 1)[0], "0"], "1")
    assert world.left(f"{ENDS}_{name}") == [], "its task ends it, before the pod's own deadline does"


def test_a_failed_pod_is_kept_to_be_looked_at_and_the_next_try_makes_another(world: StepWorld, runs: dict[str, str]):
    task = world.end("fails", runs["fails"])
    assert (task["run"], task["try_number"]) == ("success", 2), world.log("fails", runs["fails"], 1)
    (_, one), (_, two) = world.notes("fails")
    assert one != two
    (kept,) = world.left(f"{ENDS}_fails")
    assert (kept.metadata.name, kept.status.phase, kept.metadata.labels[KEPT_LABEL]) == (one, "Failed", "true")
    assert "what somebody wants to read later" in world.cluster.log(one)
    assert kept.status.container_statuses[0].state.terminated.message == "OSError: a disk was away"
