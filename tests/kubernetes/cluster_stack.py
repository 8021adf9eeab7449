"""A stack whose training runs in pods: a real Airflow, PostgreSQL and MLflow here, the pods on the cluster.

Two models on the same small world: ``fraud`` trains LightGBM and torch with a GPU each,
``fraud_shared`` lets two pods share one search. Pods write to the stack's store, a folder
of this machine that they mount; PostgreSQL and MLflow they reach through a ``Relay``.
"""

from __future__ import annotations

import copy
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from cluster import UID, Cluster, group_writable
from relay import Relay, tcp, unix

from feature_days import put_day
from model_runs import ModelRuns
from stack_fixture import Stack, start_stack
from training_world import AS_OF, FIRST, TRAINING, make_world, payments, world_spec
from windsock.days import day_range
from windsock.mlflow_keys import task_key
from windsock.settings import Settings
from windsock.spec import get_spec
from windsock.steps import run_step
from windsock.store import Store
from windsock_local.stack import lifecycle
from windsock_local.stack.home import read_stack

STUDIES_SECRET = "windsock-studies"
SHARED, SHARED_TRIALS = "fraud_shared", 12

LIGHTGBM: dict[str, Any] = {
    **TRAINING["estimator"],
    "trials": 10,
    "rounds": 60,
    "search": {
        "num_leaves": {"kind": "int", "low": 3, "high": 15},
        "learning_rate": {"kind": "float", "low": 0.03, "high": 0.2, "log": True},
    },
    "compute": {"gpu": 1, "memory": "1Gi"},
}
TORCH: dict[str, Any] = {
    "kind": "torch",
    "trials": 2,
    # Slow on purpose: a training that goes on for many steps can be killed in the middle.
    "epochs": 40,
    "patience": 40,
    "params": {"hidden": [32, 16], "learning_rate": 0.0005, "batch_size": 8},
    "search": {"dropout": {"kind": "float", "low": 0.0, "high": 0.3}},
    "checkpoint_steps": 25,
    "compute": {"gpu": 1, "memory": "1536Mi", "cpu": 0.6},
}


@dataclass
class ClusterStack:
    """The running stack and its cluster."""

    stack: Stack
    cluster: Cluster
    site: dict[str, Any]
    """Content of the file that ``WINDSOCK_COMPUTE_FILE`` names."""
    databases: Relay
    mlflow: Relay
    studies_password: str
    studies_url: str

    @property
    def fraud(self) -> ModelRuns:
        """The runs of the model with two estimators."""
        return ModelRuns(self.stack, "fraud")

    @property
    def shared(self) -> ModelRuns:
        """The runs of the model with a shared search."""
        return ModelRuns(self.stack, SHARED)

    @property
    def store(self) -> Store:
        """The store."""
        return Store.of(self.stack.settings)

    def database(self, name: str) -> Any:
        """Connect to one of the stack's databases."""
        import psycopg2

        info = read_stack(self.stack.settings)
        assert info is not None
        return psycopg2.connect(host=info.database_socket, user="postgres", dbname=name)

    def candidate(self, model: str, run: str, estimator: str) -> Path:
        """Return a candidate's folder."""
        return Path(self.store.url("runs", model, run, "candidates", estimator))

    def train(self, runs: ModelRuns, **conf: Any) -> str:
        """Trigger a training as of the world's last day, and return the run's id."""
        return self.stack.api.trigger(runs.dag("train"), conf={"as_of": str(AS_OF), **conf})

    def run_here(self, step: str, **options: Any) -> dict[str, Any]:
        """Run a step of ``fraud`` by the local backend, in a process of its own, and return its result."""
        chosen = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        done = subprocess.run(
            [sys.executable, "-m", "windsock.cli", "step", step, "-m", "fraud", "--origin", "local", *chosen],
            env={**self.stack.env, "WINDSOCK_COMPUTE": "local", "WINDSOCK_THREADS": "1", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return dict(json.loads(done.stdout.strip().splitlines()[-1]))

    @cached_property
    def local_run(self) -> str:
        """The run folder of ``fraud`` trained by the local backend, on the same days."""
        run = str(self.run_here("assemble", as_of=AS_OF)["run"])
        for estimator in ("lightgbm", "torch"):
            self.run_here("fit", run=run, estimator=estimator)
        self.run_here("choose", run=run)
        return run

    def mlflow_client(self) -> Any:
        """Return MLflow's client with a key of ``fraud``'s."""
        from windsock.registry.client import mlflow_client

        os.environ.update(task_key(self.stack.settings.mlflow_secret, "fraud", "test"))
        return mlflow_client(self.stack.settings)

    def logs(self) -> str:
        """Return every log of the stack and of its tasks."""
        files = [*self.stack.home.glob("logs/**/*"), *self.stack.home.glob("airflow/logs/**/*")]
        return "\n".join(p.read_text(encoding="utf-8", errors="replace") for p in files if p.is_file())

    def close(self) -> None:
        """End the stack, then the pods; then remove their folders."""
        try:
            self.stack.api.close()
            lifecycle.stop_stack(self.stack.settings)
        finally:
            for pod in self.cluster.pods():
                self.cluster.delete_pod(pod.metadata.name, grace_seconds=0)
            for relay in (self.databases, self.mlflow):
                relay.close()
            if not os.environ.get("WINDSOCK_KEEP_TEST_HOME"):
                shutil.rmtree(self.stack.home, ignore_errors=True)


def start_cluster_stack(cluster: Cluster, image: str) -> ClusterStack:
    """Make the world, start the stack and let pods in."""
    # A short path: a socket's name may have 107 bytes.
    home = Path(tempfile.mkdtemp(prefix="windsock-"))
    home.chmod(0o711)
    databases, mlflow = Relay(cluster.address, parties=2).start(), Relay(cluster.address).start()
    password = secrets.token_hex(12)
    studies_url = f"postgresql+psycopg2://postgres:{password}@{databases.address}:{databases.port}/studies"
    cluster.secret(STUDIES_SECRET, WINDSOCK_STUDIES=studies_url)
    site = site_file(home, cluster, image, mlflow_url=f"http://{mlflow.address}:{mlflow.port}")
    (home / "site.yaml").write_text(yaml.safe_dump(site, sort_keys=False), encoding="utf-8")
    with group_writable(home / "store"):
        make_models(home)
        stack = start_stack(
            home,
            WINDSOCK_MODELS=str(home / "models"),
            WINDSOCK_COMPUTE="kubernetes",
            WINDSOCK_COMPUTE_FILE=str(home / "site.yaml"),
            WINDSOCK_GPUS=str(max(1, cluster.gpus())),
            OMP_NUM_THREADS="1",
        )
    running = ClusterStack(stack, cluster, site, databases, mlflow, password, studies_url)
    try:
        info = read_stack(stack.settings)
        assert info is not None
        databases.target = unix(f"{info.database_socket}/.s.PGSQL.5432")
        host, _, port = stack.mlflow_url.removeprefix("http://").partition(":")
        mlflow.target, mlflow.host = tcp(host, int(port)), f"{host}:{port}"
        with closing(running.database("postgres")) as connection:
            connection.autocommit = True
            connection.cursor().execute("create database studies")
        for model in ("fraud", SHARED):
            stack.api.wait_for_dag(f"{model}_train")
    except BaseException:
        running.close()
        raise
    return running


def site_file(home: Path, cluster: Cluster, image: str, *, mlflow_url: str) -> dict[str, Any]:
    """Return the site's defaults for pods."""
    store = str(home / "store")
    return {
        "namespace": cluster.namespace,
        "trainer_image": image,
        "cpu": 0.5,
        "memory": "1Gi",
        "labels": {"windsock.io/cost-centre": "research"},
        "env": {"OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": mlflow_url},
        "env_from_secrets": [STUDIES_SECRET],
        "volumes": [{"name": "store", "mount": store, "host_path": store}],
        "run_as": {"user": UID, "group": UID, "fs_group": UID},
        "wait_minutes": 10,
    }


def make_models(home: Path) -> Settings:
    """Make the world's days for both models."""
    settings, _ = make_world(home)
    world_spec(home, training=_training(estimators=[LIGHTGBM, TORCH]))
    folder = home / "models" / SHARED
    shutil.copytree(home / "models" / "fraud", folder)
    raw = yaml.safe_load((folder / "model.yaml").read_text(encoding="utf-8"))
    shared = {**LIGHTGBM, "trials": SHARED_TRIALS, "budget": {"parallel": 2, "pruning": False}, "compute": {}}
    raw |= {"name": SHARED, "training": _training(estimators=[shared])}
    (folder / "model.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    spec = get_spec(settings, SHARED)
    for day in day_range(FIRST, AS_OF):
        put_day(settings, spec, day, payments(day))
    for day in day_range(FIRST, AS_OF):
        run_step("features", model=SHARED, key=str(day), settings=settings)
    return settings


def _training(**estimators: Any) -> dict[str, Any]:
    training = copy.deepcopy(TRAINING)
    del training["estimator"]
    return {**training, **copy.deepcopy(estimators)}
