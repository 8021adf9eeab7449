"""What the gate says of one version: a finding per check, and a verdict over all of them."""

import math
from dataclasses import asdict, dataclass
from typing import Any


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
    passed: bool
    checks: tuple[Check, ...]
    model_hash: str

    @property
    def failures(self) -> list[Check]:
        """The checks that were not passed."""
        return [c for c in self.checks if not c.passed]

    def sentence(self) -> str:
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
            "checks": [c.to_json() for c in self.checks],
        }
