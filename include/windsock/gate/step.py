"""The ``gate`` step: judge a challenger against the champion in force, and show the verdict in MLflow.

Options: ``version`` (absent: the one with the alias ``challenger``); for a refit its judged twin is judged.

Every check is run, and what cannot be run has failed. One exception is let through: a service that is away
(``UpstreamUnavailable``). Then there is no verdict at all, so nothing can be promoted, and the step is tried again.

A verdict leaves a record for machines and a page for people in the run folder: ``gate.json`` and ``gate.html`` for the
latest one, and ``gate/vs-<champion>.json`` for each champion the version was held against. The page stands alone, with
no script, style or picture from elsewhere; it is ``report.html.jinja`` beside this module.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from windsock import promotions
from windsock.errors import GateFailed, UpstreamUnavailable, WindsockError
from windsock.faults import fault_behind
from windsock.gate.checks import ALL
from windsock.gate.compare import Comparison
from windsock.gate.context import Check, GateContext
from windsock.gate.sequential import Look
from windsock.registry.client import asking_mlflow, mlflow_client
from windsock.registry.versions import challenger_version, reconcile
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.steps import StepContext
from windsock.store import Store, to_json
from windsock.tables import content_hash
from windsock.version_index import VersionInfo, judged_twin, version_info

log = logging.getLogger(__name__)

REPORT = "gate.html"
_LONGEST_TAG = 4000
_BINS = 48


@dataclass(frozen=True)
class Verdict:
    """What the gate found out about one version."""

    version: str
    champion_seen: str | None
    """The champion it was compared with; a promotion is only good against this one."""
    checks: tuple[Check, ...]
    model_hash: str
    look: Look | None = None
    """Of a recovery: which trial after the drift it was."""

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
            said = f"Version {self.version} passed all {len(self.checks)} checks."
            return f"{said} {self.look.sentence()}" if self.look is not None else said
        reasons = " ".join(f"[{c.name}] {c.why}" for c in self.failures)
        return f"Version {self.version} failed {len(self.failures)} of {len(self.checks)} checks: {reasons}"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        checks = [c.to_json() for c in self.checks]
        look = {"look": asdict(self.look)} if self.look is not None else {}
        return {
            "version": self.version,
            "champion_seen": self.champion_seen,
            "passed": self.passed,
            "checks": checks,
            **look,
        }


def run(ctx: StepContext) -> dict[str, Any]:
    """Judge a version.

    Returns:
        ``version``, ``champion_seen``, ``passed``, ``checks``, ``why`` (the verdict as sentences) and ``report``. A
        version that did not pass is a result like any other: the evidence is kept, and nothing promotes it.

    Raises:
        UpstreamUnavailable: MLflow or the store is away: no verdict.
    """
    settings, spec = ctx.settings, ctx.spec
    reconcile(settings, spec)
    version = ctx.options.get("version")
    version = str(version) if version is not None else challenger_version(settings, spec)
    version = judged_twin(settings, spec, version_info(settings, spec, version)).version  # a refit is never judged
    champion = promotions.current(settings, spec)
    verdict = judge(settings, spec, version, champion.version if champion is not None else None)
    publish(settings, spec, verdict)
    report = f"{version_info(settings, spec, version).run_folder}/{REPORT}"
    why = verdict.sentence()
    if not verdict.passed:
        stays = f"version {champion.version}" if champion is not None else "none"
        why += f" The evidence is in {report}; champion stays {stays}."
    log.log(logging.INFO if verdict.passed else logging.WARNING, "%s: %s", spec.name, why)
    return {**verdict.to_json(), "why": why, "report": report}


def judge(settings: Settings, spec: ModelSpec, version: str, champion: str | None) -> Verdict:
    """Run every check on a version, against a champion if there is one, and keep the evidence in its run folder.

    Raises:
        SpecError: There is no such version.
        UpstreamUnavailable: A service is away: no verdict.
    """
    ctx = GateContext(settings, spec, version, champion)
    checks = tuple(check for function in ALL for check in _run(function, ctx))
    verdict = Verdict(version, champion, checks, ctx.info.model_hash, ctx.look)
    for check in checks:
        level = logging.INFO if check.passed else logging.WARNING
        log.log(level, "%s %s: %s: %s", spec.name, version, check.name, check.why)
    if end_of_day := spec.features.as_of_end_of_day:
        log.warning("%s %s: features of %s are as of the end of the day", spec.name, version, ", ".join(end_of_day))
    _keep(ctx, verdict)
    return verdict


def publish(settings: Settings, spec: ModelSpec, verdict: Verdict) -> None:
    """Set the verdict as tags of the version in MLflow and put the page beside its run; for people only."""
    info = version_info(settings, spec, verdict.version)
    client = mlflow_client(settings)
    tags = {
        "windsock.gate": "passed" if verdict.passed else "failed",
        "windsock.gate.champion": verdict.champion_seen or "none",
        "windsock.gate.why": verdict.sentence()[:_LONGEST_TAG],
    }
    page = Store.of(settings).read_bytes(info.run_folder, REPORT).decode()
    try:
        with asking_mlflow(settings, f"show the verdict on {spec.name} {verdict.version}"):
            for name, value in tags.items():
                client.set_model_version_tag(spec.name, verdict.version, name, value)
            client.log_text(info.mlflow_run, page, REPORT)
    except WindsockError as err:
        # The verdict in the run folder decides; MLflow only shows it.
        log.warning("%s", err)


def _run(function: Callable[[GateContext], Any], ctx: GateContext) -> Iterator[Check]:
    """Run one check function, which gives one check or several; an exception is a failed check."""
    try:
        found = function(ctx)
        yield from [found] if isinstance(found, Check) else list(found)
    except UpstreamUnavailable:
        raise
    except Exception as err:  # whatever goes wrong in judging must never let a model pass
        if (fault := fault_behind(err)) is not None:  # it says nothing about the model
            raise fault from err
        log.warning("%s: check %s could not be run", ctx.spec.name, function.__name__, exc_info=True)
        # People are told of it elsewhere, and what a library says may quote values of rows.
        text = f": {' '.join(str(err).split())[:500]}" if isinstance(err, WindsockError) else ". The log has more."
        yield Check(function.__name__, False, None, None, f"Could not be run: {type(err).__name__}{text}")


def _keep(ctx: GateContext, verdict: Verdict) -> None:
    """Write record and page of a verdict into the challenger's run folder."""
    record = {
        **verdict.to_json(),
        "model": ctx.spec.name,
        "model_hash": verdict.model_hash,
        "recovery": ctx.recovery,
        "holdout_hash": _or_none(lambda: content_hash(ctx.holdout)),
        "metrics": _or_none(lambda: ctx.metrics),
        "rules": rules_of(ctx.spec),
        "as_of_end_of_day": list(ctx.spec.features.as_of_end_of_day),
        "unfair": _or_none(lambda: ctx.unfair),
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
    if record.get("rules", rules_of(spec)) != rules_of(spec):
        log.info("%s: the gate's rules have changed since version %s was judged", spec.name, info.version)
        return None
    if record.get("passed") is not True:
        failed = [c["name"] for c in record.get("checks", []) if not c["passed"]]
        raise GateFailed(
            f"{spec.name}: version {info.version} did not pass the gate against champion {champion or 'none'} "
            f"({', '.join(failed) or 'no checks recorded'}), so it is not promoted. See {info.run_folder}/{REPORT}."
        )
    return record


def rules_of(spec: ModelSpec) -> str:
    """Return a SHA-256 over what a verdict depends on beside the models: a stored one is good for these rules alone."""
    training = spec.training
    rules = [spec.gate.model_dump(mode="json"), training.evaluation.model_dump(mode="json"), training.metric]
    return hashlib.sha256(to_json(rules)).hexdigest()


def summary_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the few lines of a verdict that a promotion keeps."""
    checks = record["checks"]
    return {
        "passed": record["passed"],
        "champion_seen": record["champion_seen"],
        "checks": len(checks),
        "failed": [c["name"] for c in checks if not c["passed"]],
        "values": {c["name"]: c["value"] for c in checks if isinstance(c["value"], float)},
        **({"look": record["look"]} if record.get("look") else {}),
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
