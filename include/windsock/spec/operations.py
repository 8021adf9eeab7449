"""The operating half of a spec: schedules, monitoring, retraining, retention, what a heavy step runs on."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, StringConstraints, model_validator

from windsock.spec.base import Part

_ONCE_A_DAY = r"^\s*([0-5]?\d) +([01]?\d|2[0-3]) +\* +\* +\*\s*$"


class ScheduleSpec(Part):
    """When the clock starts something (cron, UTC); None: only by hand or by data."""

    ingest: str = Field("30 0 * * *", pattern=_ONCE_A_DAY, description="Once a day, `M H * * *`: each run is a day.")
    monitor: str = Field("0 3 * * *", pattern=_ONCE_A_DAY, description="Once a day, `M H * * *`: each run is a day.")
    train: str | None = "0 5 * * 1"
    maintenance: str | None = "0 6 * * 0"
    catch_up_days: NonNegativeInt = Field(
        30,
        description="Days back from today that are run by themselves if they were not run in time; a person is told "
        "of earlier ones.",
    )
    alert_after_hours: float = Field(
        6, gt=0, description="A live run that waits for longer, or a day whose run takes longer, is told of once."
    )


class MonitoringSpec(Part):
    """What the nightly report compares, and when a difference counts."""

    window_days: PositiveInt = Field(7, description="Recent days compared with the champion's reference; whole weeks.")
    max_rows: PositiveInt = Field(5000, description="Rows sampled on each side.")
    numeric_method: Literal["wasserstein", "jensenshannon", "psi"] = "wasserstein"
    numeric_threshold: float = Field(0.1, gt=0)
    categorical_method: Literal["jensenshannon", "psi"] = "jensenshannon"
    categorical_threshold: float = Field(0.1, gt=0)
    drifted_share: float = Field(0.3, gt=0, le=1, description="Share of features that must drift to call it drift.")
    important_share: float = Field(
        0.1,
        gt=0,
        le=1,
        description="Or: share of what the champion makes of its inputs (SHAP) that the drifted ones have.",
    )
    performance_days: PositiveInt = Field(7, description="Matured days whose predictions are judged.")
    max_performance_drop: float = Field(
        0.25, gt=0, description="Relative loss against the champion's holdout that counts as degraded."
    )


class RetrainingSpec(Part):
    """When the governor lets a signal start a retraining."""

    enabled: bool = True
    needed: PositiveInt = Field(2, description="Days with a signal, out of the last `out_of`, the latest included.")
    out_of: PositiveInt = 3
    on_drift: bool = Field(True, description="Whether drifted inputs are a reason to retrain.")
    on_loss: bool = Field(True, description="Whether a loss of performance is a reason to retrain.")
    on_new_labels: PositiveInt | None = Field(
        None, description="So many labels that became known since the champion's training are a reason too."
    )
    cool_down_days: NonNegativeInt = Field(
        14, description="Days after a request in which no other is made, but for the same drift."
    )
    recovery_days: PositiveInt = Field(
        1, description="Days from one training for a drift to the next, until the cure has been measured."
    )
    recovery_trainings: PositiveInt = Field(
        10, description="Trainings for the same drift at most; after these, people are told."
    )
    budget: PositiveInt = Field(
        4, description="Drifts (with all their requests) and requests for new labels at most within `budget_days`."
    )
    budget_days: PositiveInt = 90
    fresh_days: NonNegativeInt = Field(
        1,
        description="Days of the new regime that must be there to learn from, beside those that judge, before "
        "retraining pays.",
    )

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        if self.needed > self.out_of:
            raise ValueError(
                f"needed is {self.needed}, more than out_of ({self.out_of}): no retraining would ever start"
            )
        return self


class ServingSpec(Part):
    """How a score becomes a decision, and how quickly the last one can come back."""

    threshold: float | None = None
    rollback_days: NonNegativeInt = Field(
        14, description="Days for which features of a replaced champion are still computed, so that it can come back."
    )


class RetentionSpec(Part):
    """How long maintenance keeps what grows; days count from when a file was written."""

    raw_days: PositiveInt | None = Field(
        None, description="Deliveries as they came; older days cannot be derived again. Absent: for ever."
    )
    quarantine_days: PositiveInt = Field(
        180, description="Refused deliveries, unless one is all that there is of its day."
    )
    report_days: PositiveInt = Field(
        90, description="Pages of drift reports and of Data Docs; what was found stays in the records."
    )
    run_days: int = Field(
        90,
        ge=7,
        description="Trainings that became no version, whole, and the training rows of versions that are not in use, "
        "which can be made again; and Airflow's runs with their logs.",
    )


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
