"""The columns that a spec declares, with their types."""

from windsock.spec.model_spec import ModelSpec


def label_type(spec: ModelSpec) -> str:
    """Return the declared type of the label: whole numbers for classes, else real ones."""
    return "int64" if spec.label.task == "binary" else "double"


def declared_columns(spec: ModelSpec) -> dict[str, str]:
    """Return name to type of what a delivery of events must hold, the inline label last."""
    columns: dict[str, str] = dict(spec.events.columns)
    if spec.label.files is None:
        columns[spec.label.column] = label_type(spec)
    return columns
