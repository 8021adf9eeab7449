"""Steps in a pod that has all of Windsock: this checkout, mounted into an image that has only Python.

Building the real image takes minutes; its program is the same. The stack runs the shipped
DAGs ``train`` and ``monitor`` of a small payments model (its ``fit`` runs locally), and a
DAG for each custom trainer of a second model, to see what becomes of pods that run too
long or fail. Failed pods are kept (``keep_failed_pods``).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster import Cluster, group_writable, wait_for

from feature_days import put_day
from model_runs import ModelRuns
from stack_fixture import Stack, start_stack
from training_world import AS_OF, TRAINING, make_world, payments, world_spec
from whole_chain import put_in_force
from windsock.compute import SiteCompute, needs_of
from windsock.settings import REPO_ROOT, Settings
from windsock.spec import ModelSpec, get_spec
from windsock.steps import run_step
from windsock.store import to_json
from windsock_airflow.pods.cluster import has_ended
from windsock_airflow.pods.manifest import pod_manifest
from windsock_local.stack import lifecycle

LAST = AS_OF - timedelta(days=2)
"""Last day that there is at first: enough to train as of ``AS_OF``, one too few for the day after."""
MISSING = LAST + timedelta(days=1)
CHAMPION = "99"
"""Its version; no number that MLflow gives out here."""
ENDS, RUN = "ends", "run-1"
"""The model with the custom trainers, and its run."""

TRAINERS = {"timed": "endless", "deferred": "endless", "fails": "fails"}
"""Estimator to what its trainer does."""

_ROOT = "/opt/windsock"
_PROBE_SECONDS = 60
_LAUNCHER = """#!/usr/bin/env python3
import sys
from windsock.cli import main
sys.exit(main())
"""

# Keeps the trainer contract with nothing but Python; says in the file `notes` which pod did what.
_TRAINER = """
import hashlib, json, os, signal, sys, time
from pathlib import Path

what, request = sys.argv[1], Path(os.environ["WINDSOCK_REQUEST"])
folder, pod = request.parent, os.uname().nodename
notes, checkpoint = folder / "notes", folder / "checkpoint"

def note(text):
    with notes.open("a") as file:
        print(text, pod, file=file)

def told_to_end(*_):
    time.sleep(2)  # a checkpoint takes a while to write; nobody else may begin meanwhile
    checkpoint.touch()
    note("ends")
    sys.exit(143)

signal.signal(signal.SIGTERM, told_to_end)
first = not notes.exists()
note("begins")
if what == "fails" and first:
    Path("/dev/termination-log").write_text("OSError: a disk was away")
    print("what somebody wants to read later", flush=True)
    sys.exit(1)
while what == "endless" and not checkpoint.exists():
    time.sleep(0.1)
metrics = {"format": "windsock-candidate/1", "request_sha256": hashlib.sha256(request.read_bytes()).hexdigest(),
           "selection": {"metric": "average_precision", "score": 0.5, "folds": []}, "seconds": 1.0}
(folder / "metrics.json").write_text(json.dumps(metrics))
"""

_DAG = f"""
from datetime import timedelta

from airflow.sdk import DAG

from windsock.settings import Settings
from windsock.spec import get_spec
from windsock_airflow.blueprint import heavy_step

spec = get_spec(Settings.from_env(), "{ENDS}")
for estimator in spec.training.estimators:
    with DAG(dag_id=f"{ENDS}_{{estimator.name}}", schedule=None, is_paused_upon_creation=False,
             default_args={{"retries": 1, "retry_delay": timedelta(seconds=5)}}):
        heavy_step(spec, step="fit", estimator=estimator, keyed=False, options={{"run": "{RUN}"}},
                   execution_timeout=timedelta(minutes=5) if estimator.name == "fails" else timedelta(seconds=45),
                   poll_interval=0.3, deferrable=estimator.name == "deferred")
"""


@dataclass
class StepWorld:
    """The running stack, its cluster, and the world of days."""

    stack: Stack
    cluster: Cluster
    spec: ModelSpec
    days: Path
    """A copy of the world as it was before anything ran in a pod: home and models."""

    @property
    def fraud(self) -> ModelRuns:
        """The runs of the model that trains and is monitored."""
        return ModelRuns(self.stack, self.spec.name)

    def end(self, name: str, run: str) -> dict[str, Any]:
        """Wait for a custom trainer's run; returns its task, with the state of the run under ``run``."""
        state = self.stack.api.wait_for_run(f"{ENDS}_{name}", run, 180)["state"]
        (task,) = self.stack.api.task_instances(f"{ENDS}_{name}", run)
        return {**task, "run": state}

    def log(self, name: str, run: str, attempt: int) -> str:
        """Log of one try of a custom trainer."""
        return str(self.stack.api.task_log(f"{ENDS}_{name}", run, "fit", attempt))

    def notes(self, name: str) -> list[tuple[str, str]]:
        """What a custom trainer's pods have done, in order: verb, pod."""
        lines = (_candidate(self.stack.home, name) / "notes").read_text().splitlines()
        return [(line.split()[0], line.split()[1]) for line in lines]

    def left(self, dag: str) -> list[Any]:
        """Pods that a DAG's tasks have left, once those that are being deleted are gone."""

        def of_dag() -> list[Any]:
            pods = self.cluster.pods("windsock.io/task")
            return [p for p in pods if p.metadata.annotations["windsock.io/dag-id"] == dag]

        wait_for(lambda: all(p.metadata.deletion_timestamp is None for p in of_dag()), 60, f"pods of {dag} to go")
        return of_dag()


def put_settled_day(settings: Settings, spec: ModelSpec, day: date) -> None:
    """Put a day of payments into the ledger, and compute its features."""
    put_day(settings, spec, day, payments(day))
    run_step("features", model=spec.name, key=str(day), settings=settings)


@contextmanager
def step_world(cluster: Cluster, image: str) -> Iterator[StepWorld]:
    """Make the days, a champion and its scores; start the stack.

    Args:
        cluster: Its namespace takes the pods.
        image: With this machine's version of Python; the tests are skipped if it cannot run the mounted checkout.
    """
    # A short path: a socket's name may have 107 bytes.
    home = Path(tempfile.mkdtemp(prefix="windsock-"))
    copy = Path(tempfile.mkdtemp(prefix="windsock-"))
    home.chmod(0o755)
    try:
        for name in ("bin", "dags", "models", "store"):
            (home / name).mkdir()
        (home / "bin" / "windsock").write_text(_LAUNCHER)
        (home / "bin" / "windsock").chmod(0o755)
        site = _site(cluster, image, home)
        _must_run(cluster, site)
        (home / "site.yaml").write_text(yaml.safe_dump(site))
        with group_writable(home / "store"):
            spec = _make_days(home)
            _make_ends(home, image)
            shutil.copytree(home, copy, dirs_exist_ok=True)
            stack = start_stack(
                home,
                KUBECONFIG=os.environ["KUBECONFIG"],
                WINDSOCK_COMPUTE="kubernetes",
                WINDSOCK_COMPUTE_FILE=str(home / "site.yaml"),
                WINDSOCK_MODELS=str(home / "models"),
                WINDSOCK_DAGS_FOLDER=str(home / "dags"),
                WINDSOCK_AIRFLOW__CORE__PARALLELISM="8",
                OMP_NUM_THREADS="1",
            )
        try:
            yield StepWorld(stack, cluster, spec, copy)
        finally:
            stack.api.close()
            lifecycle.stop_stack(stack.settings)
            for pod in cluster.pods("windsock.io/task"):
                cluster.delete_pod(pod.metadata.name, grace_seconds=0)
    finally:
        if not os.environ.get("WINDSOCK_KEEP_TEST_HOME"):
            for folder in (home, copy):
                shutil.rmtree(folder, ignore_errors=True)


def _make_days(home: Path) -> ModelSpec:
    """Make the payments' days, and a champion that has scored the last two."""
    make_world(home, LAST)
    training = {**TRAINING, "estimator": {**TRAINING["estimator"], "compute": {"backend": "local"}}}
    settings, spec = world_spec(home, training=training, last_day=str(AS_OF + timedelta(days=7)))
    run = run_step("assemble", model=spec.name, options={"as_of": str(AS_OF)}, settings=settings)["run"]
    run_step("fit", model=spec.name, options={"run": run}, settings=settings)
    run_step("choose", model=spec.name, options={"run": run}, settings=settings)
    put_in_force(settings, spec, CHAMPION, run, LAST - timedelta(days=1), LAST - timedelta(days=2))
    for day in (LAST - timedelta(days=1), LAST):
        run_step("score", model=spec.name, key=str(day), settings=settings)
    for name in ("train.py", "monitor.py"):
        shutil.copy(REPO_ROOT / "dags" / name, home / "dags" / name)
    return get_spec(settings, spec.name)


def _make_ends(home: Path, image: str) -> None:
    """Make the model of custom trainers, their requests and their DAGs."""
    (home / "bin" / "trainer.py").write_text(_TRAINER)
    folder = home / "models" / ENDS
    shutil.copytree(home / "models" / "fraud", folder)
    raw = yaml.safe_load((folder / "model.yaml").read_text(encoding="utf-8"))
    raw["name"] = ENDS
    raw["training"].pop("estimator")
    compute = {"image": image, "cpu": 0.05, "memory": "64Mi", "backend": "kubernetes"}
    raw["training"]["estimators"] = [
        {"kind": "custom", "name": name, "command": ["python3", f"{_ROOT}/bin/trainer.py", what], "compute": compute}
        for name, what in TRAINERS.items()
    ]
    (folder / "model.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    for name in TRAINERS:
        candidate = _candidate(home, name)
        candidate.mkdir(parents=True)
        request: dict[str, Any] = {"format": "windsock-trainer/1", "model": ENDS, "run": RUN}
        request["estimator"] = {"kind": "custom", "name": name}
        request["output"] = {"model": "model", "metrics": "metrics.json", "checkpoints": "checkpoints"}
        (candidate / "request.json").write_bytes(to_json(request))
        (candidate.parents[1] / "request.json").write_bytes(to_json({"run": RUN}))
    (home / "dags" / "ends.py").write_text(_DAG)


def _candidate(home: Path, name: str) -> Path:
    return home / "store" / "runs" / ENDS / RUN / "candidates" / name


def _site(cluster: Cluster, image: str, home: Path) -> dict[str, Any]:
    """Return a site whose step image is this checkout."""

    def mounted(name: str, source: Path, mount: str) -> dict[str, Any]:
        return {"name": name, "mount": mount, "host_path": str(source), "read_only": True}

    return {
        "namespace": cluster.namespace,
        "step_image": image,
        "cpu": 0.2,
        "memory": "1Gi",
        "termination_grace_seconds": 10,
        "keep_failed_pods": True,
        "env": {
            "PATH": f"{_ROOT}/bin:/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": f"{_ROOT}/include:{_ROOT}/site-packages",
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "WINDSOCK_HOME": "/tmp",
            "WINDSOCK_MODELS": f"{_ROOT}/models",
            # Of the same kernels, as what they add up is compared byte for byte.
            **{name: value for name, value in os.environ.items() if name.startswith("OPENBLAS_")},
        },
        "volumes": [
            {"name": "store", "mount": str(home / "store"), "host_path": str(home / "store")},
            mounted("packages", Path(sysconfig.get_path("purelib")), f"{_ROOT}/site-packages"),
            mounted("include", REPO_ROOT / "include", f"{_ROOT}/include"),
            mounted("features", REPO_ROOT / "feature_repo", f"{_ROOT}/feature_repo"),
            mounted("models", home / "models", f"{_ROOT}/models"),
            mounted("bin", home / "bin", f"{_ROOT}/bin"),
        ],
    }


def _must_run(cluster: Cluster, site: dict[str, Any]) -> None:
    """Skip the tests unless the image can run the mounted checkout."""
    spec = get_spec(Settings.from_env({"WINDSOCK_MODELS": str(REPO_ROOT / "include" / "models")}), "fraud")
    needs, name = needs_of(spec, None, SiteCompute.model_validate(site)), f"probe-{secrets.token_hex(3)}"
    command = ("python3", "-c", "import numpy, pyarrow, duckdb, windsock.cli")
    manifest = pod_manifest(needs, name=name, labels={}, annotations={}, env={}, command=command)
    cluster.core.create_namespaced_pod(cluster.namespace, manifest)
    said = f"no pod with them started within {_PROBE_SECONDS} s"
    with contextlib.suppress(AssertionError):
        pod = wait_for(lambda: (p := cluster.pod(name)) and has_ended(p) and p, _PROBE_SECONDS, "the probe")
        said = "" if pod.status.phase == "Succeeded" else (cluster.log(name).strip() or "it failed").splitlines()[-1]
    cluster.delete_pod(name, grace_seconds=0)
    if said:
        pytest.skip(f"{site['step_image']} cannot run this checkout, mounted from the node's folders: {said}")
