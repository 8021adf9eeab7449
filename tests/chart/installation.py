"""Windsock installed on a cluster as docs/deploy.md says, from images alone, with a small model of a site's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path

import pytest
from cluster import Cluster, marks, sweep_dead, wait_for
from kubernetes.client import ApiClient, CoreV1Api, V1Pod
from stand_ins import OF_HELM, lab, load_postgresql, name_server, overlay, run_in_lab, volume

from built_images import image_name, load_into_cluster
from chart import HELM_VALUES, Helm, Values, find_helm, merged
from churn_model import DAY, Churn
from kubernetes import config
from model_runs import ModelRuns
from stack_fixture import Stack, StackApi, free_ports
from windsock.settings import Settings

NAMESPACE = "windsock"
"""As the manifests have it."""
CLAIMS = ("windsock-home", "windsock-logs", "windsock-store", "data-windsock-postgresql-0")
PARTS = ("airflow-api-server", "airflow-dag-processor", "airflow-scheduler", "airflow-triggerer")
LAST_DAY = DAY + timedelta(days=40)
_READY_SECONDS = 600.0


@dataclass
class Installation:
    """What is installed, and how people reach it."""

    folder: Path
    helm: Helm
    values: Values
    core: CoreV1Api
    churn: Churn
    """The model, in the volume that Airflow's pods have as their home."""
    url: str
    password: str

    @cached_property
    def api(self) -> StackApi:
        """Airflow's API through ``kubectl port-forward``, as an admin."""
        return StackApi(self.url, self.password, attempts=60)

    @cached_property
    def settings(self) -> Settings:
        """The store's volume, read from here."""
        return Settings.from_env(
            {
                "WINDSOCK_HOME": str(self.folder / "windsock-home"),
                "WINDSOCK_MODELS": str(self.folder / "windsock-home" / "models"),
                "WINDSOCK_STORE": str(self.folder / "windsock-store"),
            }
        )

    @property
    def runs(self) -> ModelRuns:
        """The runs of the model."""
        return ModelRuns(Stack(self.folder, self.settings, {}, self.url, "", self.api), "churn")

    def pods(self, selector: str = "") -> list[V1Pod]:
        """Return the pods of the namespace."""
        return list(self.core.list_namespaced_pod(NAMESPACE, label_selector=selector).items)

    def pod_of(self, part: str) -> V1Pod:
        """Return the pod of a part that has one."""
        (pod,) = (p for p in self.pods(f"component={part}") if p.metadata.deletion_timestamp is None)
        return pod

    def wait_until_ready(self) -> None:
        """Wait until the newest pod of each part, and of MLflow, is ready and no older one is left to serve."""
        for part in (*PARTS, "windsock-mlflow"):
            kubectl("rollout", "status", f"deployment/{part}", f"--timeout={_READY_SECONDS:.0f}s")

    def windsock(self, *command: str) -> str:
        """Run a command as the runbook says, in the API server's container, and return what it says."""
        where = ("exec", "deployment/airflow-api-server", "--container=api-server", "--")
        run = ["kubectl", f"--namespace={NAMESPACE}", *where, "windsock", *command]
        return subprocess.run(run, capture_output=True, text=True, check=False).stdout


def kubectl(*command: str) -> str:
    """Run kubectl in the namespace and return what it writes."""
    done = subprocess.run(
        ["kubectl", f"--namespace={NAMESPACE}", *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"kubectl {' '.join(command)}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@contextmanager
def installation() -> Iterator[Installation]:
    """Install Windsock by the chapters "Images", "Kubernetes" and "Helm", and remove it in the end."""
    cluster, helm = lab(), find_helm()
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl is here")
    config.load_kube_config(os.environ["KUBECONFIG"])
    core = CoreV1Api(ApiClient())
    sweep_dead(core)
    if any(n.metadata.name == NAMESPACE for n in core.list_namespace().items):
        pytest.skip(f"the cluster has a namespace {NAMESPACE} already, which may be somebody's installation")
    airflow, trainer = (_on_the_node(cluster, which) for which in ("airflow", "trainer"))
    with ExitStack() as end:
        folder = Path(tempfile.mkdtemp(prefix="windsock-"))
        folder.chmod(0o755)
        if not os.environ.get("WINDSOCK_KEEP_TEST_HOME"):
            end.callback(shutil.rmtree, folder, ignore_errors=True)
        (folder / "image").mkdir()
        load_postgresql(cluster, folder / "image")
        end.enter_context(name_server(cluster, core, NAMESPACE))
        names = {f"windsock-test-{claim}": claim for claim in CLAIMS}
        _remove_volumes(core, names)  # of a session that was killed: nobody else's have these names
        for name, claim in names.items():
            end.callback(core.delete_persistent_volume, name)
            core.create_persistent_volume(volume(name, claim, NAMESPACE, folder / claim))
        churn = Churn.make(
            folder / "windsock-home",
            last_day=LAST_DAY,
            label__delay_days=1,
            training__window_days=2,
            training__holdout_days=1,
            training__estimator={
                "trials": 2,
                "rounds": 20,
                "params": {"min_child_samples": 5},
                "search": {"num_leaves": {"kind": "int", "low": 3, "high": 15}},
            },
        )
        site = _overlay(folder / "kubernetes", airflow, trainer)
        subprocess.run([site.parent / "dev" / "make-secrets.sh"], check=True, capture_output=True)
        end.callback(_remove, core, site)
        kubectl("apply", f"--kustomize={site}")
        values = merged(
            HELM_VALUES / "values.yaml",
            HELM_VALUES / "values-dev.yaml",
            defaultAirflowTag=airflow.partition(":")[2],
            **OF_HELM,
        )
        helm("install", values)
        secret = site.parent / "dev" / "secrets" / "airflow-passwords.json"
        url = end.enter_context(_forwarded("service/airflow-api-server", 8080))
        running = Installation(folder, helm, values, core, churn, url, json.loads(secret.read_text())["admin"])
        end.callback(_tell)
        running.wait_until_ready()
        yield running


def _remove_volumes(core: CoreV1Api, names: Collection[str]) -> None:
    def left() -> list[str]:
        return [v.metadata.name for v in core.list_persistent_volume().items if v.metadata.name in names]

    for name in left():
        core.delete_persistent_volume(name)
    wait_for(lambda: not left(), 60, f"the end of the volumes {left()}")


def _on_the_node(cluster: Path, which: str) -> str:
    """Return the name of one of our images, in the node's store."""
    name = image_name(which)
    if f"docker.io/{name}" not in run_in_lab(cluster, "ctr -n k8s.io images ls -q").split():
        load_into_cluster(which)
    return name


def _overlay(folder: Path, airflow: str, trainer: str) -> Path:
    """Write a site's own overlay above ``dev``: tags of the images, and where its models are."""
    labels, annotations = marks()
    namespace = {"kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels, "annotations": annotations}}
    settings = {
        "kind": "ConfigMap",
        "metadata": {"name": "windsock-settings", "namespace": NAMESPACE},
        "data": {"WINDSOCK_MODELS": "/var/lib/windsock/models"},
    }
    here = overlay(
        folder,
        {
            "namespace": NAMESPACE,
            "resources": ["../dev"],
            "images": [{"name": "windsock/airflow", "newTag": airflow.partition(":")[2]}],
            "patches": [{"patch": json.dumps({"apiVersion": "v1", **change})} for change in (namespace, settings)],
        },
    )
    compute = here.parent / "dev" / "compute.yaml"
    compute.write_text(compute.read_text().replace("windsock/trainer:dev", trainer))
    return here


@contextmanager
def _forwarded(service: str, port: int) -> Iterator[str]:
    """Forward a port as the document says; again whenever the pod behind it was replaced."""
    (local,) = free_ports(1)
    command = f"kubectl --namespace={NAMESPACE} port-forward {service} {local}:{port}"
    process = subprocess.Popen(
        ["bash", "-c", f"while sleep 3; do {command}; done"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    try:
        yield f"http://localhost:{local}"
    finally:
        os.killpg(process.pid, 15)
        process.wait()


def _remove(core: CoreV1Api, site: Path) -> None:
    """Remove all of it; pods first, as the namespace's controller would look for them again only after minutes."""
    kubectl("delete", "deployments,statefulsets,jobs", "--all", "--wait=false")
    Cluster(core, NAMESPACE).close()
    kubectl("delete", f"--kustomize={site}", "--ignore-not-found", "--wait=false")
    with suppress(AssertionError):
        wait_for(lambda: NAMESPACE not in {n.metadata.name for n in core.list_namespace().items}, 120, NAMESPACE)


def _tell() -> None:
    """Write how the parts stood in the end; pytest shows it when a test has failed."""
    logs = (("logs", f"deployment/{part}", "--all-containers", "--tail=25") for part in PARTS)
    for command in (("get", "pods", "--output=wide"), ("get", "events", "--field-selector=type=Warning"), *logs):
        with suppress(AssertionError):  # a container that never began has no log
            sys.stdout.write(f"--- {' '.join(command)}\n{kubectl(*command)}\n")


def settled(installation: Installation, days: list[date], stage: str, seconds: float) -> None:
    """Wait until a stage has run for each of the days."""
    wait_for(
        lambda: set(map(str, days)) <= set(installation.runs.days(stage)), seconds, f"{stage} of {days}", pause=1.0
    )
