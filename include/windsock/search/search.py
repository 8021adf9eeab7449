"""Choosing parameters: Optuna over time-ordered folds, the spec's own parameters first.

Each parameter set is trained on every fold with early stopping on the fold's loss. A
found set replaces the spec's own only if its metric is better on average and in most
folds: with few folds, the best of many trials is mostly luck.

Read on: ``loop`` takes trials from Optuna's study, ``study`` keeps it (in a file, or in a
database that several pods share), ``trials`` runs one trial, ``pruning`` stops what will
not get far.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from windsock.dataset.folds import Fold
from windsock.learners.learner import Params
from windsock.search.loop import Ended, run_trials
from windsock.search.study import open_database, open_file
from windsock.search.trials import Search, Trial
from windsock.served.metrics import better

log = logging.getLogger(__name__)


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


def choose(search: Search) -> Choosing:
    """Run the trials that are left, wait for those of others, and choose.

    Raises:
        SpecError: The spec's own parameters are refused.
        UpstreamUnavailable: The shared study's database is away.
    """
    name, own = search.spec.name, search.learner.own_params()
    if not search.splits:
        note = "the window holds no usable fold, so the spec's own parameters are used as they are"
        log.info("%s: %s", name, note)
        return Choosing(own, search.learner.most_rounds, 0, note=note)
    ended = _run(search, wait=True)
    note, done = "", sum(t.state != "failed" for t in ended.trials)
    wanted = search.estimator.trials if search.estimator.search else 1
    if done < wanted:
        note = f"the search ended with {done} of {wanted} trials done: it has used up {ended.used_up}"
        log.info("%s: %s", name, note)
    best = _best(search.spec.training.metric, ended.trials)
    folds = tuple(s.fold for s in search.splits)
    return Choosing({**own, **best.params}, best.rounds, best.number, tuple(ended.trials), folds, note)


def take_part(search: Search) -> int:
    """Run trials of a shared study until its budget is used up; return how many. Raises as :func:`choose` does."""
    return _run(search, wait=False).done if search.splits else 0


def _run(search: Search, *, wait: bool) -> Ended:
    direction, fingerprint = search.direction, search.fingerprint()
    if (shared := search.shared_study) is None:
        return run_trials(search, lambda: open_file(search.checkpoints, fingerprint, direction), wait=wait)
    if search.checkpoints is not None:
        search = replace(search, checkpoints=search.checkpoints.sub(f"study-{fingerprint[:12]}"))
    return run_trials(search, lambda: open_database(shared, fingerprint, direction), wait=wait)


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
