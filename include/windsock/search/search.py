"""Choosing parameters: Optuna over time-ordered folds, the spec's own parameters first.

Each parameter set is trained on every fold with early stopping on the fold's loss. A
found set replaces the spec's own only if its metric is better on average and in most
folds: with few folds, the best of many trials is mostly luck.

Read on: ``trials`` runs one trial, ``study`` keeps them (in a file, or in a database
that several pods share), ``sampling`` proposes parameters, ``pruning`` stops what will
not get far, ``budget`` says when to stop asking.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

from windsock.dataset.folds import Fold
from windsock.learners import ranks
from windsock.learners.learner import Learner, Params
from windsock.learners.rows import Rows
from windsock.runs.checkpoints import CheckpointFolder
from windsock.search.budget import Budget, gpus_held
from windsock.search.pruning import Prunes, loss_is_comparable
from windsock.search.sampling import Sampler
from windsock.search.study import Claim, OwnStudy, SharedStudy, Study, Turn, fingerprint
from windsock.search.trials import Course, Trial, TrialWatch, split
from windsock.served.metrics import better
from windsock.spec import ModelSpec
from windsock.spec.estimators import BuiltIn
from windsock.spec.modelling import LOWER_IS_BETTER

__all__ = ["Choosing", "Trial", "TrialWatch", "choose", "take_part"]

log = logging.getLogger(__name__)

_POLL_S = 2.0


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


def choose(
    learner: Learner,
    spec: ModelSpec,
    estimator: BuiltIn,
    rows: Rows,
    folds: Sequence[Fold],
    *,
    checkpoints: CheckpointFolder | None = None,
    shared_study: SharedStudy | None = None,
    watch: TrialWatch | None = None,
) -> Choosing:
    """Search for parameters and rounds within the training window.

    Args:
        learner: The kind of model.
        spec: The model.
        estimator: Parameters, search space and budget.
        rows: The training window.
        folds: From :func:`windsock.dataset.folds.time_folds`.
        checkpoints: Where finished trials and the progress of the running one are kept.
        shared_study: The study of several trainers; what they left over is done here.
        watch: Told of every trial.

    Raises:
        SpecError: The spec's own parameters are refused.
        UpstreamUnavailable: The shared study's database is away.
    """
    search = _Search.of(learner, spec, estimator, rows, folds, checkpoints, shared_study, watch)
    own = learner.own_params()
    if search is None:
        note = "the window holds no usable fold, so the spec's own parameters are used as they are"
        log.info("%s: %s", spec.name, note)
        return Choosing(own, learner.most_rounds, 0, note=note)
    search.run(wait=True)
    trials, over = search.trials()
    best = _best(spec.training.metric, trials)
    note = ""
    if over:
        done = sum(t.state != "failed" for t in trials)
        note = f"the search ended with {done} of {search.budget.trials} trials done: it has used up {over}"
        log.info("%s: %s", spec.name, note)
    kept = tuple(s.fold for s in search.course.splits)
    return Choosing({**own, **best.params}, best.rounds, best.number, tuple(trials), kept, note)


def take_part(
    learner: Learner,
    spec: ModelSpec,
    estimator: BuiltIn,
    rows: Rows,
    folds: Sequence[Fold],
    *,
    checkpoints: CheckpointFolder | None = None,
    shared_study: SharedStudy | None = None,
    watch: TrialWatch | None = None,
) -> int:
    """Run trials of a shared study until its budget is used up; arguments as for :func:`choose`.

    Returns:
        How many trials were done here.

    Raises:
        SpecError: The spec's own parameters are refused.
        UpstreamUnavailable: The study's database is away.
    """
    search = _Search.of(learner, spec, estimator, rows, folds, checkpoints, shared_study, watch)
    return 0 if search is None else search.run(wait=False)


@dataclass(frozen=True)
class _Search:
    course: Course
    budget: Budget
    study: Study | None
    """None where another process (rank 0) decides."""

    @classmethod
    def of(
        cls,
        learner: Learner,
        spec: ModelSpec,
        estimator: BuiltIn,
        rows: Rows,
        folds: Sequence[Fold],
        checkpoints: CheckpointFolder | None,
        shared_study: SharedStudy | None,
        watch: TrialWatch | None,
    ) -> _Search | None:
        """Return the search, joined where others have begun it; None without usable folds."""
        own, budget, gpus = learner.own_params(), Budget.of(estimator), gpus_held(estimator)
        splits = [s for fold in folds if (s := split(spec, rows, fold)) is not None]
        if not splits:
            return None
        if budget.gpu_hours is not None and gpus == 0:
            log.info(
                "%s: there is no GPU here, so the budget of %g GPU-hours ends nothing", spec.name, budget.gpu_hours
            )
        maximize = spec.training.metric not in LOWER_IS_BETTER
        sampler = Sampler(estimator, own, seed=spec.training.seed, maximize=maximize)
        opened: list[Study] = []

        def open_study() -> str:
            mark = fingerprint(learner, spec, estimator, rows, folds)
            if shared_study is None:
                opened.append(OwnStudy(mark, sampler, budget, checkpoints))
                return ""
            from windsock.search.shared_study import JoinedStudy

            opened.append(JoinedStudy(shared_study, mark, sampler, budget, gpus))
            return f"study-{mark[:12]}"

        folder = ranks.shared(open_study)
        if checkpoints is not None and folder:
            checkpoints = checkpoints.sub(folder)
        prunes = Prunes(
            most_rounds=learner.most_rounds,
            maximize=maximize,
            by_round=loss_is_comparable(estimator.search),
            active=estimator.budget.pruning,
        )
        course = Course(learner, spec, splits, own, prunes, gpus, checkpoints, watch)
        return cls(course, budget, opened[0] if opened else None)

    def run(self, *, wait: bool) -> int:
        """Run trials until there are none left; with ``wait``, also until the others' are done."""
        done, waits = 0, 0
        while True:
            turn = ranks.shared(self._claim)
            if turn is Turn.OVER or (turn is Turn.WAIT and not wait):
                return done
            if isinstance(turn, Turn):
                if waits == 0:
                    log.info("%s: waiting for the trials that other processes run", self.course.spec.name)
                waits += 1
                time.sleep(_POLL_S)
                continue
            waits = 0
            done += self._run(turn)

    def trials(self) -> tuple[list[Trial], str]:
        """Return the trials that are done and, if that ended the search early, what was used up."""
        return ranks.shared(self._trials)

    def _run(self, claim: Claim) -> bool:
        finished = ranks.shared(self._finished)
        with self.study.running(claim) if self.study is not None else nullcontext():
            trial = self.course.run(claim.number, claim.params, finished)
        trial = replace(trial, seconds=trial.seconds + claim.seconds)
        kept = ranks.shared(partial(self._finish, claim, trial))
        if self.study is not None and kept:
            self.course.clear(claim.number)
            self._tell(trial, [*finished, trial])
        return kept

    def _tell(self, trial: Trial, finished: Sequence[Trial]) -> None:
        assert self.study is not None
        spec = self.course.spec
        if trial.state == "complete":
            scores = ", ".join(_shown(s) for s in trial.folds)
            did = f"{spec.training.metric} {_shown(trial.score)} (folds: {scores}), {trial.rounds} rounds"
        else:
            did = f"{trial.state}: {trial.reason}"
        log.info(
            "%s: trial %d: %s, %.1f s%s; %s",
            spec.name, trial.number + 1, did, trial.seconds,
            "" if trial.number else "; the spec's own parameters",
            self.budget.state(finished, elapsed_s=self.study.elapsed_s()),
        )  # fmt: skip
        if self.course.watch is not None:
            self.course.watch.trial(trial.number, trial.score, trial.state)

    # What follows is called on rank 0 alone.

    def _claim(self) -> Claim | Turn:
        assert self.study is not None
        return self.study.claim()

    def _finished(self) -> list[Trial]:
        assert self.study is not None
        return self.study.finished()

    def _finish(self, claim: Claim, trial: Trial) -> bool:
        assert self.study is not None
        return self.study.finish(claim, trial)

    def _trials(self) -> tuple[list[Trial], str]:
        assert self.study is not None
        trials, over = self.study.finished(), self.study.why_over
        if sum(t.state != "failed" for t in trials) >= self.budget.trials:
            return trials, ""
        return trials, over


def _best(metric: str, trials: Sequence[Trial]) -> Trial:
    """Return the best trial that beats the spec's own parameters convincingly, else the spec's own."""
    own = best = trials[0]
    for trial in trials[1:]:
        if trial.state != "complete" or trial.score is None:
            continue
        if own.score is None or best.score is None:
            best = trial
            continue
        pairs = zip(trial.folds, own.folds, strict=True)
        wins = sum(a is not None and b is not None and better(metric, a, b) for a, b in pairs)
        if better(metric, trial.score, best.score) and 2 * wins > len(trial.folds):
            best = trial
    return best


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
