"""The ``gate`` step: judge a challenger against the champion in force, and say so in MLflow.

Options: ``version`` (absent: the one with the alias ``challenger``).
"""

import logging
from typing import Any

from windsock import promotions
from windsock.errors import GateFailed, WindsockError
from windsock.gate.evidence import REPORT
from windsock.gate.judge import judge
from windsock.gate.verdict import Verdict
from windsock.registry.aliases import reconcile
from windsock.registry.client import asking_mlflow, mlflow_client
from windsock.registry.models import challenger_version
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
    report = f"{version_info(settings, spec, version).run_folder}/{REPORT}"
    publish(settings, spec, verdict)
    if not verdict.passed:
        stays = f"version {champion.version}" if champion is not None else "none"
        raise GateFailed(f"{spec.name}: {verdict.sentence()} The evidence is in {report}; champion stays {stays}.")
    log.info("%s: %s", spec.name, verdict.sentence())
    return {**verdict.to_json(), "report": report}


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
