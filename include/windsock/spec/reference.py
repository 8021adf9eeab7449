"""Every field of ``model.yaml`` as a page, made from the spec's own classes: ``docs/spec.md``."""

import types
import typing
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from windsock.spec.base import fields_of, kind_of, models_in
from windsock.spec.model_spec import ModelSpec

_HEAD = """# Every field of model.yaml

Made from the code by `windsock lint --reference`; a test keeps it current. Unknown fields are errors.
"""


def markdown() -> str:
    """Return the reference page."""
    sections: list[str] = [_HEAD]
    seen: set[type[BaseModel]] = set()
    waiting: list[tuple[str, type[BaseModel]]] = [("model.yaml", ModelSpec)]
    while waiting:
        title, part = waiting.pop(0)
        if part in seen:
            continue
        seen.add(part)
        sections.append(_section(title, part))
        for name, field in fields_of(part).items():
            place = name if title == "model.yaml" else f"{title}.{name}"
            for found in models_in(field.annotation):
                kind = kind_of(found)
                waiting.append((f"{place} (kind: {kind})" if kind else place, found))
    return "\n".join(sections)


def _section(title: str, part: type[BaseModel]) -> str:
    lines = [f"## {title}", "", (part.__doc__ or "").strip().splitlines()[0], ""]
    lines += ["| field | type | default | |", "|---|---|---|---|"]
    for name, field in fields_of(part).items():
        lines.append(f"| `{name}` | {_type(field.annotation)} | {_default(field)} | {field.description or ''} |")
    return "\n".join([*lines, ""])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, tuple) and any(isinstance(part, BaseModel) for part in value):
        return "one, as below"
    if value is None or value in ((), {}) or isinstance(value, BaseModel):
        return "–"
    return f"`{value}`"


def _type(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    args = [a for a in typing.get_args(annotation) if a is not type(None)]
    if origin is typing.Annotated:
        return _type(args[0])
    if origin is typing.Literal:
        return " or ".join(f"`{a}`" for a in args)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(a) for a in args))
    if origin is tuple:
        return f"list of {_type(args[0])}"
    if origin is dict:
        inner = _type(args[1])
        return "mapping, see below" if inner == "see below" else f"mapping to {inner}"
    names = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    if annotation in names:
        return names[annotation]
    return "see below" if isinstance(annotation, type) and issubclass(annotation, BaseModel) else annotation.__name__
