"""YAML files that people write: read, checked, and every fault told as a sentence."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from windsock.errors import SpecError, did_you_mean
from windsock.spec.base import kind_of, models_in

_Model = TypeVar("_Model", bound=BaseModel)


def read_yaml(path: Path, named_by: str = "") -> Any:
    """Return what a YAML file holds, None if it is empty; ``named_by`` is the setting that names it, for messages.

    Raises:
        SpecError: It cannot be read, or is no YAML in UTF-8.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as err:
        setting = f" ({named_by})" if named_by else ""
        raise SpecError(f"{path}{setting}: cannot be read: {err.strerror}.") from err
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        raise SpecError(f"{path}: is not valid YAML: {' '.join(str(err).split())}") from err


def checked(model: type[_Model], raw: dict[str, Any], path: Path) -> _Model:
    """Check a file's content against its model.

    Raises:
        SpecError: It breaks a rule; every fault is named at once, with the nearest valid name.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as err:
        lines = [f"  - {_sentence(fault, model)}" for fault in err.errors()]
        raise SpecError(f"{path}: {len(lines)} fault{'s' if len(lines) > 1 else ''}:\n" + "\n".join(lines)) from err


def _sentence(fault: Any, model: type[BaseModel]) -> str:
    """Write one pydantic fault as a sentence with the field and the nearest valid name."""
    place = ".".join(str(p) for p in fault["loc"]) or "the file"
    if fault["type"] == "extra_forbidden":
        near = did_you_mean(str(fault["loc"][-1]), _fields_at(model, fault["loc"][:-1]))
        return f"{place}: there is no such field.{near}"
    if fault["type"] == "missing":
        return f"{place}: is missing."
    given = fault.get("input")
    shown = "" if isinstance(given, dict | list | BaseModel) else f" (given: {given!r})"
    return f"{place}: {fault['msg'].removeprefix('Value error, ')}{shown}"


def _fields_at(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """List the valid field names at a place in the file, as far as types can be followed."""
    at: Any = model
    for step in loc:
        if isinstance(step, int):
            continue
        options = [m for m in models_in(at) if step in m.model_fields]
        tagged = [m for m in models_in(at) if kind_of(m) == step]
        if tagged:
            at = tagged[0]
        elif options:
            at = options[0].model_fields[step].annotation
        else:
            return []
    return sorted({name for m in models_in(at) for name in m.model_fields})
