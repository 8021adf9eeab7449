"""The gate's page: it stands alone, with no script, no style and no picture from elsewhere.

``report.html.jinja`` beside this module is the page; here is only where things lie in its plot.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from windsock.registry.versions import VersionInfo

_WIDTH, _HEIGHT, _MARGIN = 640, 180, 30


def render(record: Mapping[str, Any], info: VersionInfo) -> str:
    """Return the page of a verdict, from the content of ``gate.json``."""
    pages = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)
    pages.filters["number"] = _number
    plot = _plot(record["bootstrap"]) if record["bootstrap"] else None
    return pages.get_template("report.html.jinja").render(record=record, info=info, plot=plot)


def _number(value: float | str | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plot(found: Mapping[str, Any]) -> dict[str, Any]:
    """Lay out the bootstrap's distribution with its lower bound and the margin, in pixels."""
    edges, counts = found["histogram"]["edges"], found["histogram"]["counts"]
    low: float = min(edges[0], -found["margin"], 0.0)
    high: float = max(edges[-1], 0.0)
    tallest = max(counts) or 1

    def x(value: float) -> float:
        return 10 + round((value - low) / ((high - low) or 1.0) * (_WIDTH - 20), 1)

    def line(name: str, value: float) -> dict[str, Any]:
        at = x(value)
        anchor = "start" if at < _WIDTH * 0.2 else "end" if at > _WIDTH * 0.8 else "middle"
        return {"name": name, "value": value, "x": at, "anchor": anchor}

    bars = [
        {
            "x": x(left),
            "width": max(1.0, round(x(right) - x(left) - 0.5, 1)),
            "height": round(count / tallest * (_HEIGHT - 2 * _MARGIN), 1),
            "accepted": right > -found["margin"],
        }
        for left, right, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "floor": _HEIGHT - _MARGIN,
        "bars": bars,
        "margin": line("accepted down to", -found["margin"]),
        "lower": line("lower bound", found["lower"]),
    }
