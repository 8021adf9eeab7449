"""The pod's manifest: restricted, placed as asked, and free of secrets."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes.client import ApiClient

from windsock.compute import PodNeeds, SiteCompute, needs_of
from windsock_airflow.pods.manifest import pod_manifest


def needs(**site: Any) -> PodNeeds:
    from types import SimpleNamespace

    spec: Any = SimpleNamespace(name="fraud")
    return needs_of(spec, None, SiteCompute.model_validate({"step_image": "windsock/airflow:1", **site}))


def manifest(**site: Any) -> dict[str, Any]:
    pod = pod_manifest(
        needs(**site),
        name="n",
        labels={"a": "b"},
        annotations={},
        env={"X": "1"},
        arguments=["step"],
        deadline_seconds=60,
    )
    return ApiClient().sanitize_for_serialization(pod)


def container(**site: Any) -> dict[str, Any]:
    (only,) = manifest(**site)["spec"]["containers"]
    return only


def test_the_pod_keeps_the_restricted_standard():
    spec = manifest()["spec"]
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
    }
    assert (spec["automountServiceAccountToken"], spec["enableServiceLinks"]) == (False, False)
    assert (spec["restartPolicy"], spec["activeDeadlineSeconds"], spec["serviceAccountName"]) == (
        "Never",
        60,
        "windsock-step",
    )
    assert container()["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_memory_is_limited_to_what_is_asked_for_and_cores_are_not_limited_unless_the_site_says_so():
    assert container(cpu=1.5)["resources"] == {"requests": {"cpu": "1.5", "memory": "2Gi"}, "limits": {"memory": "2Gi"}}
    assert container(limit_cpu=True)["resources"]["limits"] == {"cpu": "1", "memory": "2Gi"}


def test_gpus_are_asked_for_and_several_get_shared_memory():
    one, two = manifest(gpu=1)["spec"], manifest(gpu=2, gpu_resource="amd.com/gpu")["spec"]
    assert one["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert two["containers"][0]["resources"]["requests"]["amd.com/gpu"] == "2"
    mounts = [{m["mountPath"] for m in spec["containers"][0]["volumeMounts"]} for spec in (one, two)]
    assert mounts == [{"/tmp"}, {"/tmp", "/dev/shm"}]
    assert one["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def test_secrets_come_by_reference_only_and_plain_values_of_the_site_go_before_ours():
    found = container(env_from_secrets=["windsock-store"], env_from_config_maps=["more"], env={"X": "2", "Y": "3"})
    assert found["envFrom"] == [{"configMapRef": {"name": "more"}}, {"secretRef": {"name": "windsock-store"}}]
    values = {e["name"]: e["value"] for e in found["env"]}
    assert values == {"HOME": "/tmp", "OMP_WAIT_POLICY": "passive", "X": "2", "Y": "3"}


@pytest.mark.parametrize(
    ("source", "written"),
    [
        ({"claim": "c"}, {"persistentVolumeClaim": {"claimName": "c"}}),
        ({"host_path": "/h"}, {"hostPath": {"path": "/h", "type": "Directory"}}),
        ({"config_map": "c"}, {"configMap": {"name": "c"}}),
        ({"secret": "s"}, {"secret": {"secretName": "s"}}),
    ],
)
def test_volumes_come_from_claims_folders_config_maps_and_secrets(source: dict[str, str], written: dict[str, Any]):
    spec = manifest(volumes=[{"name": "v", "mount": "/v", "read_only": True, **source}])["spec"]
    volume = spec["volumes"][-1]
    assert volume["name"] == "v"
    assert written.items() <= {**volume, "persistentVolumeClaim": _without_mode(volume)}.items()
    assert spec["containers"][0]["volumeMounts"][-1] == {"name": "v", "mountPath": "/v", "readOnly": True}


def _without_mode(volume: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in volume.get("persistentVolumeClaim", {}).items() if k != "readOnly"}


@pytest.mark.parametrize(
    ("spot", "rule"),
    [
        ("never", "requiredDuringSchedulingIgnoredDuringExecution"),
        ("prefer", "preferredDuringSchedulingIgnoredDuringExecution"),
        ("require", "requiredDuringSchedulingIgnoredDuringExecution"),
    ],
)
def test_spot_nodes_are_avoided_preferred_or_required(spot: str, rule: str):
    tolerations = [{"key": "spot", "operator": "Exists"}]
    spec = manifest(spot=spot, spot_label={"key": "spot", "value": "yes"}, spot_tolerations=tolerations)["spec"]
    affinity = spec["affinity"]["nodeAffinity"]
    assert set(affinity) == {rule}
    operator = "NotIn" if spot == "never" else "In"
    assert f"'operator': '{operator}', 'values': ['yes']" in str(affinity)
    assert ("tolerations" in spec) == (spot != "never")
    assert "affinity" not in manifest()["spec"]
