"""What the gate leaves behind: a record for machines and a page for people.

Both lie in the run folder, ``gate.json`` and ``gate.html`` for the latest verdict and
``gate/vs-<champion>.json`` for each champion it was held against. The page stands alone:
no script, no style and no picture from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from windsock.errors import GateFailed
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store

if TYPE_CHECKING:
    from windsock.gate.case import Case
    from windsock.gate.compare import Comparison
    from windsock.gate.judge import Verdict
    from windsock.registry.versions import VersionInfo

REPORT = "gate.html"
RECORD = "gate.json"

_BINS = 48
_WIDTH, _HEIGHT = 640, 180


def keep(case: Case, verdict: Verdict) -> None:
    """Write record and page of a verdict into the challenger's run folder."""
    record = {
        **verdict.to_json(),
        "model": case.spec.name,
        "model_hash": verdict.model_hash,
        "holdout_hash": _or_none(lambda: case.holdout_hash),
        "metrics": _or_none(lambda: case.metrics),
        "bootstrap": _bootstrap(case.comparison) if case.comparison is not None else None,
    }
    page = _page(case, verdict, record).encode()
    folder = case.info.run_folder
    case.store.write_bytes(page, folder, REPORT)
    case.store.write_bytes(page, folder, "gate", f"{_against(verdict.champion_seen)}.html")
    case.store.write_json(record, folder, "gate", f"{_against(verdict.champion_seen)}.json")
    case.store.write_json(record, folder, RECORD)


def passed_against(
    settings: Settings, spec: ModelSpec, info: VersionInfo, champion: str | None
) -> dict[str, Any] | None:
    """Return the kept verdict on a version against a champion, if there is one about exactly these files.

    Raises:
        GateFailed: The verdict is there and is no.
    """
    try:
        record: dict[str, Any] = Store.of(settings).read_json(info.run_folder, "gate", f"{_against(champion)}.json")
    except FileNotFoundError:
        return None
    if record.get("version") != info.version or record.get("model_hash") != info.model_hash:
        return None
    if record.get("passed") is not True:
        failed = [c["name"] for c in record.get("checks", []) if not c["passed"]]
        raise GateFailed(
            f"{spec.name}: version {info.version} did not pass the gate against champion {champion or 'none'} "
            f"({', '.join(failed) or 'no checks recorded'}), so it is not promoted. See {info.run_folder}/{REPORT}."
        )
    return record


def summary_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the few lines of a verdict that a promotion keeps."""
    checks = record["checks"]
    return {
        "passed": record["passed"],
        "champion_seen": record["champion_seen"],
        "checks": len(checks),
        "failed": [c["name"] for c in checks if not c["passed"]],
        "values": {c["name"]: c["value"] for c in checks if isinstance(c["value"], float)},
    }


def _against(champion: str | None) -> str:
    return f"vs-{champion if champion is not None else 'none'}"


def _or_none(read: Any) -> Any:
    """Return a value for the record, or None if it cannot be had: its check has failed and says why."""
    try:
        return read()
    except Exception:
        return None


def _bootstrap(found: Comparison) -> dict[str, Any]:
    import numpy as np

    counts, edges = np.histogram(found.advantages, bins=_BINS)
    return {
        "metric": found.metric,
        "candidate": found.candidate,
        "reference": found.reference,
        "advantage": found.advantage,
        "lower": found.lower,
        "margin": found.margin,
        "confidence": found.confidence,
        "resamples": len(found.advantages),
        "clusters": found.clusters,
        "clustered_by": found.clustered_by,
        "histogram": {"edges": [float(e) for e in edges], "counts": [int(c) for c in counts]},
    }


def _page(case: Case, verdict: Verdict, record: dict[str, Any]) -> str:
    against = f"champion {verdict.champion_seen}" if verdict.champion_seen is not None else "no champion yet"
    rows = "\n".join(
        f'<tr class="{"ok" if c.passed else "no"}"><td>{"passed" if c.passed else "failed"}</td>'
        f"<td>{escape(c.name)}</td><td>{_shown(c.value)}</td><td>{_shown(c.threshold)}</td><td>{escape(c.why)}</td></tr>"
        for c in verdict.checks
    )
    plot = _plot(record["bootstrap"]) if record["bootstrap"] else ""
    title = f"{case.spec.name} {verdict.version}: {'passed' if verdict.passed else 'failed'}"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
h1 {{ font-size: 1.4rem }} table {{ border-collapse: collapse; width: 100% }}
td, th {{ text-align: left; padding: .35rem .6rem; border-bottom: 1px solid #ddd; vertical-align: top }}
.ok td:first-child {{ color: #1a7f37 }} .no td:first-child {{ color: #b42318; font-weight: 600 }}
svg {{ margin: 1rem 0; max-width: 100% }} .small {{ color: #666; font-size: .85rem }}
</style></head><body>
<h1>{escape(title)}</h1>
<p>Model <b>{escape(case.spec.name)}</b>, version <b>{escape(verdict.version)}</b>, trained as of {case.info.as_of}, \
judged against <b>{escape(against)}</b> on its frozen holdout.</p>
{plot}
<table><tr><th></th><th>check</th><th>value</th><th>threshold</th><th>why</th></tr>
{rows}
</table>
<p class="small">Run folder {escape(case.info.run_folder)}; model files {verdict.model_hash[:12]}; \
holdout rows {str(record["holdout_hash"])[:12]}.</p>
</body></html>
"""


def _plot(found: dict[str, Any]) -> str:
    """Draw the bootstrap's distribution with its lower bound and the margin."""
    edges, counts = found["histogram"]["edges"], found["histogram"]["counts"]
    low: float = min(edges[0], -found["margin"], 0.0)
    high: float = max(edges[-1], 0.0)
    span = (high - low) or 1.0
    top = max(counts) or 1

    def x(value: float) -> float:
        return 10 + round((value - low) / span * (_WIDTH - 20), 1)

    def anchor(at: float) -> str:
        return "start" if at < _WIDTH * 0.2 else "end" if at > _WIDTH * 0.8 else "middle"

    bars = "".join(
        f'<rect x="{x(left)}" y="{_HEIGHT - 30 - round(count / top * (_HEIGHT - 60), 1)}" '
        f'width="{max(1.0, round(x(right) - x(left) - 0.5, 1))}" height="{round(count / top * (_HEIGHT - 60), 1)}" '
        f'fill="{"#7aa7d9" if right > -found["margin"] else "#d98a7a"}"/>'
        for left, right, count in zip(edges[:-1], edges[1:], counts, strict=True)
    )
    floor = _HEIGHT - 30
    marks = "".join(
        f'<line x1="{x(value)}" x2="{x(value)}" y1="18" y2="{floor}" stroke="{colour}" stroke-dasharray="{dash}"/>'
        f'<text x="{x(value)}" y="{y}" font-size="11" text-anchor="{anchor(x(value))}" fill="{colour}">'
        f"{label} {value:.4f}</text>"
        for value, colour, dash, label, y in (
            (-found["margin"], "#b42318", "4 3", "accepted down to", _HEIGHT - 4),
            (found["lower"], "#1f4e8c", "none", "lower bound", 12),
        )
    )
    caption = (
        f"Advantage in {found['metric']} over the champion, {found['resamples']} resamples by {found['clustered_by']} "
        f"({found['clusters']}); the bound holds with confidence {found['confidence']:g}."
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" aria-label="{escape(caption)}">'
        f'{bars}<line x1="10" x2="{_WIDTH - 10}" y1="{_HEIGHT - 30}" y2="{_HEIGHT - 30}" stroke="#999"/>{marks}</svg>'
        f'<p class="small">{escape(caption)}</p>'
    )


def _shown(value: float | str | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return escape(str(value))
