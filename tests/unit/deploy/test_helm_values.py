"""What Windsock relies on in the values for Airflow's chart; the chart's own schema checks the rest in CI."""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest
import yaml

from windsock.settings import REPO_ROOT

HELM = REPO_ROOT / "docker" / "helm"
BASE = REPO_ROOT / "docker" / "kubernetes" / "base"
PARTS = ("scheduler", "apiServer", "dagProcessor", "triggerer", "migrateDatabaseJob")


def merged(below: Any, above: Any) -> Any:
    """Merge values as Helm does: mappings by key, everything else whole."""
    if isinstance(below, dict) and isinstance(above, dict):
        keys = below.keys() | above.keys()
        return {
            k: merged(below[k], above[k]) if k in below and k in above else above.get(k, below.get(k)) for k in keys
        }
    return above


@functools.cache
def values(site: str | None = None) -> dict[str, Any]:
    found = yaml.safe_load((HELM / "values.yaml").read_text())
    return merged(found, yaml.safe_load((HELM / f"values-{site}.yaml").read_text())) if site else found


def locked(package: str) -> str:
    lock = (REPO_ROOT / "requirements.txt").read_text()
    return re.search(rf"(?m)^{re.escape(package)}==(\S+)", lock)[1]  # type: ignore[index]


@pytest.fixture(params=[None, "dev", "production"], ids=["common", "dev", "production"])
def site_values(request: pytest.FixtureRequest) -> dict[str, Any]:
    return values(request.param)


def test_the_chart_is_told_which_airflow_the_image_holds() -> None:
    assert values()["airflowVersion"] == locked("apache-airflow")


def test_accounts_and_rights_come_from_the_manifests(site_values: dict[str, Any]) -> None:
    made = {d["metadata"]["name"] for d in yaml.safe_load_all((BASE / "service-accounts.yaml").read_text()) if d}
    accounts = {part: site_values[part]["serviceAccount"] for part in PARTS}
    accounts["workers"] = site_values["workers"]["kubernetes"]["serviceAccount"]

    assert site_values["rbac"]["create"] is False
    for part in ("scheduler", "triggerer", "workers"):
        assert accounts[part] == {"create": False, "name": "windsock-airflow"}
    assert accounts["apiServer"] == {"create": False, "name": "windsock-airflow-api"}
    assert {"windsock-airflow", "windsock-airflow-api"} <= made
    for part in ("dagProcessor", "migrateDatabaseJob"):
        assert accounts[part]["automountServiceAccountToken"] is False, "it never calls Kubernetes"


def test_secrets_are_named_and_never_written() -> None:
    named = values()
    assert named["data"] == {"metadataSecretName": "windsock-airflow-database"}
    assert {named[f"{key}SecretName"] for key in ("fernetKey", "apiSecretKey")} == {"windsock-airflow-keys"}
    assert named["jwtSecretName"] == "windsock-airflow-keys"
    text = "".join(path.read_text() for path in HELM.glob("*.yaml"))
    assert not re.search(r"(?i)(fernetKey|apiSecretKey|jwtSecret|password|pass): *[^\s{]", text)


def test_settings_and_the_site_file_reach_every_container(site_values: dict[str, Any]) -> None:
    sources = yaml.safe_load(site_values["extraEnvFrom"])
    settings = {d["metadata"]["name"]: d for d in yaml.safe_load_all((BASE / "settings.yaml").read_text()) if d}
    file = settings["windsock-settings"]["data"]["WINDSOCK_COMPUTE_FILE"]
    mounts = {mount["name"]: mount["mountPath"] for mount in site_values["volumeMounts"]}

    assert {"configMapRef": {"name": "windsock-settings"}} in sources
    assert mounts["windsock-compute"] == file.rpartition("/")[0]
    assert mounts["windsock-home"] == "/var/lib/windsock"
    assert mounts["tmp"] == "/tmp", "the root file system is read-only"
    assert mounts.keys() == {volume["name"] for volume in site_values["volumes"]}


def test_production_pins_the_pods_of_tasks_too() -> None:
    production = values("production")
    digest = production["images"]["airflow"]["digest"]
    template = production["images"]["pod_template"]
    executor = production["config"]["kubernetes_executor"]

    assert re.fullmatch(r"sha256:[0-9a-f]{64}", digest)
    assert f"{template['repository']}:{template['tag']}".endswith(f"@{digest}")
    assert f"{executor['worker_container_repository']}:{executor['worker_container_tag']}".endswith(f"@{digest}")
    assert production["images"]["airflow"]["repository"] in template["repository"]
