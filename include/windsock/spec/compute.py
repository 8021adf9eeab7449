"""What a heavy step needs to run: cores, memory, GPUs, and where a cluster may place it.

Everything is optional: what a model leaves open, the site's own defaults fill in
(``windsock.compute``), so that one model.yaml fits a laptop and every cluster.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, StringConstraints, model_validator

from windsock.spec.base import Part

Memory = Annotated[str, StringConstraints(pattern=r"^[1-9]\d*(\.\d+)?(Mi|Gi|Ti)$")]
"""A quantity of memory as Kubernetes writes it, for example ``512Mi`` or ``8Gi``."""

LabelKey = Annotated[
    str, StringConstraints(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")
]
LabelValue = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$")]
DnsName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]


class Toleration(Part):
    """Which taint of a node does not keep the pod away."""

    key: LabelKey | None = Field(None, description="Absent with operator Exists: every taint.")
    operator: Literal["Equal", "Exists"] = "Equal"
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(None, description="Absent: all.")
    seconds: NonNegativeInt | None = Field(None, description="How long a NoExecute taint is borne; absent: for ever.")

    @model_validator(mode="after")
    def _fits_its_operator(self) -> Self:
        if self.operator == "Exists" and self.value is not None:
            raise ValueError("operator Exists asks only for the key; remove value, or use operator Equal")
        if self.operator == "Equal" and self.key is None:
            raise ValueError("operator Equal compares a key's value; give key, or use operator Exists")
        return self


class ComputeSpec(Part):
    """Where and with what a heavy step runs; absent: as the site says."""

    backend: Literal["local", "kubernetes"] | None = Field(
        None, description="In the task's own process or in a pod; absent: as `WINDSOCK_COMPUTE` says."
    )
    cpu: float | None = Field(None, gt=0, description="Cores.")
    memory: Memory | None = Field(None, description="What the pod asks for and may use at first.")
    memory_limit: Memory | None = Field(
        None, description="Most memory that a pod gets after it ran out; absent: four times `memory`."
    )
    gpu: NonNegativeInt | None = Field(None, description="GPUs.")
    image: str | None = Field(None, min_length=1, description="The trainer's image.")
    spot: Literal["never", "prefer", "require"] | None = Field(
        None, description="Whether to run on nodes that may be taken away; the trainer goes on from its checkpoint."
    )
    priority_class: DnsName | None = None
    node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    service_account: DnsName | None = None
    namespace: DnsName | None = None
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict, description="Further labels of the pod.")
    wait_minutes: PositiveInt | None = Field(
        None, description="How long a pod may wait for quota, a node or a GPU before the task fails."
    )
