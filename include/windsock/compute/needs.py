"""A model's wishes over the site's defaults: what one pod of one step gets."""

from pathlib import PurePosixPath

from windsock.compute.memory import in_bytes, quantity
from windsock.compute.site import PodCompute, SiteCompute
from windsock.errors import SpecError
from windsock.spec.compute import ComputeSpec, Toleration
from windsock.spec.estimators import Estimator
from windsock.spec.model_spec import ModelSpec
from windsock.store import Store

_LIMIT_TIMES = 4


class PodNeeds(PodCompute):
    """Everything a pod's manifest is made from, but what runs in it."""

    image: str
    memory_limit: str

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
    owner = f"Model {spec.name}" if estimator is None else f"Model {spec.name}, estimator {estimator.name}"
    gpu = site.gpu if asked.gpu is None else asked.gpu
    spot = asked.spot or site.spot
    memory, limit = _memory(owner, asked, site)
    if site.gpus is not None and gpu > site.gpus:
        # Airflow would let it wait for slots for ever, and say nothing.
        raise SpecError(
            f"{owner}: asks for {gpu} GPUs, but Airflow's pool {site.pool!r} has {site.gpus}. Ask for fewer "
            "(compute.gpu), or set WINDSOCK_GPUS and the pool to the cluster's number of GPUs: "
            f"airflow pools set --include-deferred {site.pool} <GPUs> 'GPUs of the cluster'."
        )
    if spot != "never" and site.spot_label is None:
        raise SpecError(
            f"{owner}: compute.spot is {spot}, but the site does not say how spot nodes are told. "
            "Set spot_label (key and value) in the file that WINDSOCK_COMPUTE_FILE names."
        )
    for key, value in asked.node_selector.items():
        if (
            site.spot_label is not None
            and spot == "never"
            and (key, value) == (site.spot_label.key, site.spot_label.value)
        ):
            raise SpecError(f"{owner}: node_selector asks for spot nodes ({key}: {value}); set compute.spot: require.")
    wishes = {
        "namespace": asked.namespace,
        "service_account": asked.service_account,
        "cpu": asked.cpu,
        "priority_class": asked.priority_class,
        "wait_minutes": asked.wait_minutes,
    }
    return PodNeeds(
        **{name: getattr(site, name) for name in PodCompute.model_fields}
        | {name: value for name, value in wishes.items() if value is not None}
        | {
            "image": _image(owner, asked, estimator, site),
            "memory": memory,
            "memory_limit": limit,
            "gpu": gpu,
            "spot": spot,
            "labels": {**site.labels, **asked.labels},
            "node_selector": {**site.node_selector, **(site.gpu_node_selector if gpu else {}), **asked.node_selector},
            "tolerations": _each_once(
                *site.tolerations,
                *(site.gpu_tolerations if gpu else ()),
                *(site.spot_tolerations if spot != "never" else ()),
                *asked.tolerations,
            ),
        }
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


def _memory(owner: str, asked: ComputeSpec, site: SiteCompute) -> tuple[str, str]:
    memory = asked.memory or site.memory
    # A limit goes with the memory it was written for: the site's does not bind a model that asks for more.
    limit = asked.memory_limit or (site.memory_limit if asked.memory is None else None)
    if limit is None:
        return memory, quantity(in_bytes(memory) * _LIMIT_TIMES)
    if in_bytes(limit) < in_bytes(memory):
        raise SpecError(
            f"{owner}: compute.memory_limit {limit} is below compute.memory {memory}. Raise it or leave it out."
        )
    return memory, limit


def _image(owner: str, asked: ComputeSpec, estimator: Estimator | None, site: SiteCompute) -> str:
    if estimator is not None:
        return asked.image or site.trainer_image
    if site.step_image is None:
        raise SpecError(
            f"{owner}: this site names no step_image (an image with all of Windsock), so only training runs in pods. "
            "Set it in the file that WINDSOCK_COMPUTE_FILE names."
        )
    return site.step_image


def _each_once(*tolerations: Toleration) -> tuple[Toleration, ...]:
    kept: list[Toleration] = []
    for toleration in tolerations:
        if toleration not in kept:
            kept.append(toleration)
    return tuple(kept)
