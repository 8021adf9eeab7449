"""Delivered values as Python's own, also those that Python has no form for, and as they stand in messages."""

from typing import Any

import pyarrow as pa
import pyarrow.types as t

_LONGEST = 200
"""Characters of a value in a message."""


def plain_value(scalar: pa.Scalar) -> Any:
    """Return a delivered value as Python's; as text, where Python has none: the year 58132, letters in Latin-1.

    A column that is dropped anyway may hold anything, and one row of it may have to be shown or set aside.
    """
    try:
        return scalar.as_py()
    except Exception:  # whatever a calendar, a codec or a list of zones says of a foreign value
        pass
    kind = scalar.type
    if t.is_string(kind) or t.is_large_string(kind):
        return scalar.as_buffer().to_pybytes().decode("utf-8", "backslashreplace")
    return f"{scalar.value} ({kind})" if t.is_temporal(kind) else f"a value of type {kind}"


def shown(value: Any) -> str:
    """Write a delivered value for a message, in full unless it is very long; text in quotation marks."""
    text = repr(value) if isinstance(value, str | bytes) else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ... ({len(text):,} characters)"
