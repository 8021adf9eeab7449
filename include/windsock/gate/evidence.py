"""What the gate leaves behind: a record for machines and a page (``report``) for people.

Both lie in the run folder, ``gate.json`` and ``gate.html`` for the latest verdict and
``gate/vs-<champion>.json`` for each champion it was held against.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from windsock.errors import GateFailed
from windsock.gate.compare import Comparison
from windsock.gate.context import GateContext
from windsock.gate.report import render
from windsock.gate.verdict import Verdict
from windsock.registry.versions import VersionInfo
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store

REPORT = "gate.html"
RECORD = "gate.json"

_BINS = 48


def keep(ctx: GateContext, verdict: Verdict) -> None:
    """Write record and page of a verdict into the challenger's run folder."""
    record = {
        **verdict.to_json(),
        "model": ctx.spec.name,
        "model_hash": verdict.model_hash,
        "holdout_hash": _or_none(lambda: ctx.holdout_hash),
        "metrics": _or_none(lambda: ctx.metrics),
        "bootstrap": _bootstrap(ctx.comparison) if ctx.comparison is not None else None,
    }
    page = render(record, ctx.info).encode()
    folder, against = ctx.info.run_folder, _against(verdict.champion_seen)
    ctx.store.write_bytes(page, folder, REPORT)
    ctx.store.write_bytes(page, folder, "gate", f"{against}.html")
    ctx.store.write_json(record, folder, "gate", f"{against}.json")
    ctx.store.write_json(record, folder, RECORD)


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


def _or_none(read: Callable[[], Any]) -> Any:
    """Return a value for the record, or None if it cannot be had: its check has failed and says why."""
    try:
        return read()
    except Exception:
        return None


def _bootstrap(found: Comparison) -> dict[str, Any]:
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
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }
