"""The modelling half of a spec: features, training, gate; the kinds of model stand in ``estimators``."""

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from windsock.errors import SpecError
from windsock.spec.base import Column, FolderFile, Name, Part, repeated
from windsock.spec.estimators import Estimator, LightGBMSpec

Metric = Literal[
    "average_precision", "roc_auc", "log_loss", "precision_at_k", "mean_absolute_error", "root_mean_squared_error", "r2"
]

LOWER_IS_BETTER: frozenset[str] = frozenset({"log_loss", "mean_absolute_error", "root_mean_squared_error"})


class FeatureView(Part):
    """A table of features, computed by one SQL file for one entity (or for none)."""

    name: Name
    sql: FolderFile = Field(description="File in the model's folder.")
    entity: Name | None = Field(None, description="One of the spec's entities; absent: one series for all rows.")
    lookback_days: NonNegativeInt = Field(description="How far back the SQL reads, before the day itself.")
    ttl_days: PositiveInt | None = Field(None, description="Values older than this are not served; absent: never.")
    as_of: Literal["event", "end_of_day"] = Field(
        "event", description="Which moment a row may know of: its own, or the end of its day (a row then looks ahead)."
    )


class FeaturesSpec(Part):
    """What the model sees."""

    row: dict[Column, str] = Field(default_factory=dict, description="Features of the event alone: name to SQL.")
    views: tuple[FeatureView, ...] = ()

    @property
    def lookback_days(self) -> int:
        """Days before D that features of D may read."""
        return max((v.lookback_days for v in self.views), default=0)

    @property
    def as_of_end_of_day(self) -> tuple[str, ...]:
        """Views whose rows may know of the whole of their day."""
        return tuple(view.name for view in self.views if view.as_of == "end_of_day")

    @model_validator(mode="after")
    def _has_features_with_distinct_names(self) -> Self:
        if not self.row and not self.views:
            raise ValueError("there are no features: give row expressions, views or both")
        if twice := repeated(v.name for v in self.views):
            raise ValueError(f"two views are named {', '.join(twice)}")
        return self


class EvaluationSpec(Part):
    """How predictions are judged, beyond the metric itself."""

    exclude_known_positives: Column | None = Field(
        None, description="Entity column: leave out entities already known to be positive (blocked cards)."
    )
    alerts_per_day: PositiveInt = Field(100, description="k of precision_at_k: what can be looked at in a day.")
    alert_entity: Column | None = Field(None, description="Entity column that alerts are counted by; absent: rows.")


class TrainingSpec(Part):
    """How a model is trained as of a day T."""

    window_days: PositiveInt = Field(description="Days trained on.")
    windows: tuple[PositiveInt, ...] = Field(
        (),
        description="Lengths from which the folds choose, ascending, the last one `window_days`; absent: that alone. A "
        "training that drift or loss asked for takes the shortest, a trainer of your own the longest.",
    )
    holdout_days: PositiveInt = Field(7, description="Most recent matured days, held out for the gate.")
    gap_days: NonNegativeInt | None = Field(None, description="Days between window and holdout; default: label delay.")
    folds: PositiveInt = Field(2, description="Time-ordered folds inside the window, with the same gap where it fits.")
    metric: Metric
    categorical: tuple[Column, ...] = ()
    seed: int = 7
    refit: bool = Field(
        False,
        description="Train what passed the gate once more, by the same recipe up to the newest matured day, and put "
        "that in force; its judged twin stands for it wherever it learnt from the rows.",
    )
    include_warm_up: bool = Field(False, description="Also train on days whose lookback reaches before the first day.")
    estimators: tuple[Estimator, ...] = Field(
        (LightGBMSpec(),), description="Kinds of model to train and compare; `estimator` gives just one."
    )
    evaluation: EvaluationSpec = EvaluationSpec()

    @property
    def shortest_window(self) -> int:
        """The fewest days that may be trained on where history has more."""
        return self.windows[0] if self.windows else self.window_days

    def estimator(self, name: str | None = None) -> Estimator:
        """Return an estimator by its name; without a name, the only one.

        Raises:
            SpecError: There is no such estimator, or no name was given and there are several.
        """
        names = [e.name for e in self.estimators]
        if name is None and len(names) == 1:
            return self.estimators[0]
        if name not in names:
            raise SpecError.unknown("estimator", name or "", names)
        return self.estimators[names.index(name)]

    @model_validator(mode="before")
    @classmethod
    def _one_estimator_is_a_list_of_one(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or "estimator" not in raw:
            return raw
        if "estimators" in raw:
            raise ValueError("give either estimator (one) or estimators (a list), not both")
        rest = {name: value for name, value in raw.items() if name != "estimator"}
        return {**rest, "estimators": [raw["estimator"]]}

    @model_validator(mode="after")
    def _windows_ascend_to_the_longest(self) -> Self:
        if self.windows and (list(self.windows) != sorted(set(self.windows)) or self.windows[-1] != self.window_days):
            raise ValueError(
                f"windows is {', '.join(map(str, self.windows))}: give each length once, the shortest first, and the "
                f"longest as window_days ({self.window_days})"
            )
        return self

    @model_validator(mode="after")
    def _estimators_have_distinct_names(self) -> Self:
        if not self.estimators:
            raise ValueError("estimators is empty: list at least one, or leave it out for LightGBM's defaults")
        if twice := repeated(e.name for e in self.estimators):
            raise ValueError(f"two estimators are named {', '.join(twice)}; give each a name of its own")
        return self


class GateSpec(Part):
    """What a candidate must show before it may become champion."""

    floors: dict[Metric, float] = Field(min_length=1, description="Worst acceptable value per metric.")
    margin: float = Field(0.0, ge=0, description="How much worse than the champion is still acceptable.")
    confidence: float = Field(0.9, gt=0.5, lt=1, description="Of the paired bootstrap's one-sided bound.")
    resamples: PositiveInt = 400
    recovery_error_rate: float = Field(
        0.05,
        gt=0,
        lt=0.5,
        description="How likely all trainings after drifts may together replace a champion by one that is no better.",
    )
    suspicious: dict[Metric, float] = Field(
        default_factory=dict, description="A value better than this is taken for a leak and refused."
    )
    approval: bool = Field(False, description="Ask a person in the Airflow UI before promotion.")
