"""What the gate says of one version, and what it leaves behind: a record for machines and a page for people.

Both lie in the run folder, ``gate.json`` and ``gate.html`` for the latest verdict and
``gate/vs-<champion>.json`` for each champion it was held against. The page stands alone,
with no script, style or picture from elsewhere; it is ``report.html.jinja`` beside this module.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from windsock.errors import GateFailed
from windsock.gate.compare import Comparison
from windsock.gate.context import GateContext
from windsock.registry.versions import VersionInfo
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store
from windsock.tables import content_hash

REPORT = "gate.html"

_BINS = 48


@dataclass(frozen=True)
class Check:
    """One finding of the gate."""

    name: str
    passed: bool
    value: float | str | None
    threshold: float | str | None
    why: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types, without NaN."""
        value = self.value
        if isinstance(value, float) and not math.isfinite(value):
            value = str(value)
        return {**asdict(self), "passed": bool(self.passed), "value": value}


@dataclass(frozen=True)
class Verdict:
    """What the gate found out about one version."""

    version: str
    champion_seen: str | None
    """The champion it was compared with; a promotion is only good against this one."""
    checks: tuple[Check, ...]
    model_hash: str

    @property
    def failures(self) -> list[Check]:
        """The checks that were not passed."""
        return [c for c in self.checks if not c.passed]

    @property
    def passed(self) -> bool:
        """Whether every check was passed."""
        return not self.failures

    def sentence(self) -> str:
        """Return the verdict as sentences, the reasons first."""
        if self.passed:
            return f"Version {self.version} passed all {len(self.checks)} checks."
        reasons = " ".join(f"[{c.name}] {c.why}" for c in self.failures)
        return f"Version {self.version} failed {len(self.failures)} of {len(self.checks)} checks: {reasons}"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        checks = [c.to_json() for c in self.checks]
        return {"version": self.version, "champion_seen": self.champion_seen, "passed": self.passed, "checks": checks}


def keep(ctx: GateContext, verdict: Verdict) -> None:
    """Write record and page of a verdict into the challenger's run folder."""
    record = {
        **verdict.to_json(),
        "model": ctx.spec.name,
        "model_hash": verdict.model_hash,
        "holdout_hash": _or_none(lambda: content_hash(ctx.holdout)),
        "metrics": _or_none(lambda: ctx.metrics),
        "bootstrap": _bootstrap(ctx.comparison) if ctx.comparison is not None else None,
    }
    pages = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)
    page = pages.get_template("report.html.jinja").render(record=record, info=ctx.info).encode()
    store, folder, against = ctx.store, ctx.info.run_folder, _against(verdict.champion_seen)
    store.write_bytes(page, folder, REPORT)
    store.write_bytes(page, folder, "gate", f"{against}.html")
    store.write_json(record, folder, "gate", f"{against}.json")
    store.write_json(record, folder, "gate.json")


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
    plain = asdict(found)
    counts, edges = np.histogram(plain.pop("advantages"), bins=_BINS)
    histogram = {"edges": edges.tolist(), "counts": counts.tolist()}
    return {**plain, "advantage": found.advantage, "resamples": len(found.advantages), "histogram": histogram}
