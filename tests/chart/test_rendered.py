"""What comes out of Airflow's official chart with our values, checked by the chart's own schema on the way."""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from kubernetes.utils.quantity import parse_quantity

from chart import HelmError, Render, Rendered
from windsock.settings import REPO_ROOT

KUBERNETES = REPO_ROOT / "docker" / "kubernetes"
CHECKOUT = "/opt/airflow/dags/repo"
REPO = "https://git.example.org/us/windsock.git"


@pytest.fixture(params=["dev", "production"])
def images_only(render: Render, request: pytest.FixtureRequest) -> Rendered:
    return render("values.yaml", f"values-{request.param}.yaml")


@pytest.fixture(params=["dev", "production"])
def from_git(render: Render, request: pytest.FixtureRequest) -> Rendered:
    return render("values.yaml", f"values-{request.param}.yaml", "values-git.yaml", repo=REPO)


WARM, IN_PODS = "", "KubernetesExecutor"
"""The executor of the values, and the one that a site may prefer."""


@pytest.fixture(
    params=[
        *((site, git, WARM) for site in ("dev", "production") for git in (False, True)),
        ("dev", False, IN_PODS),
        ("production", True, IN_PODS),
    ],
    ids=str,
)
def rendered(render: Render, request: pytest.FixtureRequest) -> Rendered:
    site, git, executor = request.param
    files = ("values.yaml", f"values-{site}.yaml", *(["values-git.yaml"] if git else []))
    return render(*files, repo=REPO if git else "", executor=executor)


def config_of(rendered: Rendered) -> configparser.ConfigParser:
    config = configparser.ConfigParser(interpolation=None, strict=False)
    config.read_string(rendered.of_kind("ConfigMap")["airflow-config"]["data"]["airflow.cfg"])
    return config


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*(pod.get("initContainers") or []), *pod["containers"]]


def reads_settings(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the containers that get Windsock's settings."""
    settings = {"configMapRef": {"name": "windsock-settings"}}
    return [container for container in pod["containers"] if settings in container.get("envFrom", [])]


def documents(path: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all((KUBERNETES / path).read_text()) if document]


def settings_of(path: str) -> dict[str, str]:
    (found,) = (d["data"] for d in documents(path) if d["metadata"]["name"] == "windsock-settings")
    return dict(found)


def test_the_chart_warns_of_nothing(rendered: Rendered) -> None:
    assert "airflow" in rendered.notes.lower()
    assert "DEPRECATION" not in rendered.notes


def references(found: Any) -> Iterator[dict[str, Any]]:
    """Yield each reference to a Secret: of a variable, of many, of a volume."""
    if isinstance(found, dict):
        for key, value in found.items():
            if key in ("secretKeyRef", "secretRef", "secret") and isinstance(value, dict):
                yield value
            yield from references(value)
    elif isinstance(found, list):
        for each in found:
            yield from references(each)


def test_a_secret_that_the_document_calls_optional_keeps_no_part_from_starting(rendered: Rendered) -> None:
    document = (REPO_ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    optional = set(re.findall(r"^\| `([\w-]+)` \(optional\) \|", document, flags=re.MULTILINE))
    met = set()
    for name, pod in rendered.pods().items():
        for reference in references(pod):
            secret = reference.get("name") or reference.get("secretName")
            if secret in optional:
                met.add(secret)
                assert reference.get("optional"), f"{name} does not start without {secret}"
    assert met == optional == {"windsock-alerts", "windsock-metrics"}


def test_a_first_installation_runs_the_images_dags_and_asks_no_git(images_only: Rendered) -> None:
    pods = images_only.pods()
    assert len(pods) == 5
    for name, pod in pods.items():
        assert not [c["name"] for c in containers(pod) if "git" in c["image"]], name
        mounted = {mount["mountPath"] for c in containers(pod) for mount in c.get("volumeMounts", [])}
        assert "/opt/airflow/dags" not in mounted, f"{name}: what is mounted there hides the image's DAGs"
    settings = settings_of("base/settings.yaml")
    # Unset, each of them is the image's own folder.
    assert not {"WINDSOCK_MODELS", "WINDSOCK_FEATURE_REPO", "WINDSOCK_GX_ROOT"} & settings.keys()


def test_from_git_every_part_has_the_checkout_that_the_settings_name(from_git: Rendered) -> None:
    named = settings_of("components/git/settings.yaml")
    for name, of_repository in (
        ("WINDSOCK_MODELS", "include/models"),
        ("WINDSOCK_FEATURE_REPO", "feature_repo"),
        ("WINDSOCK_GX_ROOT", "great_expectations"),
    ):
        assert named[name] == f"{CHECKOUT}/{of_repository}"
        assert (REPO_ROOT / of_repository).is_dir()
    pods = {name: pod for name, pod in from_git.pods().items() if "migration" not in name}
    assert len(pods) == 4
    for name, pod in pods.items():
        assert reads_settings(pod), name
        for container in reads_settings(pod):
            (volume,) = (m["name"] for m in container["volumeMounts"] if m["mountPath"] == "/opt/airflow/dags")
            filled_by = [
                {e["name"]: e.get("value") for e in c["env"]}
                for c in containers(pod)
                if "git-sync" in c["image"]
                and (volume, "/git") in {(m["name"], m["mountPath"]) for m in c["volumeMounts"]}
            ]
            assert filled_by, f"{name}: nothing fills {volume}"
            assert {(e["GITSYNC_REPO"], e["GITSYNC_REF"], e["GITSYNC_LINK"]) for e in filled_by} == {
                (REPO, "production", "repo")
            }


def test_whoever_names_no_repository_of_their_own_is_asked_for_it(render: Render) -> None:
    with pytest.raises(HelmError, match=r"Set dags\.gitSync\.repo to your own repository"):
        render("values.yaml", "values-dev.yaml", "values-git.yaml")


def test_the_development_installation_with_a_training_fits_two_cores(render: Render) -> None:
    asked = [
        container["resources"]["requests"]
        for pod in render("values.yaml", "values-dev.yaml").pods().values()
        for container in pod["containers"]
    ]
    patches = documents("overlays/dev/kustomization.yaml")[0]["patches"]
    (mlflow,) = (
        operation["value"]
        for patch in patches
        if "patch" in patch
        for operation in yaml.safe_load(patch["patch"])
        if operation["path"].endswith("/resources/requests")
    )
    (postgresql,) = (d for d in documents("overlays/dev/postgresql.yaml") if d["kind"] == "StatefulSet")
    database = postgresql["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
    site = yaml.safe_load(documents("overlays/dev/compute.yaml")[0]["data"]["compute.yaml"])
    asked += [mlflow, database, {"cpu": str(site["cpu"]), "memory": site["memory"]}]

    # docs/deploy.md promises two cores and 8 GB; the cluster's own parts need some of both.
    assert sum(float(parse_quantity(a["cpu"])) for a in asked) <= 1.6
    assert sum(float(parse_quantity(a["memory"])) for a in asked) <= 7 * 2**30


def test_no_part_is_killed_because_a_busy_node_is_slow(rendered: Rendered) -> None:
    probed = 0
    for name, pod in rendered.pods().items():
        for container in pod["containers"]:
            probe = container.get("livenessProbe")
            if probe is not None and "exec" in probe:
                probed += 1
                assert probe["timeoutSeconds"] >= 60, f"{name}: {container['name']}"
                # Airflow's own check is a start of Airflow, seconds of CPU.
                assert "airflow jobs" not in str(probe) or probe["periodSeconds"] >= 180
    assert probed == 3


def test_pods_get_no_service_links_and_nobody_an_account_without_a_use(rendered: Rendered) -> None:
    assert {
        name: pod["enableServiceLinks"] for name, pod in rendered.pods().items() if pod.get("enableServiceLinks", True)
    } == {}
    accounts = rendered.of_kind("ServiceAccount")
    used = {pod["serviceAccountName"] for pod in rendered.pods().values()}
    assert accounts.keys() <= used


def test_daily_steps_run_in_the_scheduler_which_is_no_stateful_set_and_may_end_what_runs(render: Render) -> None:
    for site in ("dev", "production"):
        chart = render("values.yaml", f"values-{site}.yaml")
        assert config_of(chart)["core"]["executor"] == "windsock_airflow.warm_executor.WarmLocalExecutor"
        assert "worker" not in chart.pods()
        (scheduler,) = (d for name, d in chart.of_kind("Deployment").items() if name.endswith("scheduler"))
        assert scheduler["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= 300
        # Each scheduler has so many processes; an idle one has some MB of its own.
        assert int(config_of(chart)["core"]["parallelism"]) <= 16


def test_workers_that_are_gone_are_noticed_soon_and_leave_no_pods(rendered: Rendered) -> None:
    config = config_of(rendered)
    assert int(config["scheduler"]["task_instance_heartbeat_timeout"]) <= 90
    assert int(config["workers"]["missing_dag_retries"]) >= 100, "each wait of a step uses one up"
    for key in ("delete_worker_pods", "delete_worker_pods_on_failure"):
        assert config.getboolean("kubernetes_executor", key)
