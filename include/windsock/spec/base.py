"""Shared ground of the spec's parts: frozen, and strict about unknown fields."""

from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic.fields import FieldInfo

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
"""Names of models, views and entities: they become table, DAG and asset names."""

COLUMN_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
Column = Annotated[str, StringConstraints(pattern=COLUMN_PATTERN)]
"""Column names: letters, digits and ``_``; they may be words of SQL."""

DeliveredName = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]+$")]
"""A column's name in a delivery, which may hold blanks, dots and letters of any alphabet."""


def check_in_folder(path: str) -> str:
    """Return a path that stays in the folder it is relative to; what lies elsewhere would not come with the model."""
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError(f"{path!r} must lie in the model's folder: give its path from there")
    return path


FolderFile = Annotated[str, AfterValidator(check_in_folder)]
"""A file in the model's folder, by its path from there."""


class Part(BaseModel):
    """One part of a model spec."""

    # By alias: what is written can be read again.
    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)


def unless_default(default: Any, **kwargs: Any) -> Any:
    """Return a field that is written only where it says something else: older specs keep their text and its hash."""
    return Field(default, exclude_if=lambda value: value == default, **kwargs)


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """List the models that a field's type may hold, however they are nested in it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for arg in get_args(annotation) for model in models_in(arg)]


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return a model's fields by their names in the file, which may be words of Python's own."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def kind_of(model: type[BaseModel]) -> str | None:
    """Return the one value of a model's field ``kind``, by which it is told from others; None if there is none."""
    field = model.model_fields.get("kind")
    choices = get_args(field.annotation) if field is not None else ()
    return str(choices[0]) if len(choices) == 1 else None


def repeated(names: Iterable[str]) -> list[str]:
    """List the names that stand there more than once."""
    return sorted(name for name, count in Counter(names).items() if count > 1)
