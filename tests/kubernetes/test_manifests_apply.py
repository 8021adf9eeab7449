"""The manifests of docker/kubernetes against a real API server: it takes them, and Airflow's rights are what they say.

Everything happens in a namespace of its own. Objects of the whole cluster (Namespace, PriorityClass) are only tried
(dry run). Whether network policies hold is for a cluster whose network plugin enforces them.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster import Cluster, wait_for
from kubernetes.client import ApiClient, AuthorizationV1Api, Configuration, CoreV1Api
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic import DynamicClient
from pod_world import python_image

from kubernetes import watch
from windsock.settings import REPO_ROOT

MANIFESTS = REPO_ROOT / "docker" / "kubernetes"
BASE = MANIFESTS / "base"
OVERLAYS = ("dev", "production")
CLUSTER_WIDE = {"Namespace", "PriorityClass"}
NOT_MADE = {"Deployment", "PersistentVolumeClaim"}
"""Only tried: MLflow needs a real site's image and database, and a claim's fields are fixed once it is made."""


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def named_files(folder: Path, field: str) -> list[Path]:
    """Return the files that a kustomization lists under a field, folders and inline patches left out."""
    listed = documents(folder / "kustomization.yaml")[0].get(field, [])
    names = [entry if isinstance(entry, str) else entry.get("path") for entry in listed]
    return [folder / name for name in names if name and name.endswith(".yaml")]


@dataclass
class Place:
    """A namespace that holds the base, and clients of the cluster's administrator."""

    name: str
    core: CoreV1Api
    dynamic: DynamicClient

    def moved(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return a manifest as it would look in this namespace."""
        text = yaml.safe_dump(document).replace("namespace: windsock\n", f"namespace: {self.name}\n")
        moved = yaml.safe_load(text)
        if moved["kind"] == "Namespace":
            moved["metadata"]["name"] = f"{self.name}-other"  # never one that somebody uses
        return moved

    def apply(self, document: dict[str, Any], *, dry: bool) -> None:
        """Do what `kubectl apply --server-side` does."""
        body = self.moved(document)
        resource = self.dynamic.resources.get(api_version=body["apiVersion"], kind=body["kind"])
        options = {"dry_run": "All"} if dry else {}
        namespace = None if body["kind"] in CLUSTER_WIDE else self.name
        name = body["metadata"]["name"]
        self.dynamic.server_side_apply(
            resource, body, name, namespace=namespace, field_manager="windsock-tests", force_conflicts=True, **options
        )

    def client_of(self, account: str) -> ApiClient:
        """Return a client that can do what a service account can."""
        token = self.core.create_namespaced_service_account_token(
            account, self.name, {"spec": {"expirationSeconds": 900}}
        ).status.token
        mine = self.core.api_client.configuration
        theirs = Configuration(host=mine.host, api_key={"authorization": f"Bearer {token}"})
        theirs.ssl_ca_cert, theirs.verify_ssl = mine.ssl_ca_cert, mine.verify_ssl
        return ApiClient(theirs)

    def rights_of(self, account: str) -> set[tuple[str, str]]:
        """Return what an account may do here, as (resource, verb), beside what everybody may."""
        api = AuthorizationV1Api(self.client_of(account))
        review = api.create_self_subject_rules_review({"spec": {"namespace": self.name}})
        assert not review.status.incomplete
        rules = review.status.resource_rules
        rights = {(resource, verb) for rule in rules for resource in rule.resources or () for verb in rule.verbs}
        return {(resource, verb) for resource, verb in rights if not resource.startswith("selfsubject")}


@pytest.fixture(scope="module")
def place(cluster: Cluster) -> Iterator[Place]:
    """The base, applied in a namespace of its own, which goes with the tests."""
    name = f"windsock-test-{secrets.token_hex(4)}"
    metadata = cluster.core.read_namespace(cluster.namespace).metadata  # whose it is, should this session be killed
    cluster.core.create_namespace(
        {"metadata": {"name": name, "labels": metadata.labels, "annotations": metadata.annotations}}
    )
    opened = Place(name, cluster.core, DynamicClient(cluster.core.api_client))
    try:
        for path in named_files(BASE, "resources"):
            for document in documents(path):
                opened.apply(document, dry=document["kind"] in CLUSTER_WIDE | NOT_MADE)
        yield opened
    finally:
        Cluster(cluster.core, name).close()


def step_pod(name: str, code: str, image: str, **limits: str) -> dict[str, Any]:
    """Return a pod as the restricted standard wants it, with the step's service account."""
    container = {
        "name": "base",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", code],
        "resources": {"limits": {"memory": "128Mi", **limits}, "requests": {"cpu": "10m", "memory": "32Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    spec = {
        "containers": [container],
        "restartPolicy": "Never",
        "serviceAccountName": "windsock-step",
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    return {"metadata": {"name": name, "labels": {"windsock.io/step": "fit"}}, "spec": spec}


@pytest.fixture
def image(cluster: Cluster) -> str:
    found = python_image(cluster)
    if found is None:
        pytest.skip("no node has an image with python3; name one in WINDSOCK_TEST_PYTHON_IMAGE")
    return found


def refused(call: Any, *args: Any, **kwargs: Any) -> str:
    """Return the API server's words as it forbids a call."""
    with pytest.raises(ApiException) as caught:
        call(*args, **kwargs)
    assert caught.value.status == 403, caught.value
    return str(caught.value.body)


# --- the API server takes them


@pytest.mark.parametrize(
    "path",
    [
        *named_files(BASE, "resources"),
        *(p for o in OVERLAYS for p in named_files(MANIFESTS / "overlays" / o, "resources")),
    ],
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_the_api_server_takes_every_manifest(place: Place, path: Path) -> None:
    for document in documents(path):
        place.apply(document, dry=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlays_patches_fit_the_objects_of_the_base(place: Place, overlay: str) -> None:
    patches = [d for path in named_files(MANIFESTS / "overlays" / overlay, "patches") for d in documents(path)]
    assert patches
    for patch in patches:
        resource = place.dynamic.resources.get(api_version=patch["apiVersion"], kind=patch["kind"])
        if patch["kind"] in NOT_MADE:
            continue  # there is nothing to patch; the rendered overlay has them
        place.dynamic.patch(
            resource,
            place.moved(patch),
            patch["metadata"]["name"],
            place.name,
            content_type="application/strategic-merge-patch+json",
            dry_run="All",
        )


@pytest.mark.parametrize("git", [False, True], ids=["images", "git"])
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_api_server_takes_a_rendered_overlay(place: Place, overlay: str, git: bool, tmp_path: Path) -> None:
    copy = tmp_path / "kubernetes"
    shutil.copytree(MANIFESTS, copy)
    folder = copy / "overlays" / overlay
    if (folder / "make-secrets.sh").exists():
        subprocess.run([folder / "make-secrets.sh"], check=True, capture_output=True)

    if git:  # as docs/deploy.md says
        with (folder / "kustomization.yaml").open("a") as file:
            file.write("components: [../../components/git]\n")

    rendered = [document for document in yaml.safe_load_all(render(folder)) if document]

    (settings,) = (d["data"] for d in rendered if d["metadata"]["name"] == "windsock-settings")
    assert ("WINDSOCK_MODELS" in settings) is git
    assert settings["WINDSOCK_COMPUTE"] == "kubernetes"
    assert {"Deployment", "NetworkPolicy", "ResourceQuota", "Role"} <= {document["kind"] for document in rendered}
    for document in rendered:
        place.apply(document, dry=True)


def render(folder: Path) -> str:
    """Return what kustomize makes of a folder; skips where there is none that is new enough (5.0)."""
    for tool in (["kustomize", "build"], ["kubectl", "kustomize"]):
        if shutil.which(tool[0]) is None:
            continue
        done = subprocess.run([*tool, folder], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout
        if "accumulating resources" in done.stderr or "no such file" in done.stderr:
            pytest.fail(done.stderr)
    pytest.skip("neither kustomize nor a kubectl with kustomize 5 is here")


# --- who may do what


def test_airflow_may_do_what_starts_and_watches_pods_and_nothing_else(place: Place) -> None:
    pods = {("pods", verb) for verb in ("create", "get", "list", "watch", "patch", "delete")}
    events = {("events", "list"), ("events", "watch")}
    assert place.rights_of("windsock-airflow") == pods | {("pods/log", "get")} | events


def test_the_api_server_of_airflow_may_only_read_logs(place: Place) -> None:
    assert place.rights_of("windsock-airflow-api") == {("pods", "get"), ("pods", "list"), ("pods/log", "get")}


@pytest.mark.parametrize("account", ["windsock-step", "windsock-mlflow", "default"])
def test_whoever_runs_foreign_code_has_no_rights(place: Place, account: str) -> None:
    assert place.rights_of(account) == set()


def test_airflow_runs_watches_reads_marks_and_deletes_a_step_pod_that_has_no_token(place: Place, image: str) -> None:
    airflow = CoreV1Api(place.client_of("windsock-airflow"))
    name = f"step-{secrets.token_hex(3)}"
    code = "import os; print('token:', os.path.exists('/var/run/secrets/kubernetes.io'), 'user:', os.getuid())"

    airflow.create_namespaced_pod(place.name, step_pod(name, code, image))

    seen = watch.Watch().stream(
        airflow.list_namespaced_pod, place.name, field_selector=f"metadata.name={name}", timeout_seconds=120
    )
    assert "Succeeded" in (event["object"].status.phase for event in seen)
    log = airflow.read_namespaced_pod_log(name, place.name, _preload_content=False).data.decode()
    assert log.split() == ["token:", "False", "user:", "10001"]
    reasons = {
        event.reason
        for event in airflow.list_namespaced_event(place.name, field_selector=f"involvedObject.name={name}").items
    }
    assert "Scheduled" in reasons
    airflow.patch_namespaced_pod(name, place.name, {"metadata": {"labels": {"already_checked": "True"}}})
    airflow.delete_namespaced_pod(name, place.name)
    wait_for(lambda: name not in {pod.metadata.name for pod in airflow.list_namespaced_pod(place.name).items}, 60, name)


def test_airflow_may_not_read_secrets_enter_pods_or_look_elsewhere(place: Place, image: str) -> None:
    airflow = CoreV1Api(place.client_of("windsock-airflow"))
    place.core.create_namespaced_secret(place.name, {"metadata": {"name": "windsock-studies"}})
    name = f"step-{secrets.token_hex(3)}"
    airflow.create_namespaced_pod(place.name, step_pod(name, "import time; time.sleep(120)", image))
    wait_for(lambda: airflow.read_namespaced_pod(name, place.name).status.phase == "Running", 120, f"{name} to run")

    assert "secrets" in refused(airflow.read_namespaced_secret, "windsock-studies", place.name)
    assert "secrets" in refused(airflow.list_namespaced_secret, place.name)
    assert "configmaps" in refused(airflow.list_namespaced_config_map, place.name)
    assert "serviceaccounts" in refused(
        airflow.create_namespaced_service_account_token, "windsock-airflow-api", place.name, {"spec": {}}
    )
    assert "nodes" in refused(airflow.list_node)
    assert "default" in refused(airflow.list_namespaced_pod, "default")
    assert "default" in refused(airflow.create_namespaced_pod, "default", step_pod(name, "pass", image))
    assert "pods/exec" in refused(airflow.connect_post_namespaced_pod_exec, name, place.name, command="id", stdout=True)

    airflow.delete_namespaced_pod(name, place.name, grace_period_seconds=0)


def test_more_gpus_than_the_quota_has_are_refused_by_name(place: Place, image: str) -> None:
    airflow = CoreV1Api(place.client_of("windsock-airflow"))
    pod = step_pod("too-many", "pass", image, **{"nvidia.com/gpu": "3"})

    said = refused(airflow.create_namespaced_pod, place.name, pod, dry_run="All")

    assert "exceeded quota: windsock-namespace" in said
    assert "requests.nvidia.com/gpu" in said


def test_a_container_that_asks_for_nothing_gets_the_namespaces_defaults(place: Place, image: str) -> None:
    airflow = CoreV1Api(place.client_of("windsock-airflow"))
    pod = step_pod("modest", "pass", image)
    del pod["spec"]["containers"][0]["resources"]

    resources = airflow.create_namespaced_pod(place.name, pod, dry_run="All").spec.containers[0].resources

    assert resources.requests == {"cpu": "100m", "memory": "256Mi"}
    assert resources.limits == {"memory": "1Gi"}
