"""Judging a challenger: every check is run, and what cannot be run has failed.

One exception is let through: a service that is away (``UpstreamUnavailable``). Then there
is no verdict at all, so nothing can be promoted, and the step is tried again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from windsock.errors import UpstreamUnavailable
from windsock.gate import evidence
from windsock.gate.case import Case
from windsock.gate.checks import ALL, Check, as_json
from windsock.settings import Settings
from windsock.spec import ModelSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verdict:
    """What the gate found out about one version."""

    version: str
    champion_seen: str | None
    """The champion it was compared with; a promotion is only good against this one."""
    passed: bool
    checks: tuple[Check, ...]
    model_hash: str

    @property
    def failures(self) -> list[Check]:
        """The checks that were not passed."""
        return [c for c in self.checks if not c.passed]

    def told(self) -> str:
        """Return the verdict as sentences, the reasons first."""
        if self.passed:
            return f"Version {self.version} passed all {len(self.checks)} checks."
        reasons = " ".join(f"[{c.name}] {c.why}" for c in self.failures)
        return f"Version {self.version} failed {len(self.failures)} of {len(self.checks)} checks: {reasons}"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "version": self.version,
            "champion_seen": self.champion_seen,
            "passed": self.passed,
            "checks": [as_json(c) for c in self.checks],
        }


def judge(settings: Settings, spec: ModelSpec, version: str, champion: str | None) -> Verdict:
    """Run every check on a version and keep the evidence in its run folder.

    Args:
        settings: This installation.
        spec: The model.
        version: The challenger.
        champion: The champion in force, or None before the first promotion.

    Raises:
        SpecError: There is no such version.
        UpstreamUnavailable: A service is away: no verdict.
    """
    case = Case(settings, spec, version, champion)
    checks = [check for function in ALL for check in _run(function, case)]
    verdict = Verdict(version, champion, all(c.passed for c in checks), tuple(checks), case.info.model_hash)
    for check in checks:
        level = logging.INFO if check.passed else logging.WARNING
        log.log(level, "%s %s: %s: %s", spec.name, version, check.name, check.why)
    evidence.keep(case, verdict)
    return verdict


def _run(function: Callable[[Case], Any], case: Case) -> Iterator[Check]:
    """Run one check function, which gives one check or several; an exception is a failed check."""
    try:
        found = function(case)
        yield from [found] if isinstance(found, Check) else list(found)
    except UpstreamUnavailable:
        raise
    except Exception as err:  # whatever goes wrong in judging must never let a model pass
        log.warning("%s: check %s could not be run", case.spec.name, function.__name__, exc_info=True)
        text = " ".join(str(err).split())[:500]
        yield Check(function.__name__, False, None, None, f"Could not be run: {type(err).__name__}: {text}")
