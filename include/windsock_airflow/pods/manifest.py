"""A pod's manifest: needs and work in, a restricted pod out.

It keeps the *restricted* pod security standard and gives the container nothing that it
did not ask for: no service-account token, no root, no writable root file system, no
capabilities; secrets only by reference. Memory is limited to what is asked for, as a pod
that takes more would take it from its neighbours. Cores are asked for but not limited
(unless the site says so): spare cores would else lie idle, and throttling slows training
for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kubernetes.client import models as k8s

from windsock.compute.needs import PodNeeds
from windsock.compute.site import Volume
from windsock.spec.compute import Toleration

CONTAINER = "base"
_SCRATCH, _SHARED = "windsock-scratch", "windsock-shared"


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
) -> k8s.V1Pod:
    """Return the pod that runs one command with these needs.

    Args:
        needs: Image, resources, placement, security.
        name: The pod's name.
        labels: Beside those of the needs, which give way.
        annotations: As they are.
        env: Plain values; they give way to the site's, and secrets have no place here.
        command: Instead of the image's entrypoint.
        arguments: Of the command or entrypoint.
        deadline_seconds: After which the cluster ends the pod.
    """
    values = {"HOME": "/tmp", "OMP_WAIT_POLICY": "passive", **env, **needs.env}
    container = k8s.V1Container(
        name=CONTAINER,
        image=needs.image,
        image_pull_policy=needs.image_pull_policy,
        command=list(command) or None,
        args=list(arguments) or None,
        env=[k8s.V1EnvVar(name=key, value=value) for key, value in sorted(values.items())],
        env_from=_env_from(needs),
        resources=_resources(needs),
        volume_mounts=_mounts(needs),
        termination_message_policy="FallbackToLogsOnError",
        security_context=k8s.V1SecurityContext(
            allow_privilege_escalation=False,
            capabilities=k8s.V1Capabilities(drop=["ALL"]),
            privileged=False,
            read_only_root_filesystem=True,
            run_as_non_root=True,
        ),
    )
    return k8s.V1Pod(
        api_version="v1",
        kind="Pod",
        metadata=k8s.V1ObjectMeta(
            name=name,
            namespace=needs.namespace,
            labels={**needs.labels, **labels},
            annotations=dict(annotations),
        ),
        spec=k8s.V1PodSpec(
            containers=[container],
            restart_policy="Never",
            service_account_name=needs.service_account,
            automount_service_account_token=False,
            enable_service_links=False,
            image_pull_secrets=[k8s.V1LocalObjectReference(name=s) for s in needs.image_pull_secrets] or None,
            node_selector=dict(needs.node_selector) or None,
            affinity=_affinity(needs),
            tolerations=[_toleration(t) for t in needs.tolerations] or None,
            priority_class_name=needs.priority_class,
            active_deadline_seconds=deadline_seconds,
            termination_grace_period_seconds=needs.termination_grace_seconds,
            volumes=_volumes(needs),
            security_context=k8s.V1PodSecurityContext(
                run_as_non_root=True,
                run_as_user=needs.run_as.user,
                run_as_group=needs.run_as.group,
                fs_group=needs.run_as.fs_group,
                # Without it, each start would walk through the whole store to change its owner.
                fs_group_change_policy="OnRootMismatch" if needs.run_as.fs_group else None,
                seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
            ),
        ),
    )


def _resources(needs: PodNeeds) -> k8s.V1ResourceRequirements:
    requests, limits = {"cpu": f"{needs.cpu:g}", "memory": needs.memory}, {"memory": needs.memory}
    if needs.limit_cpu:
        limits["cpu"] = f"{needs.cpu:g}"
    if needs.gpu:
        requests[needs.gpu_resource] = limits[needs.gpu_resource] = str(needs.gpu)
    return k8s.V1ResourceRequirements(requests=requests, limits=limits)


def _env_from(needs: PodNeeds) -> list[k8s.V1EnvFromSource] | None:
    maps = [k8s.V1EnvFromSource(config_map_ref=k8s.V1ConfigMapEnvSource(name=n)) for n in needs.env_from_config_maps]
    secrets = [k8s.V1EnvFromSource(secret_ref=k8s.V1SecretEnvSource(name=n)) for n in needs.env_from_secrets]
    return [*maps, *secrets] or None


def _volumes(needs: PodNeeds) -> list[k8s.V1Volume]:
    volumes = [k8s.V1Volume(name=_SCRATCH, empty_dir=k8s.V1EmptyDirVolumeSource(size_limit=needs.scratch))]
    if needs.gpu > 1:  # torch's processes exchange data through shared memory; a container's own has 64 MiB
        memory = k8s.V1EmptyDirVolumeSource(medium="Memory", size_limit=needs.shared_memory)
        volumes.append(k8s.V1Volume(name=_SHARED, empty_dir=memory))
    return [*volumes, *(_volume(v) for v in needs.volumes)]


def _volume(volume: Volume) -> k8s.V1Volume:
    return k8s.V1Volume(
        name=volume.name,
        persistent_volume_claim=volume.claim
        and k8s.V1PersistentVolumeClaimVolumeSource(claim_name=volume.claim, read_only=volume.read_only or None),
        host_path=volume.host_path and k8s.V1HostPathVolumeSource(path=volume.host_path, type="Directory"),
        config_map=volume.config_map and k8s.V1ConfigMapVolumeSource(name=volume.config_map),
        secret=volume.secret and k8s.V1SecretVolumeSource(secret_name=volume.secret),
    )


def _mounts(needs: PodNeeds) -> list[k8s.V1VolumeMount]:
    mounts = [k8s.V1VolumeMount(name=_SCRATCH, mount_path="/tmp")]
    if needs.gpu > 1:
        mounts.append(k8s.V1VolumeMount(name=_SHARED, mount_path="/dev/shm"))
    named = [k8s.V1VolumeMount(name=v.name, mount_path=v.mount, read_only=v.read_only or None) for v in needs.volumes]
    return [*mounts, *named]


def _toleration(toleration: Toleration) -> k8s.V1Toleration:
    return k8s.V1Toleration(
        key=toleration.key,
        operator=toleration.operator,
        value=toleration.value,
        effect=toleration.effect,
        toleration_seconds=toleration.seconds,
    )


def _affinity(needs: PodNeeds) -> k8s.V1Affinity | None:
    """Say how the pod stands to spot nodes, as far as the site says which nodes these are."""
    label = needs.spot_label
    if label is None:
        return None
    wanted = needs.spot != "never"
    expression = k8s.V1NodeSelectorRequirement(
        key=label.key, operator="In" if wanted else "NotIn", values=[label.value]
    )
    term = k8s.V1NodeSelectorTerm(match_expressions=[expression])
    if needs.spot == "prefer":
        preferred = k8s.V1PreferredSchedulingTerm(weight=100, preference=term)
        node = k8s.V1NodeAffinity(preferred_during_scheduling_ignored_during_execution=[preferred])
    else:
        required = k8s.V1NodeSelector(node_selector_terms=[term])
        node = k8s.V1NodeAffinity(required_during_scheduling_ignored_during_execution=required)
    return k8s.V1Affinity(node_affinity=node)
