"""What must hold for the manifests, read from their files; a real API server looks at them in tests/kubernetes."""

from __future__ import annotations

import functools
import ipaddress
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from windsock.compute import SiteCompute
from windsock.settings import REPO_ROOT

KUBERNETES = REPO_ROOT / "docker" / "kubernetes"
OVERLAYS = ("dev", "production")
GPU = "requests.nvidia.com/gpu"


@functools.cache
def read(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def everything() -> list[tuple[Path, dict[str, Any]]]:
    files = [path for path in sorted(KUBERNETES.rglob("*.yaml")) if path.name != "kustomization.yaml"]
    return [(path, document) for path in files for document in read(path)]


def files(folder: Path, field: str) -> list[Path]:
    """Return the files that a kustomization lists under a field, folders and inline patches left out."""
    listed = read(folder / "kustomization.yaml")[0].get(field, [])
    names = [entry if isinstance(entry, str) else entry.get("path") for entry in listed]
    return [folder / name for name in names if name and name.endswith(".yaml")]


def objects(kind: str, folder: str = "base") -> dict[str, dict[str, Any]]:
    """Return a folder's objects of a kind by name."""
    return {
        document["metadata"]["name"]: document
        for path, document in everything()
        if document["kind"] == kind and path.parent.name == folder
    }


def data(name: str, overlay: str) -> dict[str, str]:
    """Return a config map as an overlay makes it."""
    base, patch = objects("ConfigMap")[name]["data"], objects("ConfigMap", overlay).get(name, {"data": {}})["data"]
    return {**base, **patch}


# --- kustomize


@pytest.mark.parametrize("folder", ["base", "components/git", "overlays/dev", "overlays/production"])
def test_every_file_is_listed_by_its_kustomization(folder: str) -> None:
    listed = {path for field in ("resources", "patches") for path in files(KUBERNETES / folder, field)}
    there = set((KUBERNETES / folder).glob("*.yaml"))
    assert {path for path in there if path.name != "kustomization.yaml"} == listed


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_patch_names_an_object_of_the_base(overlay: str) -> None:
    for path in files(KUBERNETES / "overlays" / overlay, "patches"):
        for patch in read(path):
            assert patch["metadata"]["name"] in objects(patch["kind"]), path
    for entry in read(KUBERNETES / "overlays" / overlay / "kustomization.yaml")[0]["patches"]:
        if "target" in entry:
            assert entry["target"]["name"] in objects(entry["target"]["kind"])


def test_production_runs_images_by_digest_alone() -> None:
    kustomization = read(KUBERNETES / "overlays" / "production" / "kustomization.yaml")[0]
    site = yaml.safe_load(data("windsock-compute", "production")["compute.yaml"])

    assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", image["digest"]) for image in kustomization["images"])
    for image in ("trainer_image", "step_image"):
        assert re.fullmatch(r"[\w./-]+@sha256:[0-9a-f]{64}", site[image])


# --- settings


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_site_file_is_valid_and_fits_the_manifests(overlay: str) -> None:
    site = SiteCompute.model_validate(yaml.safe_load(data("windsock-compute", overlay)["compute.yaml"]))

    assert site.namespace in objects("Namespace")
    assert site.service_account in objects("ServiceAccount")
    assert site.priority_class in objects("PriorityClass")
    quota = objects("ResourceQuota")["windsock-training"]["spec"]["scopeSelector"]["matchExpressions"][0]
    assert site.priority_class in quota["values"], "what is outside the quota's classes is not bounded"
    claims = {volume.claim for volume in site.volumes} - {None}
    assert claims <= set(objects("PersistentVolumeClaim", overlay))


def test_the_base_has_a_valid_site_file_too() -> None:
    SiteCompute.model_validate(yaml.safe_load(objects("ConfigMap")["windsock-compute"]["data"]["compute.yaml"]))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_pool_of_gpus_is_as_large_as_the_quota(overlay: str) -> None:
    hard = objects("ResourceQuota", overlay)["windsock-namespace"]["spec"]["hard"]
    assert data("windsock-settings", overlay)["WINDSOCK_GPUS"] == hard[GPU]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_airflow_is_told_where_the_store_and_mlflow_are(overlay: str) -> None:
    settings = data("windsock-settings", overlay)

    assert settings["WINDSOCK_COMPUTE"] == "kubernetes"
    assert settings["WINDSOCK_STORE"]
    service = objects("Service")["windsock-mlflow"]
    assert settings["MLFLOW_TRACKING_URI"] == f"http://windsock-mlflow:{service['spec']['ports'][0]['port']}"
    assert "windsock-mlflow:5000" in data("windsock-mlflow", overlay)["MLFLOW_SERVER_ALLOWED_HOSTS"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_mlflow_stands_behind_the_door_and_knows_where_people_come_from(overlay: str) -> None:
    (container,) = objects("Deployment")["windsock-mlflow"]["spec"]["template"]["spec"]["containers"]
    sources = {entry["name"]: entry["valueFrom"] for entry in container["env"]}
    airflow = yaml.safe_load(yaml.safe_load((REPO_ROOT / "docker/helm/values.yaml").read_text())["extraEnvFrom"])

    assert "windsock_mlflow.server" in container["args"]
    signs = sources["WINDSOCK_MLFLOW_SECRET"]["secretKeyRef"]["name"]
    assert signs in [source["secretRef"]["name"] for source in airflow if "secretRef" in source]
    assert sources["WINDSOCK_UI_URL"]["configMapKeyRef"] == {"name": "windsock-settings", "key": "WINDSOCK_UI_URL"}
    site = yaml.safe_load(data("windsock-compute", overlay)["compute.yaml"])
    assert signs not in site["env_from_secrets"], "step pods are given keys and sign none"
    mlflow, settings = data("windsock-mlflow", overlay), data("windsock-settings", overlay)
    assert settings["WINDSOCK_MLFLOW_URL"] in mlflow["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"].split(",")
    assert not [name for name in mlflow["MLFLOW_SERVER_ALLOWED_HOSTS"] if "*" in name]


# --- security


def test_no_manifest_holds_a_secret() -> None:
    assert not [path for path, document in everything() if document["kind"] == "Secret"]
    words = re.compile(r"(?i)(password|secret|token|_key)[\w-]*:\s*[\"']?[A-Za-z0-9+/=_-]{12,}")
    for path in KUBERNETES.rglob("*.yaml"):
        found = [line for line in path.read_text().splitlines() if words.search(line) and "secretKeyRef" not in line]
        assert not [line for line in found if not re.search(r"name: windsock-|[a-z]+=secrets/", line)], path


def test_no_role_reaches_secrets_exec_or_wildcards() -> None:
    assert not [document for _, document in everything() if document["kind"].startswith("ClusterRole")]
    for name, role in objects("Role").items():
        for rule in role["rules"]:
            assert set(rule["resources"]) <= {"pods", "pods/log", "events"}, name
            assert "*" not in rule["verbs"], name


def test_everything_is_denied_first_and_nothing_reaches_a_step() -> None:
    policies = {name: policy["spec"] for name, policy in objects("NetworkPolicy").items()}

    assert policies["windsock-default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert "Ingress" in policies["windsock-steps"]["policyTypes"]
    assert "ingress" not in policies["windsock-steps"]
    for name, spec in policies.items():
        for rule in spec.get("egress", []):
            assert rule["ports"], f"{name}: an egress rule without ports opens them all"
            blocks = [peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer]
            wide = [block for block in blocks if block["cidr"].endswith("/0")]
            assert all("169.254.0.0/16" in block["except"] for block in wide), f"{name}: reaches the metadata service"


def test_a_step_reaches_no_address_of_the_clusters_own_ranges() -> None:
    """By what the policies say: a plugin must enforce them."""
    private = {ipaddress.ip_network(n) for n in ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16")}
    step = {"app.kubernetes.io/part-of": "windsock", "windsock.io/step": "fit"}
    selecting = {
        name: policy["spec"]
        for name, policy in objects("NetworkPolicy").items()
        if _selects(policy["spec"]["podSelector"], step)
    }
    assert {"windsock-default-deny", "windsock-dns", "windsock-steps"} <= set(selecting)
    for name, spec in selecting.items():
        for block in (peer["ipBlock"] for rule in spec.get("egress", []) for peer in rule["to"] if "ipBlock" in peer):
            reached, left_out = ipaddress.ip_network(block["cidr"]), map(ipaddress.ip_network, block.get("except", []))
            if reached.prefixlen < 32:
                assert {n for n in private if n.overlaps(reached)} <= set(left_out), name


def _selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    rules = [{"key": k, "operator": "In", "values": [v]} for k, v in selector.get("matchLabels", {}).items()]
    for rule in (*rules, *selector.get("matchExpressions", [])):
        found = labels.get(rule["key"])
        holds = {
            "In": found in rule.get("values", []),
            "NotIn": found not in rule.get("values", []),
            "Exists": found is not None,
            "DoesNotExist": found is None,
        }
        if not holds[rule["operator"]]:
            return False
    return True


# --- the dev overlay's secrets


def test_the_dev_secrets_are_random_private_ignored_by_git_and_stay(tmp_path: Path) -> None:
    dev = tmp_path / "dev"
    shutil.copytree(KUBERNETES / "overlays" / "dev", dev, ignore=shutil.ignore_patterns("*.env", "*.json"))

    first = make_secrets(dev)
    again = make_secrets(dev)
    for name in first:
        (dev / "secrets" / name).unlink()
    other = make_secrets(dev)

    assert first == again
    assert first.keys() == other.keys()
    assert not set(first.values()) & set(other.values())
    generators = read(dev / "kustomization.yaml")[0]["secretGenerator"]
    wanted = {source.split("=")[-1] for g in generators for f in ("envs", "files") for source in g.get(f, [])}
    assert wanted == {f"secrets/{name}" for name in first}
    assert all(stat.S_IMODE((dev / "secrets" / name).stat().st_mode) == 0o600 for name in first)
    assert (KUBERNETES / "overlays" / "dev" / "secrets" / ".gitignore").read_text().split()[-2:] == ["*", "!.gitignore"]


def make_secrets(dev: Path) -> dict[str, str]:
    done = subprocess.run(
        [dev / "make-secrets.sh"], check=True, capture_output=True, text=True, env={"PATH": os.environ["PATH"]}
    )
    made = {path.name: path.read_text() for path in (dev / "secrets").iterdir() if path.name != ".gitignore"}
    for content in made.values():
        for value in re.findall(r"(?<=[=:])[0-9a-f]{24,}", content):
            assert value not in done.stdout + done.stderr
    return made
