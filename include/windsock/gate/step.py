"""The ``gate`` step: judge a challenger against the champion in force, and show the verdict in MLflow.

Options: ``version`` (absent: the one with the alias ``challenger``).

Every check is run, and what cannot be run has failed. One exception is let through: a
service that is away (``UpstreamUnavailable``). Then there is no verdict at all, so nothing
can be promoted, and the step is tried again.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any

from windsock import promotions
from windsock.errors import GateFailed, UpstreamUnavailable, WindsockError
from windsock.gate.checks import ALL
from windsock.gate.context import GateContext
from windsock.gate.verdict import REPORT, Check, Verdict, keep
from windsock.registry.aliases import challenger_version, reconcile
from windsock.registry.client import asking_mlflow, mlflow_client
from windsock.registry.versions import version_info
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.steps import StepContext
from windsock.store import Store

log = logging.getLogger(__name__)

_LONGEST_TAG = 4000


def run(ctx: StepContext) -> dict[str, Any]:
    """Judge a version.

    Returns:
        ``version``, ``champion_seen``, ``passed``, ``checks`` and ``report``.

    Raises:
        GateFailed: It did not pass; the evidence has been kept.
        UpstreamUnavailable: MLflow or the store is away: no verdict.
    """
    settings, spec = ctx.settings, ctx.spec
    reconcile(settings, spec)
    version = ctx.options.get("version")
    version = str(version) if version is not None else challenger_version(settings, spec)
    champion = promotions.current(settings, spec)
    verdict = judge(settings, spec, version, champion.version if champion is not None else None)
    publish(settings, spec, verdict)
    report = f"{version_info(settings, spec, version).run_folder}/{REPORT}"
    if not verdict.passed:
        stays = f"version {champion.version}" if champion is not None else "none"
        raise GateFailed(f"{spec.name}: {verdict.sentence()} The evidence is in {report}; champion stays {stays}.")
    log.info("%s: %s", spec.name, verdict.sentence())
    return {**verdict.to_json(), "report": report}


def judge(settings: Settings, spec: ModelSpec, version: str, champion: str | None) -> Verdict:
    """Run every check on a version, against a champion if there is one, and keep the evidence in its run folder.

    Raises:
        SpecError: There is no such version.
        UpstreamUnavailable: A service is away: no verdict.
    """
    ctx = GateContext(settings, spec, version, champion)
    checks = tuple(check for function in ALL for check in _run(function, ctx))
    verdict = Verdict(version, champion, checks, ctx.info.model_hash)
    for check in checks:
        level = logging.INFO if check.passed else logging.WARNING
        log.log(level, "%s %s: %s: %s", spec.name, version, check.name, check.why)
    keep(ctx, verdict)
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
        log.warning("%s: check %s could not be run", ctx.spec.name, function.__name__, exc_info=True)
        text = " ".join(str(err).split())[:500]
        yield Check(function.__name__, False, None, None, f"Could not be run: {type(err).__name__}: {text}")
