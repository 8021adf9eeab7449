"""A model's wishes over the site's defaults: what one pod of one step gets."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Literal

from pydantic import Field

from windsock.compute.memory import in_bytes, quantity
from windsock.compute.site import RunAs, SiteCompute, SpotLabel, Volume
from windsock.errors import SpecError
from windsock.spec.base import Part
from windsock.spec.compute import ComputeSpec, Toleration
from windsock.spec.estimators import Estimator
from windsock.spec.model_spec import ModelSpec
from windsock.store import Store

_LIMIT_TIMES = 4


class PodNeeds(Part):
    """Everything a pod's manifest is made from, but what runs in it."""

    namespace: str
    image: str
    image_pull_policy: str
    image_pull_secrets: tuple[str, ...]
    service_account: str
    kubernetes_conn_id: str
    deferrable: bool
    pool: str
    wait_minutes: int

    cpu: float
    limit_cpu: bool
    memory: str
    memory_limit: str
    memory_growth: float
    shared_memory: str
    scratch: str
    gpu: int
    gpu_resource: str

    node_selector: dict[str, str]
    tolerations: tuple[Toleration, ...]
    priority_class: str | None
    spot: Literal["never", "prefer", "require"]
    spot_label: SpotLabel | None

    labels: dict[str, str]
    env: dict[str, str]
    env_from_secrets: tuple[str, ...]
    env_from_config_maps: tuple[str, ...]
    volumes: tuple[Volume, ...]

    run_as: RunAs
    termination_grace_seconds: int
    keep_failed_pods: bool = Field(description="Whether failed pods stay to be looked at.")

    @property
    def threads(self) -> int:
        """Threads that calculations may use: whole cores, at least one."""
        return max(1, int(self.cpu))


def needs_of(spec: ModelSpec, estimator: Estimator | None, site: SiteCompute) -> PodNeeds:
    """Return what a step's pod gets.

    Args:
        spec: The model.
        estimator: Whose trainer runs in the pod; None for a step of the whole model,
            which runs in the site's ``step_image``.
        site: The defaults.

    Raises:
        SpecError: The wishes contradict each other or this site cannot meet them.
    """
    asked = ComputeSpec() if estimator is None else estimator.compute
    place = f"Model {spec.name}" if estimator is None else f"Model {spec.name}, estimator {estimator.name}"
    gpu = site.gpu if asked.gpu is None else asked.gpu
    spot = asked.spot or site.spot
    memory, limit = _memory(place, asked, site)
    if site.gpus is not None and gpu > site.gpus:
        # Airflow would let it wait for slots for ever, and say nothing.
        raise SpecError(
            f"{place}: asks for {gpu} GPUs, but Airflow's pool {site.pool!r} has {site.gpus}. Ask for fewer "
            "(compute.gpu), or set WINDSOCK_GPUS and the pool to the cluster's number of GPUs: "
            f"airflow pools set --include-deferred {site.pool} <GPUs> 'GPUs of the cluster'."
        )
    if spot != "never" and site.spot_label is None:
        raise SpecError(
            f"{place}: compute.spot is {spot}, but the site does not say how spot nodes are told. "
            "Set spot_label (key and value) in the file that WINDSOCK_COMPUTE_FILE names."
        )
    for key, value in asked.node_selector.items():
        if (
            site.spot_label is not None
            and spot == "never"
            and (key, value) == (site.spot_label.key, site.spot_label.value)
        ):
            raise SpecError(f"{place}: node_selector asks for spot nodes ({key}: {value}); set compute.spot: require.")
    return PodNeeds(
        namespace=asked.namespace or site.namespace,
        image=_image(place, asked, estimator, site),
        service_account=asked.service_account or site.service_account,
        cpu=asked.cpu or site.cpu,
        memory=memory,
        memory_limit=limit,
        gpu=gpu,
        spot=spot,
        priority_class=asked.priority_class or site.priority_class,
        wait_minutes=asked.wait_minutes or site.wait_minutes,
        node_selector={**site.node_selector, **(site.gpu_node_selector if gpu else {}), **asked.node_selector},
        tolerations=_each_once(
            *site.tolerations,
            *(site.gpu_tolerations if gpu else ()),
            *(site.spot_tolerations if spot != "never" else ()),
            *asked.tolerations,
        ),
        labels={**site.labels, **asked.labels},
        **{
            name: getattr(site, name)
            for name in (
                *("image_pull_policy", "image_pull_secrets", "kubernetes_conn_id", "deferrable", "pool"),
                *("limit_cpu", "memory_growth", "shared_memory", "scratch", "gpu_resource", "spot_label", "env"),
                *("env_from_secrets", "env_from_config_maps", "volumes", "run_as", "termination_grace_seconds"),
                "keep_failed_pods",
            )
        },
    )


def check_store_is_mounted(store: Store, needs: PodNeeds) -> None:
    """Make sure that pods see the store under the address that Airflow has for it.

    Raises:
        SpecError: The store is a folder of this machine that no volume brings into the pod.
    """
    if not store.is_local:
        return
    root = PurePosixPath(store.url())
    mounts = [PurePosixPath(v.mount) for v in needs.volumes if not v.read_only]
    if not any(root.is_relative_to(mount) for mount in mounts):
        raise SpecError(
            f"The store {root} is a folder of this machine, and pods would not see it. Either set WINDSOCK_STORE to an "
            f"object store (s3://bucket/folder), or mount the folder in pods under the same path: in the file that "
            f"WINDSOCK_COMPUTE_FILE names, add to volumes: {{name: store, mount: {root}, claim: <a "
            "PersistentVolumeClaim that Airflow mounts there too>}."
        )


def _memory(place: str, asked: ComputeSpec, site: SiteCompute) -> tuple[str, str]:
    memory = asked.memory or site.memory
    # A limit goes with the memory it was written for: the site's does not bind a model that asks for more.
    limit = asked.memory_limit or (site.memory_limit if asked.memory is None else None)
    if limit is None:
        return memory, quantity(in_bytes(memory) * _LIMIT_TIMES)
    if in_bytes(limit) < in_bytes(memory):
        raise SpecError(
            f"{place}: compute.memory_limit {limit} is below compute.memory {memory}. Raise it or leave it out."
        )
    return memory, limit


def _image(place: str, asked: ComputeSpec, estimator: Estimator | None, site: SiteCompute) -> str:
    if estimator is not None:
        return asked.image or site.trainer_image
    if site.step_image is None:
        raise SpecError(
            f"{place}: this site names no step_image (an image with all of Windsock), so only training runs in pods. "
            "Set it in the file that WINDSOCK_COMPUTE_FILE names."
        )
    return site.step_image


def _each_once(*tolerations: Toleration) -> tuple[Toleration, ...]:
    kept: list[Toleration] = []
    for toleration in tolerations:
        if toleration not in kept:
            kept.append(toleration)
    return tuple(kept)
