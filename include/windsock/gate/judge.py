"""Judging a challenger: every check is run, and what cannot be run has failed.

One exception is let through: a service that is away (``UpstreamUnavailable``). Then there
is no verdict at all, so nothing can be promoted, and the step is tried again.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any

from windsock.errors import UpstreamUnavailable
from windsock.gate import evidence
from windsock.gate.checks import ALL
from windsock.gate.context import GateContext
from windsock.gate.verdict import Check, Verdict
from windsock.settings import Settings
from windsock.spec import ModelSpec

log = logging.getLogger(__name__)


def judge(settings: Settings, spec: ModelSpec, version: str, champion: str | None) -> Verdict:
    """Run every check on a version, against a champion if there is one, and keep the evidence in its run folder.

    Raises:
        SpecError: There is no such version.
        UpstreamUnavailable: A service is away: no verdict.
    """
    ctx = GateContext(settings, spec, version, champion)
    checks = [check for function in ALL for check in _run(function, ctx)]
    verdict = Verdict(version, champion, all(c.passed for c in checks), tuple(checks), ctx.info.model_hash)
    for check in checks:
        level = logging.INFO if check.passed else logging.WARNING
        log.log(level, "%s %s: %s: %s", spec.name, version, check.name, check.why)
    evidence.keep(ctx, verdict)
    return verdict


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
