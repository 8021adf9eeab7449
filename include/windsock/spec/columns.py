"""The columns that a spec declares, and those of the tables made from it, with their types."""

from collections.abc import Mapping
from datetime import date

from windsock.spec.model_spec import ModelSpec

KNOWN_AT = "known_at"
"""When a fact became known."""


def label_type(spec: ModelSpec) -> str:
    """Return the declared type of the label: whole numbers for classes, else real ones."""
    return "int64" if spec.label.task == "binary" else "double"


def label_values(spec: ModelSpec) -> dict[str, Mapping[str, int]]:
    """Return the label's column to what is delivered in it, as text, and its class; empty where it needs no words."""
    return {} if spec.label.values is None else {spec.label.column: spec.label.values}


def declared_columns(spec: ModelSpec) -> dict[str, str]:
    """Return name to type of what a delivery of events must hold, the inline label last."""
    columns: dict[str, str] = dict(spec.events.columns)
    if spec.label.files is None:
        columns[spec.label.column] = label_type(spec)
    return columns


def delivered_names(spec: ModelSpec) -> dict[str, str]:
    """Return the columns of :func:`declared_columns` to their names in a delivery of events."""
    return {name: spec.events.sources.get(name, spec.label.delivered_as) for name in declared_columns(spec)}


def needed_sources(spec: ModelSpec, day: date) -> set[str]:
    """Return the columns that a delivery of events of a day may not lack, by their names in it."""
    later = {n for n, column in spec.events.declared.items() if column.since is not None and day < column.since}
    return {source for name, source in delivered_names(spec).items() if name not in later}


def event_known_at(spec: ModelSpec) -> str:
    """Return the column of table ``events`` that says when each became known: one that no delivery has."""
    delivered = {name.casefold() for name in spec.events.columns}
    name = KNOWN_AT
    while name in delivered:
        name += "_"
    return name


def event_columns(spec: ModelSpec) -> dict[str, str]:
    """Return name to type of table ``events``."""
    return {**spec.events.columns, event_known_at(spec): "timestamp"}


def label_columns(spec: ModelSpec) -> dict[str, str]:
    """Return name to type of table ``labels``: the event's key, the label, times."""
    key = spec.events.key
    head = {key: str(spec.events.columns[key]), spec.label.column: label_type(spec)}
    return {**head, "event_time": "timestamp", KNOWN_AT: "timestamp"}
