"""Quantities of memory, as Kubernetes writes them, and how much a step gets after it ran out."""

import math
import re

from windsock.errors import SpecError

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)([A-Za-z]*)")


def in_bytes(quantity: str) -> int:
    """Return a quantity such as ``512Mi`` in bytes.

    Raises:
        SpecError: It is no quantity of memory.
    """
    found = _QUANTITY.fullmatch(quantity)
    if found is None or found[2] not in _UNITS:
        raise SpecError(f"{quantity!r} is no quantity of memory. Write a number and Mi, Gi or Ti, for example 8Gi.")
    return math.ceil(float(found[1]) * _UNITS[found[2]])


def quantity(size: int) -> str:
    """Return bytes as a quantity in whole Gi or Mi, rounded up to whole Mi."""
    mebi = math.ceil(size / 2**20)
    return f"{mebi // 1024}Gi" if mebi % 1024 == 0 else f"{mebi}Mi"


def after_running_out(current: str, growth: float, limit: str) -> str | None:
    """Return what a step that ran out of memory gets on its next try; None at the limit.

    Args:
        current: What it had.
        growth: How many times as much it gets, above 1.
        limit: Most that it may get.
    """
    had, most = in_bytes(current), in_bytes(limit)
    if had >= most:
        return None
    # Whole mebibytes: at least one more than before, never above the limit.
    return quantity(min(max(math.ceil(had * growth), had + 2**20), most)) if most - had >= 2**20 else limit
