"""Choosing parameters: Optuna over time-ordered folds, the spec's own parameters first.

Each parameter set is trained on every fold with early stopping on the fold's loss. The
number of rounds is where the mean loss curve is lowest; loss is smooth where ranking
metrics of a few hundred positives jump. A found set replaces the spec's own only if its
metric is better on average and in most folds: with few folds, the best of many trials
is mostly luck.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from windsock.spec import ModelSpec
from windsock.spec.modelling import LOWER_IS_BETTER, Choice, FloatRange, SearchRange
from windsock.training.booster import Params, Rows, own_params, train
from windsock.training.folds import Fold
from windsock.training.matrix import Feature
from windsock.training.metrics import better, judge

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """One parameter set and how it did."""

    number: int
    params: Params
    """What the search changed; empty for the spec's own parameters."""
    rounds: int
    score: float | None
    """Mean of the folds; None if a fold could not be judged."""
    folds: tuple[float | None, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "number": self.number,
            "params": self.params,
            "rounds": self.rounds,
            "score": self.score,
            "folds": list(self.folds),
        }


@dataclass(frozen=True)
class Choosing:
    """What the search chose, and from what."""

    params: Params
    rounds: int
    chosen: int
    """Number of the trial; 0: the spec's own parameters."""
    trials: tuple[Trial, ...] = ()
    folds: tuple[Fold, ...] = ()
    note: str = ""


def choose(spec: ModelSpec, features: Sequence[Feature], rows: Rows, folds: Sequence[Fold]) -> Choosing:
    """Search for parameters and rounds within the training window.

    Args:
        spec: The model; its estimator holds parameters, search space and budget.
        features: Model inputs.
        rows: The training window.
        folds: From :func:`windsock.training.folds.time_folds`.

    Raises:
        SpecError: LightGBM refuses a parameter.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    estimator, own = spec.training.estimator, own_params(spec)
    splits = [_Split(fold, *parts) for fold in folds if (parts := _split(spec, rows, fold)) is not None]
    if not splits:
        note = "the window holds no usable fold, so the spec's own parameters are used as they are"
        log.info("%s: %s", spec.name, note)
        return Choosing(own, estimator.rounds, 0, note=note)
    startup = max(2, min(10, estimator.trials // 2))
    study = optuna.create_study(
        direction="minimize" if spec.training.metric in LOWER_IS_BETTER else "maximize",
        sampler=optuna.samplers.TPESampler(seed=spec.training.seed, n_startup_trials=startup),
    )
    space = {name: _distribution(wanted) for name, wanted in sorted(estimator.search.items())}
    count = estimator.trials if space else 1
    trials: list[Trial] = []
    for number in range(count):
        started = time.monotonic()
        asked = study.ask(space) if number else None
        trial = _try(spec, features, number, own, dict(asked.params) if asked is not None else {}, splits)
        if asked is None:
            # The spec's own parameters may lie outside the search space; then they only serve as the yardstick.
            with contextlib.suppress(ValueError, KeyError):
                params = {name: own[name] for name in space}
                study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=trial.score))
        elif trial.score is None:
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(asked, trial.score)
        trials.append(trial)
        log.info(
            "%s: trial %d of %d: %s %s (folds: %s), %d rounds, %.1f s%s",
            spec.name, number + 1, count, spec.training.metric, _shown(trial.score),
            ", ".join(_shown(s) for s in trial.folds), trial.rounds, time.monotonic() - started,
            "" if number else "; the spec's own parameters",
        )  # fmt: skip
    best = _best(spec.training.metric, trials)
    return Choosing({**own, **best.params}, best.rounds, best.number, tuple(trials), tuple(s.fold for s in splits))


@dataclass(frozen=True)
class _Split:
    fold: Fold
    learn: Rows
    judge: Rows


def _split(spec: ModelSpec, rows: Rows, fold: Fold) -> tuple[Rows, Rows] | None:
    """Cut the rows; None if a side is empty or has one class."""
    learn = rows.where(np.isin(rows.days, [d.isoformat() for d in fold.learn]))
    judged = rows.where(np.isin(rows.days, [d.isoformat() for d in fold.judge]))
    if judged.blocked_by is not None and learn.blocked_by is not None:
        judged = judged.where(~np.isin(judged.blocked_by, np.unique(learn.blocked_by[learn.y == 1])))
    for part in (learn, judged):
        if len(part.y) == 0 or (spec.label.task == "binary" and len(np.unique(part.y)) < 2):
            return None
    return learn, judged


def _try(
    spec: ModelSpec, features: Sequence[Feature], number: int, own: Params, changed: Params, splits: Sequence[_Split]
) -> Trial:
    params = {**own, **changed}
    trained = [train(spec, features, params, s.learn, spec.training.estimator.rounds, s.judge) for s in splits]
    longest = max(len(curve) for _, curve in trained)
    # A fold that stopped early keeps its last loss, so that no fold counts less in the later rounds.
    mean = np.mean([np.pad(curve, (0, longest - len(curve)), mode="edge") for _, curve in trained], axis=0)
    rounds = int(np.argmin(mean)) + 1
    scores = []
    for (booster, curve), split in zip(trained, splits, strict=True):
        predicted = booster.predict(split.judge.x, num_iteration=min(rounds, len(curve)))
        values = judge(spec, split.judge.y, predicted, split.judge.days, split.judge.entities)
        scores.append(values[spec.training.metric])
    known = [s for s in scores if s is not None]
    return Trial(number, changed, rounds, float(np.mean(known)) if len(known) == len(scores) else None, tuple(scores))


def _best(metric: str, trials: Sequence[Trial]) -> Trial:
    """Return the best trial that beats the spec's own parameters convincingly, else the spec's own."""
    own = best = trials[0]
    for trial in trials[1:]:
        if trial.score is None:
            continue
        if own.score is None or best.score is None:
            best = trial
            continue
        pairs = zip(trial.folds, own.folds, strict=True)
        wins = sum(a is not None and b is not None and better(metric, a, b) for a, b in pairs)
        if better(metric, trial.score, best.score) and 2 * wins > len(trial.folds):
            best = trial
    return best


def _distribution(wanted: SearchRange) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(wanted, Choice):
        return CategoricalDistribution(wanted.values)
    if isinstance(wanted, FloatRange):
        return FloatDistribution(wanted.low, wanted.high, log=wanted.log)
    return IntDistribution(wanted.low, wanted.high, log=wanted.log)


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
