"""When a search ends: trials, minutes since its first one began, GPU-hours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from windsock.learners import ranks
from windsock.spec.estimators import BuiltIn, TorchSpec

if TYPE_CHECKING:
    from windsock.search.trials import Trial

_MINUTE_S = 60.0
_HOUR_S = 3600.0


@dataclass(frozen=True)
class Budget:
    """What a search may use, all its processes together."""

    trials: int
    """Complete and pruned ones; as many again may fail."""
    minutes: float | None = None
    gpu_hours: float | None = None

    @classmethod
    def of(cls, estimator: BuiltIn) -> Self:
        """Return an estimator's budget; without a search space there is only the first trial."""
        count = estimator.trials if estimator.search else 1
        return cls(count, estimator.budget.minutes, estimator.budget.gpu_hours)

    def used_up(
        self, finished: Sequence[Trial], *, elapsed_s: float, taken: int = 0, gpu_s: float | None = None
    ) -> str | None:
        """Return what is used up, in words; None while another trial may begin.

        Args:
            finished: All trials that are done.
            elapsed_s: Since the first trial began.
            taken: Trials that others run at this moment, or that wait to be run again.
            gpu_s: GPU-seconds used; default: those of the finished trials.
        """
        failed = sum(t.state == "failed" for t in finished)
        if len(finished) - failed + taken >= self.trials:
            return f"its {self.trials} trials" if self.trials > 1 else "its trial"
        if failed >= self.trials:
            return f"the failures it bears ({failed} trials failed, the last one: {_last_reason(finished)})"
        if self.minutes is not None and elapsed_s >= self.minutes * _MINUTE_S:
            return f"its {self.minutes:g} minutes"
        if (
            self.gpu_hours is not None
            and (gpu_seconds(finished) if gpu_s is None else gpu_s) >= self.gpu_hours * _HOUR_S
        ):
            return f"its {self.gpu_hours:g} GPU-hours"
        return None

    def state(self, finished: Sequence[Trial], *, elapsed_s: float) -> str:
        """Return how far the search has come and what is left of it, in words."""
        parts = [f"{sum(t.state != 'failed' for t in finished)} of {self.trials} done"]
        if self.minutes is not None:
            parts.append(f"{max(0.0, self.minutes - elapsed_s / _MINUTE_S):.1f} min left")
        if self.gpu_hours is not None:
            parts.append(f"{max(0.0, self.gpu_hours - gpu_seconds(finished) / _HOUR_S):.2f} GPU-hours left")
        return ", ".join(parts)


def gpu_seconds(finished: Sequence[Trial]) -> float:
    """Return the GPU time of some trials."""
    return sum(t.seconds * t.gpus for t in finished)


def gpus_held(estimator: BuiltIn) -> int:
    """Return how many GPUs this training keeps from others: those asked for, or those it uses."""
    asked = estimator.compute.gpu or 0
    if not isinstance(estimator, TorchSpec):
        return asked
    from windsock.learners.neural.device import choose_device

    return max(asked, ranks.world() if choose_device().type == "cuda" else 0)


def _last_reason(finished: Sequence[Trial]) -> str:
    return next((t.reason for t in reversed(finished) if t.state == "failed"), "")
