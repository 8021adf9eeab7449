"""A pod's manifest: needs and work in, a restricted pod out.

It keeps the *restricted* pod security standard: no service-account token, no root, no writable root file system, no
capabilities; secrets only by reference. Memory is limited to what is asked for, as a pod that takes more would take it
from its neighbours. Cores are asked for but not limited (unless the site says so): spare cores would else lie idle.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from kubernetes.client import V1Pod

from windsock.compute import PodNeeds, Volume

CONTAINER = "base"


def pod_manifest(
    needs: PodNeeds,
    *,
    name: str,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    env: Mapping[str, str],
    command: Sequence[str] = (),
    arguments: Sequence[str] = (),
    deadline_seconds: int | None = None,
) -> V1Pod:
    """Return the pod that runs one command with these needs.

    The site's labels give way to ``labels``, the values of ``env`` to the site's; secrets have no place in it.
    Without a ``command`` the image's entrypoint gets the ``arguments``.
    """
    values = {"HOME": "/tmp", "OMP_WAIT_POLICY": "passive", **env, **needs.env}
    mounted = [*_scratch_volumes(needs), *(_site_volume(v) for v in needs.volumes)]
    container = {
        "name": CONTAINER,
        "image": needs.image,
        "imagePullPolicy": needs.image_pull_policy,
        "command": list(command) or None,
        "args": list(arguments) or None,
        "env": [{"name": key, "value": value} for key, value in sorted(values.items())],
        "envFrom": [
            *({"configMapRef": {"name": name}} for name in needs.env_from_config_maps),
            *({"secretRef": {"name": name}} for name in needs.env_from_secrets),
        ],
        "resources": _resources(needs),
        "volumeMounts": [{"name": volume["name"], **mount} for volume, mount in mounted],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
        },
    }
    spec = {
        "containers": [container],
        "restartPolicy": "Never",
        "serviceAccountName": needs.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "imagePullSecrets": [{"name": name} for name in needs.image_pull_secrets] or None,
        "nodeSelector": dict(needs.node_selector) or None,
        "affinity": _affinity(needs),
        "tolerations": [t.model_dump(exclude={"seconds"}) | {"tolerationSeconds": t.seconds} for t in needs.tolerations]
        or None,
        "priorityClassName": needs.priority_class,
        "activeDeadlineSeconds": deadline_seconds,
        "terminationGracePeriodSeconds": needs.termination_grace_seconds,
        "volumes": [volume for volume, _ in mounted],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": needs.run_as.user,
            "runAsGroup": needs.run_as.group,
            "fsGroup": needs.run_as.fs_group,
            # Without it, each start would walk through the whole store to change its owner.
            "fsGroupChangePolicy": "OnRootMismatch" if needs.run_as.fs_group else None,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    metadata = {
        "name": name,
        "namespace": needs.namespace,
        "labels": {**needs.labels, **labels},
        "annotations": dict(annotations),
    }
    return PodGenerator.deserialize_model_dict({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


def _resources(needs: PodNeeds) -> dict[str, dict[str, str]]:
    requests, limits = {"cpu": f"{needs.cpu:g}", "memory": needs.memory}, {"memory": needs.memory}
    if needs.limit_cpu:
        limits["cpu"] = f"{needs.cpu:g}"
    if needs.gpu:
        requests[needs.gpu_resource] = limits[needs.gpu_resource] = str(needs.gpu)
    return {"requests": requests, "limits": limits}


def _scratch_volumes(needs: PodNeeds) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    scratch = {"name": "windsock-scratch", "emptyDir": {"sizeLimit": needs.scratch}}
    volumes: list[tuple[dict[str, Any], dict[str, Any]]] = [(scratch, {"mountPath": "/tmp"})]
    if needs.gpu > 1:  # torch's processes exchange data through shared memory; a container's own has 64 MiB
        memory = {"name": "windsock-shared", "emptyDir": {"medium": "Memory", "sizeLimit": needs.shared_memory}}
        volumes.append((memory, {"mountPath": "/dev/shm"}))
    return volumes


def _site_volume(volume: Volume) -> tuple[dict[str, Any], dict[str, Any]]:
    read_only = volume.read_only or None
    source: dict[str, Any]
    if volume.claim is not None:
        source = {"persistentVolumeClaim": {"claimName": volume.claim, "readOnly": read_only}}
    elif volume.host_path is not None:
        source = {"hostPath": {"path": volume.host_path, "type": "Directory"}}
    elif volume.config_map is not None:
        source = {"configMap": {"name": volume.config_map}}
    else:
        source = {"secret": {"secretName": volume.secret}}
    return {"name": volume.name, **source}, {"mountPath": volume.mount, "readOnly": read_only}


def _affinity(needs: PodNeeds) -> dict[str, Any] | None:
    """Say how the pod stands to spot nodes, as far as the site says which nodes these are."""
    label = needs.spot_label
    if label is None:
        return None
    operator = "NotIn" if needs.spot == "never" else "In"
    term = {"matchExpressions": [{"key": label.key, "operator": operator, "values": [label.value]}]}
    if needs.spot == "prefer":
        preferred = [{"weight": 100, "preference": term}]
        return {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    required = {"nodeSelectorTerms": [term]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
