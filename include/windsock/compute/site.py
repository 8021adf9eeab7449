"""This site's defaults for pods: image, namespace, nodes, volumes, security.

One YAML file, named by ``WINDSOCK_COMPUTE_FILE``; without it, the defaults here. A model's
own ``compute`` goes before it (``windsock.compute.needs``). ``docs/compute.md`` shows one.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, StringConstraints, model_validator

from windsock import __version__
from windsock.errors import SpecError
from windsock.settings import Settings
from windsock.spec.base import Part
from windsock.spec.compute import DnsName, LabelKey, LabelValue, Memory, Toleration
from windsock.spec.yaml_file import checked, read_yaml

MountPath = Annotated[str, StringConstraints(pattern=r"^/[^:]*$")]
_SOURCES = ("claim", "host_path", "config_map", "secret")


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


class PodCompute(Part):
    """What a pod gets, whether by the site's default or by a model's wish."""

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


class SiteCompute(PodCompute):
    """What pods get here unless a model asks for something else."""

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


def load_site(settings: Settings) -> SiteCompute:
    """Read the site's file, or return the defaults if none is named.

    Raises:
        SpecError: It cannot be read or breaks a rule; every fault is named at once.
    """
    path = settings.compute_file
    raw = read_yaml(path, named_by="WINDSOCK_COMPUTE_FILE") if path is not None else None
    if raw is not None and not isinstance(raw, dict):
        raise SpecError(f"{path}: is no mapping. Its lines are fields such as 'namespace: windsock'.")
    site = checked(SiteCompute, raw, path) if path is not None and raw is not None else SiteCompute()
    return site if site.gpus is not None else site.model_copy(update={"gpus": settings.gpus})
