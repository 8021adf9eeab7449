"""Which parameters a search tries next: Optuna's TPE, made afresh for every trial.

The parameters of trial n follow from the seed, n and the trials known by then, and from
nothing that lives in a process. So a trainer that goes on after a kill, or another pod,
proposes what the first one would have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from windsock.learners.learner import Params
from windsock.spec.estimators import BuiltIn, Choice, FloatRange, IntRange, SearchRange

if TYPE_CHECKING:
    from windsock.search.trials import Trial

_A_FOLD = 1000
"""Further than any round: who did a whole fold came further."""


class Sampler:
    """Proposes parameters for one search."""

    def __init__(self, estimator: BuiltIn, own: Params, *, seed: int, maximize: bool) -> None:
        self._ranges = dict(sorted(estimator.search.items()))
        self._own, self._seed, self.maximize = own, seed, maximize
        # Some trials at random first, or the sampler only looks around the first good one.
        self._startup = max(2, min(10, estimator.trials // 2))

    @property
    def space(self) -> Mapping[str, Any]:
        """Optuna's distribution of each parameter."""
        return {name: _distribution(wanted) for name, wanted in self._ranges.items()}

    def propose(self, number: int, finished: Sequence[Trial], running: Sequence[Params] = ()) -> Params:
        """Return the parameters of a trial.

        Args:
            number: The trial's.
            finished: Trials that are done, in order of their numbers.
            running: Parameters that others try at this moment; their neighbourhood is avoided.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        digest = hashlib.sha256(f"{self._seed}/{number}".encode()).digest()
        study = optuna.create_study(
            direction="maximize" if self.maximize else "minimize",
            sampler=optuna.samplers.TPESampler(
                seed=int.from_bytes(digest[:4], "big"), n_startup_trials=self._startup, constant_liar=True
            ),
        )
        space = self.space
        for trial in finished:
            if (known := self._known(trial, space)) is not None:
                study.add_trial(known)
        for params in running:
            state = optuna.trial.TrialState.RUNNING
            study.add_trial(optuna.create_trial(state=state, params=params, distributions=dict(space)))
        asked = study.ask(dict(space))
        return {name: _plain(wanted, asked.params[name]) for name, wanted in self._ranges.items()}

    def _known(self, trial: Trial, space: Mapping[str, Any]) -> Any:
        """Return a finished trial as Optuna sees it; None if there is nothing to learn from it."""
        import optuna

        params = trial.params if trial.number else {name: self._own.get(name) for name in space}
        # The spec's own parameters may lie outside the search space; then they only serve as the yardstick.
        if not all(_holds(wanted, params[name]) for name, wanted in self._ranges.items()):
            return None
        known: dict[str, Any] = {"params": params, "distributions": dict(space)}
        if trial.state == "complete":
            return None if trial.score is None else optuna.create_trial(value=trial.score, **known)
        # Optuna ranks pruned trials by how far they came, then by their last value. One that failed has
        # none and ranks behind them all, so that its neighbours are avoided.
        seen: dict[int, float] = {}
        if trial.means:
            seen = {_A_FOLD + len(trial.means): trial.means[-1]}
        elif trial.losses:
            seen = {len(trial.losses): trial.losses[-1] * (-1 if self.maximize else 1)}
        return optuna.create_trial(state=optuna.trial.TrialState.PRUNED, intermediate_values=seen, **known)


def _distribution(wanted: SearchRange) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(wanted, Choice):
        return CategoricalDistribution(wanted.values)
    if isinstance(wanted, FloatRange):
        return FloatDistribution(wanted.low, wanted.high, log=wanted.log)
    return IntDistribution(wanted.low, wanted.high, log=wanted.log)


def _holds(wanted: SearchRange, value: Any) -> bool:
    if isinstance(wanted, Choice):
        return value in wanted.values
    if isinstance(value, bool) or not isinstance(value, int | float):  # also: not given at all
        return False
    return wanted.low <= value <= wanted.high and (isinstance(wanted, FloatRange) or float(value).is_integer())


def _plain(wanted: SearchRange, value: Any) -> Any:
    """Return a value of the type that a file keeps, so that it is the same after a restart."""
    if isinstance(wanted, IntRange):
        return int(value)
    return float(value) if isinstance(wanted, FloatRange) else value
