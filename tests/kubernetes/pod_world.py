"""A model whose trainers misbehave on purpose, a DAG for each of them, and a stack that runs them in pods.

Each estimator (``ESTIMATORS``) has a trainer that keeps the contract with nothing but
Python, a DAG ``pods_<name>`` and in it the task ``fit``. Its run folder is made by hand:
how the step ``assemble`` makes one is tested elsewhere.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cluster import Cluster

from stack_fixture import Stack, start_stack
from windsock.settings import REPO_ROOT
from windsock.store import to_json
from windsock_local.stack import lifecycle

IMAGE_VARIABLE = "WINDSOCK_TEST_PYTHON_IMAGE"
"""An image with ``python3`` for the trainers here; default: one that a node has."""
MODEL = "pods"
RUN = "run-1"

# What a pod runs: no Windsock, no library, only the trainer contract.
_TRAINER = """
import hashlib, json, os, signal, sys, time
from pathlib import Path

what, folder = sys.argv[1], Path(os.environ["WINDSOCK_REQUEST"]).parent
request = Path(os.environ["WINDSOCK_REQUEST"]).read_bytes()

def finish(**more):
    metrics = {"format": "windsock-candidate/1", "request_sha256": hashlib.sha256(request).hexdigest(),
               "selection": {"metric": "average_precision", "score": 0.5, "folds": []}, "seconds": 1.0, **more}
    (folder / "metrics.json.tmp").write_text(json.dumps(metrics))
    os.replace(folder / "metrics.json.tmp", folder / "metrics.json")

def end(code, words=""):
    if words:
        Path("/dev/termination-log").write_text(words)
    sys.exit(code)

starts = folder / "starts"
with starts.open("a") as file:
    file.write(os.uname().nodename + chr(10))
first = len(starts.read_text().split()) == 1
print("trainer begins", what, flush=True)
if what == "well":
    finish(uid=os.getuid(), env={k: os.environ.get(k) for k in ("WINDSOCK_THREADS", "HOME", "WINDSOCK_TRAINER_ROLE")})
elif what == "slow":  # until the test says go
    while not (folder / "go").exists():
        time.sleep(0.1)
    finish()
elif what == "hungry":  # needs 150 MiB
    hoard = bytearray(150 * 2**20)
    for i in range(0, len(hoard), 4096):
        hoard[i] = 1
    finish()
elif what == "nothing":
    pass
elif what == "says":
    end(int(sys.argv[2]), sys.argv[3])
elif what == "dies":
    if first:
        end(1, "OSError: a disk was away")
    finish()
elif what == "traceback":
    raise ValueError("rows and labels differ in length")
print("trainer ends", what, flush=True)
"""

_DAG = """
from datetime import timedelta

from airflow.sdk import DAG

from windsock_airflow.callbacks import on_task_failure
from windsock_airflow.blueprint import heavy_step
from windsock.settings import Settings
from windsock.spec import load_specs

for spec in load_specs(Settings.from_env())[0].values():
    for estimator in spec.training.estimators:
        with DAG(dag_id=f"pods_{estimator.name}", schedule=None, is_paused_upon_creation=False,
                 default_args={"retries": 2, "retry_delay": timedelta(seconds=5),
                               "execution_timeout": timedelta(minutes=10), "on_failure_callback": [on_task_failure]}):
            heavy_step(spec, step="fit", estimator=estimator, keyed=False, options={"run": "%(run)s"},
                       poll_interval=0.3, poke_interval=1, deferrable=estimator.name.startswith("deferred"))
"""


@dataclass
class World:
    """The running stack, the store that pods see, and the cluster."""

    stack: Stack
    cluster: Cluster
    store: Path
    image: str
    """With ``python3`` on its path."""
    site: Path
    """The file that ``WINDSOCK_COMPUTE_FILE`` names; read again by each task."""

    def folder(self, name: str) -> Path:
        """Folder of an estimator's candidate."""
        return self.store / "runs" / MODEL / RUN / "candidates" / name

    def start(self, name: str) -> str:
        """Trigger the DAG of an estimator; returns the run id."""
        dag = f"pods_{name}"
        self.stack.api.wait_for_dag(dag, 120)
        return self.stack.api.trigger(dag)

    def run(self, name: str, seconds: float = 120) -> str:
        """Trigger and wait for the end; returns the run's state."""
        return self.end(name, self.start(name), seconds)

    def end(self, name: str, run_id: str, seconds: float = 120) -> str:
        """Wait for the end of a run; returns its state."""
        return str(self.stack.api.wait_for_run(f"pods_{name}", run_id, seconds)["state"])

    def task(self, name: str, run_id: str) -> dict[str, Any]:
        """The task instance."""
        (task,) = self.stack.api.task_instances(f"pods_{name}", run_id)
        return task

    def log(self, name: str, run_id: str, attempt: int = 1) -> str:
        """Log of one try."""
        return self.stack.api.task_log(f"pods_{name}", run_id, "fit", attempt)

    def pods(self, name: str) -> list[Any]:
        """Pods there are of an estimator's tasks."""
        pods = self.cluster.pods(f"windsock.io/model={MODEL}")
        return [p for p in pods if p.metadata.annotations["windsock.io/dag-id"] == f"pods_{name}"]

    def gone(self, name: str, seconds: float = 30) -> bool:
        """Wait until the cluster was asked to delete every pod of an estimator's tasks.

        When a deleted pod is off the list is its node's affair: up to two minutes if it was only just starting.
        """
        return bool(until(lambda: not self.kept(name), seconds, f"{name} still has a pod"))

    def kept(self, name: str) -> list[str]:
        """Names of the pods of an estimator's tasks that nobody has asked to delete."""
        return [pod.metadata.name for pod in self.pods(name) if pod.metadata.deletion_timestamp is None]

    def starts(self, name: str) -> list[str]:
        """Names of the pods whose trainer has begun, in order."""
        file = self.folder(name) / "starts"
        return file.read_text().split() if file.exists() else []

    def running(self, name: str, number: int = 1) -> str:
        """Wait until so many trainers have begun; returns the last one's pod."""
        until(lambda: len(self.starts(name)) >= number, 90, f"trainer {number} of {name} has not begun")
        return self.starts(name)[-1]


def until(look: Callable[[], Any], seconds: float, otherwise: str) -> Any:
    """Wait until ``look`` returns something true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.2)
    return found


def custom(name: str, *arguments: str, **compute: Any) -> dict[str, Any]:
    """One estimator of the model: what its trainer does, and what it asks of the cluster."""
    command = compute.pop("command", ["python3", "TRAINER", *arguments])
    asked = {"image": "IMAGE", "cpu": 0.05, "memory": "64Mi", "memory_limit": "64Mi", **compute}
    return {"kind": "custom", "name": name, "command": command, "compute": asked}


ESTIMATORS: list[dict[str, Any]] = [
    custom("well", "well", cpu=0.2),
    custom("says_65", "says", "65", "DataContractError: day 2026-03-04 has two labels for one payment."),
    custom("says_64", "says", "64", "SpecError: search.depth is no parameter of this trainer."),
    custom("says_75", "says", "75", "UpstreamUnavailable: the bucket does not answer."),
    custom("traceback", "traceback"),
    custom("dies_once", "dies"),
    custom("nothing", "nothing"),
    custom("hungry", "hungry", memory="100Mi", memory_limit="400Mi"),
    custom("starving", "hungry", memory="60Mi", memory_limit="90Mi"),
    custom("deferred_well", "well"),
    custom("deferred_65", "says", "65", "DataContractError: no rows."),
    custom("deferred_hungry", "hungry", memory="100Mi", memory_limit="400Mi"),
    custom("no_image", "well", image="windsock.invalid/nowhere:1"),
    custom("no_account", "well", service_account="nobody-there"),
    custom("no_secret", "well"),
    custom("no_program", command=["no-such-program"]),
    custom("removed", "slow"),
    custom("killed", "slow"),
    custom("watched", "slow"),
    custom("unwatched", "slow"),
    custom("drained", "slow"),
    custom("orphaned", "slow"),
    custom("marked", "slow"),
    custom("cleared", "slow"),
    custom("run_gone", "slow"),
    custom("deferred_marked", "slow"),
    custom("queued_marked", "well", cpu=900),
    custom("queued_cleared", "well", cpu=900),
    custom("too_big", "well", cpu=900, wait_minutes=1),
    custom("no_gpu", "well", gpu=400, wait_minutes=1),
    custom("many_gpus", "well", gpu=500),
    custom("gpu_freed", "well", gpu=1),
    custom("quota", "well", memory="66Mi", memory_limit="66Mi"),
    custom("over_quota", "well", memory="900Gi", memory_limit="900Gi"),
]
GPUS_OF_POOL = 401


@contextmanager
def pod_world(cluster: Cluster, image: str) -> Iterator[World]:
    """Bring up a store on the node, and a stack whose DAGs run the trainers on the cluster.

    Args:
        cluster: Its namespace takes the pods.
        image: With ``python3`` on its path.
    """
    home = Path(tempfile.mkdtemp(prefix="windsock-"))
    home.chmod(0o755)
    store = home / "store"
    try:
        code = home / "code"  # a trainer sees of the store no more than its run
        trainer = code / "trainer.py"
        store.mkdir()
        code.mkdir()
        trainer.write_text(_TRAINER)
        _write_model(home / "models", trainer, image)
        for estimator in ESTIMATORS:
            _write_request(store, estimator["name"])
        (home / "dags").mkdir()
        (home / "dags" / "pods.py").write_text(_DAG.replace("%(run)s", RUN))
        volumes = [
            {"name": "store", "mount": str(store), "host_path": str(store)},
            {"name": "code", "mount": str(code), "host_path": str(code), "read_only": True},
        ]
        site = {"namespace": cluster.namespace, "termination_grace_seconds": 1, "volumes": volumes}
        (home / "site.yaml").write_text(yaml.safe_dump(site))
        stack = start_stack(
            home,
            KUBECONFIG=os.environ["KUBECONFIG"],
            WINDSOCK_COMPUTE="kubernetes",
            WINDSOCK_COMPUTE_FILE=str(home / "site.yaml"),
            WINDSOCK_GPUS=str(GPUS_OF_POOL),
            WINDSOCK_MODELS=str(home / "models"),
            WINDSOCK_DAGS_FOLDER=str(home / "dags"),
            # Machine learning is in the pods here; the task processes need only these.
            WINDSOCK_WARM_MODULES="airflow.sdk.execution_time.task_runner,windsock_airflow.pods.operator,airflow.version",
            WINDSOCK_AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT="8",
            WINDSOCK_AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL="2",
            WINDSOCK_AIRFLOW__CORE__PARALLELISM="8",
        )
        try:
            yield World(stack, cluster, store, image, home / "site.yaml")
        finally:
            stack.api.close()
            lifecycle.stop_stack(stack.settings)
    finally:
        if not os.environ.get("WINDSOCK_KEEP_TEST_HOME"):
            shutil.rmtree(home, ignore_errors=True)


def python_image(cluster: Cluster) -> str | None:
    """Return an image with ``python3``: the one that is named, or one that a node has."""
    if named := os.environ.get(IMAGE_VARIABLE):
        return named
    images = [name for node in cluster.core.list_node().items for i in node.status.images for name in i.names or ()]
    return next((name for name in sorted(images) if "python" in name and "@" not in name), None)


def _write_model(models: Path, trainer: Path, image: str) -> None:
    shutil.copytree(REPO_ROOT / "include" / "models" / "fraud", models / MODEL)
    path = models / MODEL / "model.yaml"
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    raw["name"] = MODEL
    raw["training"].pop("estimator", None)
    text = json.dumps(ESTIMATORS).replace('"TRAINER"', json.dumps(str(trainer))).replace('"IMAGE"', json.dumps(image))
    raw["training"]["estimators"] = json.loads(text)
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")


def _write_request(store: Path, name: str) -> None:
    run = store / "runs" / MODEL / RUN
    folder = run / "candidates" / name
    folder.mkdir(parents=True)
    content = {
        "format": "windsock-trainer/1",
        "model": MODEL,
        "run": RUN,
        "estimator": {"kind": "custom", "name": name},
    }
    content["output"] = {"model": "model", "metrics": "metrics.json", "checkpoints": "checkpoints"}
    (folder / "request.json").write_bytes(to_json(content))
    (run / "request.json").write_bytes(to_json({"run": RUN}))
    folder.chmod(0o777)  # pods run as another user than Airflow does here
