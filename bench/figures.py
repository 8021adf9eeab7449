"""One line of output: a figure, its limit, and what it takes to compare it with another day's."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Timing:
    """Seconds of several runs of the same work."""

    seconds: tuple[float, ...]
    cpu_s: tuple[float, ...] = ()
    """CPU seconds of this process in each run, all threads together; empty if others did the work."""

    @property
    def median(self) -> float:
        """Median of the wall seconds."""
        return statistics.median(self.seconds)

    def context(self) -> dict[str, Any]:
        """Return the spread, for a line's context."""
        spread = {"runs": len(self.seconds), "median": self.median, "min": min(self.seconds), "max": max(self.seconds)}
        return {**spread, **({"cpu_s": statistics.median(self.cpu_s)} if self.cpu_s else {})}


def time_runs(action: Callable[[], object], runs: int) -> Timing:
    """Time some runs of an action, one after the other."""
    wall, cpu = [], []
    for _ in range(runs):
        wall_began, cpu_began = time.perf_counter(), time.process_time()
        action()
        wall.append(time.perf_counter() - wall_began)
        cpu.append(time.process_time() - cpu_began)
    return Timing(tuple(wall), tuple(cpu))


@dataclass(frozen=True)
class Limit:
    """What no implementation could be faster than, measured in the same run."""

    what: str
    value: float
    unit: str = "s"


@dataclass(frozen=True)
class Figure:
    """One measured figure."""

    bench: str
    what: str
    value: float
    limit: Limit
    unit: str = "s"
    context: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """Return the figure as one line of JSON."""
        content = {
            "bench": self.bench,
            "what": self.what,
            "value": _short(self.value),
            "unit": self.unit,
            "limit": {"what": self.limit.what, "value": _short(self.limit.value), "unit": self.limit.unit},
            "times_limit": _short(self.value / self.limit.value) if self.limit.value else None,
            **{name: _short(value) for name, value in self.context.items()},
            "cores": cores(),
            "load_1m": round(os.getloadavg()[0], 1),
        }
        return json.dumps(content)


def cores() -> int:
    """Count the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return runs, median, min and max of values that another process measured."""
    return Timing(tuple(values)).context()


def say(text: str) -> None:
    """Tell the person who waits; stdout is for figures."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _short(value: Any) -> Any:
    """Round to four significant digits: more would be noise."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {name: _short(inner) for name, inner in value.items()}
    return value
