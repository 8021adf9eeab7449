"""What a heavy step's pod gets: this site's defaults, and a model's wishes laid over them.

The defaults stand in one YAML file, named by ``WINDSOCK_COMPUTE_FILE``; without it, those of ``SiteCompute`` hold.
``docs/compute.md`` shows one. Nothing here speaks to a cluster: ``windsock_airflow.pods`` turns needs into pods.
"""

import math
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, StringConstraints, model_validator

from windsock import __version__
from windsock.errors import SpecError
from windsock.settings import Settings
from windsock.spec.base import Part
from windsock.spec.estimators import Estimator
from windsock.spec.load import checked, read_yaml
from windsock.spec.model_spec import ModelSpec
from windsock.spec.operations import ComputeSpec, DnsName, LabelKey, LabelValue, Memory, Toleration
from windsock.store import Store

MountPath = Annotated[str, StringConstraints(pattern=r"^/[^:]*$")]
_SOURCES = ("claim", "host_path", "config_map", "secret")
_LIMIT_TIMES = 4
_BYTES = {"Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


class Volume(Part):
    """Something that every pod finds mounted."""

    name: DnsName
    mount: MountPath = Field(description="Where it appears in the pod.")
    claim: DnsName | None = Field(None, description="A PersistentVolumeClaim.")
    host_path: MountPath | None = Field(None, description="A folder of the node; for a cluster of one node.")
    config_map: DnsName | None = None
    secret: DnsName | None = None
    read_only: bool = False

    @model_validator(mode="after")
    def _comes_from_one_place(self) -> Self:
        named = [source for source in _SOURCES if getattr(self, source) is not None]
        if len(named) != 1:
            raise ValueError(f"give exactly one of {', '.join(_SOURCES)}; given: {', '.join(named) or 'none'}")
        return self


class RunAs(Part):
    """Numeric user and groups of every container; never root."""

    user: PositiveInt = 10001
    group: PositiveInt = 10001
    fs_group: PositiveInt | None = Field(10001, description="Group that owns mounted volumes.")


class SpotLabel(Part):
    """The node label by which spot (preemptible) nodes are recognised."""

    key: LabelKey
    value: LabelValue = "true"


class SiteCompute(Part):
    """What pods get here unless a model asks for something else."""

    namespace: DnsName = "windsock"
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: tuple[DnsName, ...] = ()
    service_account: DnsName = "windsock-step"
    kubernetes_conn_id: str = Field("kubernetes_default", description="Airflow connection; it need not exist.")
    deferrable: bool = Field(False, description="Watch pods in the triggerer, so that they hold no worker slot.")
    pool: str = Field("windsock_gpu", description="Airflow pool of steps that ask for GPUs.")
    wait_minutes: PositiveInt = Field(120, description="How long a pod may wait for quota, a node or a GPU.")

    cpu: float = Field(1, gt=0, description="Cores asked for.")
    limit_cpu: bool = Field(False, description="Also limit pods to these cores; for quotas that demand it.")
    memory: Memory = "2Gi"
    memory_growth: float = Field(2.0, gt=1, le=16, description="How many times as much memory the next try gets.")
    shared_memory: Memory = Field("1Gi", description="Size of /dev/shm in pods with several GPUs; part of memory.")
    scratch: Memory = Field("4Gi", description="Size of /tmp in pods.")
    gpu: NonNegativeInt = 0
    gpu_resource: str = Field("nvidia.com/gpu", min_length=1)

    node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    priority_class: DnsName | None = None
    spot: Literal["never", "prefer", "require"] = "never"
    spot_label: SpotLabel | None = None

    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    env: dict[str, str] = Field(default_factory=dict, description="Plain values; secrets belong into Secrets.")
    env_from_secrets: tuple[DnsName, ...] = ()
    env_from_config_maps: tuple[DnsName, ...] = ()
    volumes: tuple[Volume, ...] = ()

    run_as: RunAs = RunAs()
    termination_grace_seconds: PositiveInt = Field(
        30, description="Between the signal to end and the kill; time for a checkpoint."
    )
    keep_failed_pods: bool = Field(False, description="Leave failed pods in place to be looked at.")

    installation: DnsName | None = Field(None, description="Name where several share a store and a namespace.")
    trainer_image: str = Field(f"windsock/trainer:{__version__}", min_length=1)
    step_image: str | None = Field(
        None, min_length=1, description="An image with all of Windsock; absent: only training runs in pods."
    )
    memory_limit: Memory | None = Field(None, description="Most after running out; absent: four times `memory`.")
    gpus: NonNegativeInt | None = Field(None, description="Slots of the pool; absent: WINDSOCK_GPUS.")
    gpu_node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    gpu_tolerations: tuple[Toleration, ...] = (
        Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule", value=None, seconds=None),
    )
    spot_tolerations: tuple[Toleration, ...] = ()

    @model_validator(mode="after")
    def _spot_nodes_can_be_told(self) -> Self:
        if self.spot != "never" and self.spot_label is None:
            raise ValueError(f"spot: {self.spot} needs spot_label, the label of spot nodes")
        return self


class PodNeeds(SiteCompute):
    """Everything a pod's manifest is made from, but what runs in it: the site's defaults and the model's wishes."""

    image: str
    memory_limit: str

    @property
    def threads(self) -> int:
        """Threads that calculations may use: whole cores, at least one."""
        return max(1, int(self.cpu))


def load_site(settings: Settings) -> SiteCompute:
    """Read the site's file, or return the defaults if none is named.

    Raises:
        SpecError: It cannot be read or breaks a rule; every fault is named at once.
    """
    site, path = SiteCompute(), settings.compute_file
    if path is not None:
        raw = read_yaml(path, named_by="WINDSOCK_COMPUTE_FILE")
        if not isinstance(raw, dict | None):
            raise SpecError(f"{path}: is no mapping. Its lines are fields such as 'namespace: windsock'.")
        site = checked(SiteCompute, raw or {}, path)
    return site if site.gpus is not None else site.model_copy(update={"gpus": settings.gpus})


def needs_of(spec: ModelSpec, estimator: Estimator | None, site: SiteCompute) -> PodNeeds:
    """Return what a step's pod gets; no ``estimator``: a step of the whole model, in the site's ``step_image``.

    Raises:
        SpecError: The wishes contradict each other or this site cannot meet them.
    """
    asked = ComputeSpec() if estimator is None else estimator.compute
    owner = f"Model {spec.name}" if estimator is None else f"Model {spec.name}, estimator {estimator.name}"
    gpu = site.gpu if asked.gpu is None else asked.gpu
    spot = asked.spot or site.spot
    memory, limit = _memory(owner, asked, site)
    image = site.step_image if estimator is None else asked.image or site.trainer_image
    if image is None:
        raise SpecError(
            f"{owner}: this site names no step_image (an image with all of Windsock), so only training runs in pods. "
            "Set it in the file that WINDSOCK_COMPUTE_FILE names."
        )
    if site.gpus is not None and gpu > site.gpus:
        # Airflow would let it wait for slots for ever, and say nothing.
        raise SpecError(
            f"{owner}: asks for {gpu} GPUs, but Airflow's pool {site.pool!r} has {site.gpus}. Ask for fewer "
            "(compute.gpu), or set WINDSOCK_GPUS and the pool to the cluster's number of GPUs: "
            f"airflow pools set --include-deferred {site.pool} <GPUs> 'GPUs of the cluster'."
        )
    label = site.spot_label
    if spot != "never" and label is None:
        raise SpecError(
            f"{owner}: compute.spot is {spot}, but the site does not say how spot nodes are told. "
            "Set spot_label (key and value) in the file that WINDSOCK_COMPUTE_FILE names."
        )
    if spot == "never" and label is not None and asked.node_selector.get(label.key) == label.value:
        raise SpecError(
            f"{owner}: node_selector asks for spot nodes ({label.key}: {label.value}); set compute.spot: require."
        )
    wishes = {"namespace", "service_account", "cpu", "priority_class", "wait_minutes"}
    tolerations = (
        *site.tolerations,
        *(site.gpu_tolerations if gpu else ()),
        *(site.spot_tolerations if spot != "never" else ()),
        *asked.tolerations,
    )
    return PodNeeds(
        **dict(site)
        | asked.model_dump(include=wishes, exclude_none=True)
        | {
            "image": image,
            "memory": memory,
            "memory_limit": limit,
            "gpu": gpu,
            "spot": spot,
            "labels": {**site.labels, **asked.labels},
            "node_selector": {**site.node_selector, **(site.gpu_node_selector if gpu else {}), **asked.node_selector},
            "tolerations": tuple(dict.fromkeys(tolerations)),  # each once
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


def in_bytes(quantity: Memory) -> int:
    """Return a quantity such as ``512Mi`` in bytes."""
    return math.ceil(float(quantity[:-2]) * _BYTES[quantity[-2:]])


def quantity(size: int) -> str:
    """Return bytes as a quantity in whole Gi or Mi, rounded up to whole Mi."""
    mebi = math.ceil(size / 2**20)
    return f"{mebi // 1024}Gi" if mebi % 1024 == 0 else f"{mebi}Mi"


def after_running_out(current: Memory, growth: float, limit: Memory) -> str | None:
    """Return what a step that ran out of memory gets next: ``growth`` (above 1) times as much; None at the limit."""
    had, most = in_bytes(current), in_bytes(limit)
    if had >= most:
        return None
    # Whole mebibytes: at least one more than before, never above the limit.
    return quantity(min(max(math.ceil(had * growth), had + 2**20), most)) if most - had >= 2**20 else limit


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
