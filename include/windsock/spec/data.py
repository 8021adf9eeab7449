"""The data half of a spec: what days hold, labels, what is valid; where they come from stands in ``sources``."""

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    PositiveInt,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from windsock.spec.base import Column, DeliveredName, FolderFile, Part, repeated, unless_default
from windsock.spec.sources import DeliveredFiles, Url, with_a_day

ColumnType = Literal["int64", "double", "string", "bool", "timestamp", "date"]


class EventColumn(Part):
    """One column; a type alone (`amount: double`) says the same as `amount: {type: double}`."""

    type: ColumnType
    since: date | None = Field(None, description="First day that it was delivered on; days before it have NULL there.")
    source: str | None = Field(None, alias="from", min_length=1, description="Its name in the delivery; default: here.")

    @model_validator(mode="before")
    @classmethod
    def _a_type_alone_is_enough(cls, raw: Any) -> Any:
        return raw if isinstance(raw, dict | cls) else {"type": raw}

    @model_serializer(mode="wrap")
    def _as_short_as_it_was_given(self, handler: SerializerFunctionWrapHandler) -> Any:
        given = {name: value for name, value in handler(self).items() if value is not None}
        return given if len(given) > 1 else given["type"]


class EventsSpec(Part):
    """What one event is."""

    time: Column = Field(description="Event time; one without zone is read as UTC, or as source.timezone says.")
    key: Column = Field(description="Unique within all days.")
    declared: dict[Column, EventColumn] = Field(
        alias="columns", min_length=2, description="Every column that is kept: its type, or more (docs/change.md)."
    )
    ignore: tuple[str, ...] = Field(
        (), description="Names in the delivery that are expected and dropped without a word; `''` is pandas' index."
    )
    delivered_at: Column | None = Field(None, description="When the event became known; default: the end of its day.")
    late_days: int = unless_default(
        0,
        ge=0,
        le=90,
        description="Rows of up to this many earlier days may come with a day; older ones are set aside.",
    )

    @property
    def columns(self) -> dict[str, ColumnType]:
        """Every column that is kept, with its type, by the name that all but the source know it by."""
        return {name: column.type for name, column in self.declared.items()}

    @property
    def sources(self) -> dict[str, str]:
        """The name of every column in the delivery."""
        return {name: column.source or name for name, column in self.declared.items()}

    def with_columns(self, columns: Mapping[str, ColumnType]) -> Self:
        """Return these events with other columns (name to type); one that is declared keeps all else."""
        declared = {
            name: known.model_copy(update={"type": kind})
            if (known := self.declared.get(name)) is not None
            else EventColumn(type=kind)
            for name, kind in columns.items()
        }
        return self.model_copy(update={"declared": declared})

    @property
    def time_source(self) -> str:
        """The name of the event time in the delivery."""
        return self.sources[self.time]

    @model_validator(mode="after")
    def _are_delivered_each_by_itself(self) -> Self:
        sources = self.sources
        for source in repeated(sources.values()):
            takers = [name for name, taken in sources.items() if taken == source]
            raise ValueError(
                f"columns {' and '.join(map(repr, takers))} are taken from the same {source!r} of the delivery, so "
                "nobody can tell whose it is: give each a `from:` of its own, or keep one of them"
            )
        if both := sorted(set(sources.values()) & set(self.ignore)):
            raise ValueError(f"{', '.join(both)} stand both in events.columns and in events.ignore")
        for field in ("time", "key"):
            column = self.declared.get(getattr(self, field))
            if column is not None and column.since is not None:
                raise ValueError(f"{field} names a column with `since:`, but every event has one: remove it there")
        return self

    @model_validator(mode="after")
    def _refers_to_its_columns(self) -> Self:
        for field in ("time", "key", "delivered_at"):
            if (name := getattr(self, field)) is None:
                continue
            if name not in self.columns:
                raise ValueError(f"{field} names {name!r}, which is not among events.columns")
            if field != "key" and self.columns[name] != "timestamp":
                raise ValueError(f"{field} names {name!r}, which is of type {self.columns[name]}, not timestamp")
        return self


class LabelFiles(DeliveredFiles):
    """Labels delivered as files of their own, one a day by day of delivery."""

    url: Annotated[Url, AfterValidator(with_a_day)] = Field(
        description="fsspec URL with `{ds}` or `{ds_nodash}`, the day of delivery."
    )
    key: DeliveredName = Field(description="Its column with the event's key.")
    time: DeliveredName | None = Field(
        None, description="Its column that says when each label became known; default: the end of the day."
    )
    horizon_days: PositiveInt = Field(90, description="Labels may be for events up to this many days before delivery.")
    missing: Literal["wait", "empty"] = Field("wait", description="What a day without a label file means.")


class LabelSpec(Part):
    """The answer that the model learns, and when it becomes known."""

    column: Column
    source: DeliveredName | None = unless_default(
        None, alias="from", description="Its name in the delivery or label file; default: here."
    )
    task: Literal["binary", "regression"]
    delay_days: int = Field(ge=0, le=365, description="Days from the event until its label is known.")
    files: LabelFiles | None = Field(None, description="Absent: the label is a column of the events.")
    values: dict[str, Literal[0, 1]] | None = unless_default(
        None,
        description="What is delivered to 0 or 1, say {fraud: 1, ok: 0}; absent: 0, 1 or a truth value.",
    )

    @property
    def delivered_as(self) -> str:
        """The name of the label in the delivery."""
        return self.source or self.column

    @model_validator(mode="after")
    def _is_a_column_of_its_own(self) -> Self:
        if self.files is not None and (twice := repeated([self.delivered_as, self.files.key, self.files.time or ""])):
            raise ValueError(
                f"label.files: {twice[0]!r} is named more than once: the key, the label and its time are each a column "
                "of their own"
            )
        return self

    @field_validator("values", mode="before")
    @classmethod
    def _as_text(cls, values: Any) -> Any:
        """Let a file's -1 or true stand for what is written so in a delivery."""
        if not isinstance(values, dict):
            return values
        return {str(v).lower() if isinstance(v, bool) else str(v): label for v, label in values.items()}

    @model_validator(mode="after")
    def _both_classes(self) -> Self:
        if self.values is not None and (self.task != "binary" or {*self.values.values()} != {0, 1}):
            raise ValueError("label.values says of a binary label what is 0 and what is 1; name at least one of each.")
        return self


class ValidationSpec(Part):
    """How much dirt a day may carry before it is refused whole."""

    suite: FolderFile | None = Field(
        None, description="GX suite file in the model's folder; default expectations.json."
    )
    quarantine_budget: float = Field(0.05, ge=0, le=1, description="Largest share of rows set aside; above: reject.")
    redelivery_loss: float = unless_default(
        0.1, ge=0, lt=1, description="Largest share of rows or values that a redelivery may take away unasked."
    )
    hold: bool = unless_default(
        True, description="Refuse a live delivery that is broken against the days before, until a person lets it in."
    )
    max_bytes: PositiveInt = unless_default(
        4 * 2**30, description="Largest delivery in files, packed and unpacked; a larger one is refused unread."
    )
    max_rows: PositiveInt | None = unless_default(
        None, description="Most rows in a delivery of events or labels; one with more is refused."
    )
    empty_day: Literal["accept", "reject"] = Field("accept", description="What a day without rows means.")
    volume_tolerance: float = Field(
        0.4, gt=0, description="Warn when rows differ from the recent median by more than this share."
    )
    distribution_tolerance: float = Field(
        0.5, gt=0, description="Warn when a numeric column's mean leaves the recent mean by more than this share."
    )
    history_days: PositiveInt = Field(14, description="Recent days that volume and distribution are compared with.")
