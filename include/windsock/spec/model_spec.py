"""A model's whole spec, with the cross-checks between its parts; each part checks itself, ``load`` reads the file."""

import re
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Self

from pydantic import Field, PrivateAttr, model_validator

from windsock.errors import SpecError, did_you_mean, listed
from windsock.spec.alerting import AlertsSpec
from windsock.spec.base import Column, Name, Part
from windsock.spec.data import EventsSpec, LabelSpec, ValidationSpec
from windsock.spec.modelling import FeaturesSpec, FeatureView, GateSpec, TrainingSpec
from windsock.spec.operations import (
    MonitoringSpec,
    RetentionSpec,
    RetrainingSpec,
    ScheduleSpec,
    ServingSpec,
)
from windsock.spec.sources import Source

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?!\w|\s*\()")
"""A name in SQL that is no function's: one of a column may be ``left``."""
_OURS = frozenset({"event_timestamp", "event_time", "known_at", "known_positive", "score", "model_version"})
"""Columns that Windsock adds to rows which carry keys, labels and entities."""


class ModelSpec(Part):
    """Everything Windsock needs to know about one model."""

    name: Name
    owner: str = Field(min_length=1)
    description: str = Field(min_length=1)
    first_day: date = Field(description="The first day there is data for.")
    last_day: date | None = Field(None, description="The last day; absent: data goes on.")
    source: Source
    events: EventsSpec
    entities: dict[Name, Column] = Field(default_factory=dict)
    label: LabelSpec
    schedule: ScheduleSpec = ScheduleSpec()
    validation: ValidationSpec = ValidationSpec()
    features: FeaturesSpec
    training: TrainingSpec
    gate: GateSpec
    monitoring: MonitoringSpec = MonitoringSpec()
    retraining: RetrainingSpec = RetrainingSpec()
    alerts: AlertsSpec = AlertsSpec()
    serving: ServingSpec = ServingSpec()
    retention: RetentionSpec = RetentionSpec()

    _folder: Path = PrivateAttr(default=Path())
    _sql: Mapping[str, str] = PrivateAttr(default_factory=dict)
    _definitions: Mapping[str, str] = PrivateAttr(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Folder that holds this model's files."""
        return self._folder

    @property
    def first_warm_day(self) -> date:
        """First day whose whole lookback lies within the data."""
        return self.first_day + timedelta(days=self.features.lookback_days)

    @property
    def gap_days(self) -> int:
        """Days between training window and holdout."""
        return self.label.delay_days if self.training.gap_days is None else self.training.gap_days

    @property
    def definitions(self) -> Mapping[str, str]:
        """View to the SHA-256 of its definition, where a registered version has frozen it."""
        return self._definitions

    def sql_of(self, view: FeatureView) -> str:
        """Return the text of a view's SQL: as frozen, or else as its file has it.

        Raises:
            SpecError: The file is no text in UTF-8.
        """
        if (frozen := self._sql.get(view.sql)) is not None:
            return frozen
        path = self.folder / view.sql
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as err:
            line = path.read_bytes()[: err.start].count(b"\n") + 1
            raise SpecError(f"{path}: line {line} is not in UTF-8: save the file in that encoding.") from err

    def frozen(self, sql: Mapping[str, str], definitions: Mapping[str, str], **parts: Any) -> Self:
        """Return a copy with other parts, whose views have these texts (file to SQL) and definitions (view to hash)."""
        copy = self.model_copy(update=parts)
        copy._sql, copy._definitions = dict(sql), dict(definitions)
        return copy

    @model_validator(mode="after")
    def _days_are_in_order(self) -> Self:
        if self.last_day is not None and self.last_day < self.first_day:
            raise ValueError(f"last_day {self.last_day} lies before first_day {self.first_day}")
        return self

    def oldest_day_in(self, day: date) -> date:
        """Return the oldest day whose events the delivery of a day may hold."""
        return max(min(self.first_day, day), day - timedelta(days=self.events.late_days))

    @model_validator(mode="after")
    def _entities_are_columns(self) -> Self:
        evaluation, columns = self.training.evaluation, self.events.columns
        named = {f"entities.{entity}": column for entity, column in self.entities.items()}
        for field in ("exclude_known_positives", "alert_entity"):
            if (column_name := getattr(evaluation, field)) is not None:
                named[f"training.evaluation.{field}"] = column_name
        for place, column in named.items():
            if column not in columns:
                raise ValueError(
                    f"{place} names {column!r}, which is not among events.columns." + did_you_mean(column, columns)
                )
        for view in self.features.views:
            if view.entity is not None and view.entity not in self.entities:
                raise ValueError(
                    f"features.views: {view.name!r} is of entity {view.entity!r}, which is not among entities."
                    + did_you_mean(view.entity, self.entities)
                )
        return self

    @model_validator(mode="after")
    def _columns_have_names_of_their_own(self) -> Self:
        label, evaluation = self.label.column, self.training.evaluation
        places: dict[str, str] = {}
        for column in (*self.events.columns, label):  # SQL does not tell capitals from small letters
            if (other := places.setdefault(column.casefold(), column)) != column:
                raise ValueError(
                    f"columns {other!r} and {column!r} differ only in capital letters, which SQL cannot tell apart: "
                    "keep one of them, or have the other renamed at the source"
                )
        named = {"events.key": self.events.key, "label.column": label}
        named |= {f"entities.{entity}": column for entity, column in self.entities.items()}
        named["training.evaluation.alert_entity"] = evaluation.alert_entity or ""
        named["training.evaluation.exclude_known_positives"] = evaluation.exclude_known_positives or ""
        for place, column in named.items():
            if column.casefold() in _OURS:
                raise ValueError(f"{place} is {column!r}, a column that Windsock adds itself: rename it at the source")
        return self

    @model_validator(mode="after")
    def _label_is_not_a_feature(self) -> Self:
        label = self.label.column
        source = self.label.delivered_as
        if self.label.files is None and source in self.events.ignore:
            raise ValueError(f"label.column {source!r} stands in events.ignore, so it would never arrive")
        if label in self.events.columns:
            raise ValueError(
                f"label.column {label!r} also stands in events.columns: that leaks the answer. Remove it there; "
                "a label that comes as a column is taken from the delivery and hidden until its delay has passed"
            )
        if taken := [name for name, origin in self.events.sources.items() if origin == source]:
            raise ValueError(
                f"events.columns: {taken[0]!r} is taken from the label {source!r}: that leaks the answer. Remove it"
            )
        for name, expression in self.features.row.items():
            used = set(_IDENTIFIER.findall(expression)) | {name}
            if label in used:
                raise ValueError(f"features.row.{name} uses the label {label!r}: that leaks the answer")
            if dropped := sorted(used & set(self.events.ignore) - set(self.events.columns)):
                raise ValueError(
                    f"features.row.{name} uses {', '.join(dropped)}, which events.ignore drops; known: "
                    + listed(sorted(self.events.columns))
                )
        return self

    @model_validator(mode="after")
    def _metrics_fit_the_task(self) -> Self:
        regression = {"mean_absolute_error", "root_mean_squared_error", "r2"}
        used = {self.training.metric, *self.gate.floors, *self.gate.suspicious}
        if wrong := used - regression if self.label.task == "regression" else used & regression:
            raise ValueError(f"{', '.join(sorted(wrong))} cannot judge a {self.label.task} model")
        return self
