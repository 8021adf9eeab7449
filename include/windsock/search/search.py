"""Choosing parameters: Optuna over time-ordered folds, the spec's own parameters first.

Each parameter set is trained on every fold with early stopping on the fold's loss. A found set replaces the spec's own
only if its metric is better on average and in most folds: with few folds, the best of many trials is mostly luck.

The parameters of trial n follow from the seed, n and the trials known by then, and from nothing that lives in a
process: so a trainer that goes on after a kill proposes what it would have proposed (ADR 0012). Of several processes
that train together (``ranks``), the one of rank 0 has the study; the others run the trials that it announces.
"""

import hashlib
import logging
import math
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState

from windsock.dataset.time_split import Fold
from windsock.errors import UpstreamUnavailable
from windsock.learners import ranks
from windsock.learners.learner import Params
from windsock.search import study
from windsock.search.study import RECORD, SECONDS, KeptStudy, Trial, counts, outcomes, seconds_of
from windsock.search.trials import Search
from windsock.served.metrics import better
from windsock.spec.estimators import Choice, FloatRange, SearchRange

log = logging.getLogger(__name__)

_BEGAN = "began"
_POLL_S, _SILENT_S = 2.0, 120.0
_A_FOLD = 1000  # further than any round: who did a whole fold came further


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
    window_days: int | None = None  # to learn from; None: all there are


class Ended(NamedTuple):
    """How a search ended: all its trials, how many were done by this process, and what was used up."""

    trials: Sequence[Trial]
    done: int
    used_up: str


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
    ended = _run_trials(search, wait=True)
    note, done = "", sum(t.state != "failed" for t in ended.trials)
    if done < search.wanted:
        note = f"the search ended with {done} of {search.wanted} trials done: it has used up {ended.used_up}"
        log.info("%s: %s", name, note)
    best, folds = _best(search.spec.training.metric, ended.trials), tuple(s.fold for s in search.splits)
    return Choosing({**own, **best.params}, best.rounds, best.number, tuple(ended.trials), folds, note)


def take_part(search: Search) -> int:
    """Run trials of a shared study until its budget is used up; return how many. Raises as :func:`choose` does."""
    return _run_trials(search, wait=False).done if search.splits else 0


def _best(metric: str, trials: Sequence[Trial]) -> Trial:
    """Return the best trial that beats the spec's own parameters convincingly, else the spec's own."""
    own = best = trials[0]
    for trial in trials[1:]:
        if trial.score is None or best.score is None:  # that a fold cannot be judged lies in its labels alone
            continue
        pairs = zip(trial.folds, own.folds, strict=True)
        wins = sum(a is not None and b is not None and better(metric, a, b) for a, b in pairs)
        if better(metric, trial.score, best.score) and 2 * wins > len(trial.folds):
            best = trial
    return best


def _run_trials(search: Search, *, wait: bool) -> Ended:
    """Run trials until there are none left; with ``wait``, also until those of other trainers are done."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # a user reads our own line of each trial
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeats, retries, fixed parameters
    shared, fingerprint, direction = search.shared_study, search.fingerprint(), search.direction
    if shared is not None and search.checkpoints is not None:
        search = replace(search, checkpoints=search.checkpoints.sub(f"study-{fingerprint[:12]}"))
    while ranks.rank() != 0:
        announced = ranks.shared(lambda: None)
        if isinstance(announced, Ended):
            return announced
        if announced is not None:
            search.run(*announced)
    leader = None
    try:
        if shared is None:
            kept = study.open_file(search.checkpoints, fingerprint, direction)
        else:
            kept = study.open_database(shared, fingerprint, direction)
        leader = _Leader(search, kept)
        with kept.errors():
            ended = leader.run(wait=wait)
    except Exception as err:
        if leader is None or leader.running is None:  # in a trial, the others raise by themselves
            ranks.shared(partial(_raise, err))
        raise
    return ranks.shared(lambda: ended)


def _raise(err: Exception) -> None:
    raise err


class _Leader:
    """The process that has the study."""

    def __init__(self, search: Search, kept: KeptStudy) -> None:
        self.kept = kept
        self.running: optuna.Trial | None = None
        self._search, self._budget, self._own = search, search.estimator.budget, search.learner.own_params()
        self._space = dict(sorted(search.estimator.search.items()))
        self._own_in_space = all(_holds(wanted, self._own.get(name)) for name, wanted in self._space.items())
        self._result: Trial | None = None
        if _BEGAN not in kept.study.user_attrs:
            kept.study.set_user_attr(_BEGAN, time.time())
            kept.keep()
        self._began = float(kept.study.user_attrs[_BEGAN])
        if done := len(outcomes(kept.latest_tries(), search.gpus)):
            log.info("The search goes on after %d trials that are done already", done)
        if self._budget.gpu_hours is not None and search.gpus == 0:
            ends_nothing = f"there is no GPU here, so the budget of {self._budget.gpu_hours:g} GPU-hours ends nothing"
            log.info("%s: %s", search.spec.name, ends_nothing)

    def run(self, *, wait: bool) -> Ended:
        """Run trials until there are none left."""
        done, silent = 0, dict[int, float]()
        while True:
            tries = self.kept.latest_tries()
            trials = outcomes(tries, self._search.gpus)
            running = [t for t in tries if t.state is TrialState.RUNNING]
            # Without the spec's own parameters there is nothing to choose, so they are tried whatever it takes.
            own_waits = not tries or (RECORD not in tries[0].user_attrs and tries[0] not in running)
            if own_waits and tries and tries[0].state is TrialState.FAIL:
                self.kept.put_back(tries[0].number, counts=False)
            used_up = "" if own_waits else self._used_up(tries, trials)
            if not used_up:
                done += self._run_one(trials)
            elif running and wait:
                self._wait(running, silent)
            else:
                return Ended(outcomes(tries, self._search.gpus, over=True), done, used_up)

    def _wait(self, running: Sequence[FrozenTrial], silent: dict[int, float]) -> None:
        if not silent:
            log.info("%s: waiting for the trials that other processes run", self._search.spec.name)
        for trial in running:
            since = silent.setdefault(trial.number, time.monotonic())
            if time.monotonic() - since > _SILENT_S and f"{SECONDS}{trial._trial_id}" not in trial.user_attrs:
                # It died before its first sign of life, so Optuna does not miss it.
                self.kept.put_back(trial.number, counts=True)
        ranks.shared(lambda: None)
        time.sleep(_POLL_S)

    def _run_one(self, finished: Sequence[Trial]) -> bool:
        """Run a trial that was put back, or else a new one; False if its result is not wanted any more."""
        self._result, self._given_away = None, False
        try:
            self.kept.study.optimize(partial(self._objective, finished), n_trials=1)
        except BaseException as err:
            over = isinstance(err, ValueError | optuna.exceptions.UpdateFinishedTrialError)
            if over and (self._given_away or self._result is not None):
                which = f"Trial {self._result.number + 1}" if self._result is not None else "A trial"
                log.warning("%s was given to another process, as this one gave no sign of life", which)
                return False
            if self.running is not None:
                in_order = isinstance(err, SystemExit | UpstreamUnavailable)
                with suppress(Exception):  # if even that fails, the missing heartbeat says the same a little later
                    self.kept.put_back(self.running.number, counts=not in_order)
            raise
        if self._result is not None:
            self.kept.keep()
            self._search.clear(self._result.number)
            self._report(self._result, [*finished, self._result])
        return self._result is not None

    def _objective(self, finished: Sequence[Trial], trial: optuna.Trial) -> float:
        """Run Optuna's trial; one whose value is no number teaches its sampler nothing."""
        tries = self.kept.latest_tries()
        number = next((n for n, last in enumerate(tries) if last.number == trial.number), None)
        if number is None:  # this process stood still between drawing it and now
            self._given_away = True
            raise optuna.exceptions.UpdateFinishedTrialError
        if number > 0 and sum(map(counts, tries[:number])) >= self._search.wanted:
            return math.nan  # another process took the last trial of the budget at the same moment
        changed, earlier_s = self._suggest(trial, number), seconds_of(trial)
        ranks.shared(lambda: (number, changed))
        self.running = trial
        result = self._search.run(number, changed, finished)
        self.running = None
        self._result = result = replace(result, seconds=result.seconds + earlier_s)
        study.patiently(partial(trial.set_user_attr, RECORD, asdict(result)), self.kept.errors)
        if result.state == "complete":
            known = result.score is not None and (number > 0 or self._own_in_space)
            return result.score if known else math.nan  # type: ignore[return-value]
        # Optuna ranks pruned trials by how far they came, then by their last value. One that failed has none and
        # ranks behind them all, so that its neighbours are avoided.
        if result.means:
            trial.report(result.means[-1], _A_FOLD + len(result.means))
        elif result.losses:
            trial.report(result.losses[-1] * (-1 if self._search.direction == "maximize" else 1), len(result.losses))
        raise optuna.TrialPruned

    def _suggest(self, trial: optuna.Trial, number: int) -> Params:
        """Return what a trial changes; Optuna learns of the spec's own parameters if they lie in its space."""
        if number == 0 and not self._own_in_space:
            return {}
        digest = hashlib.sha256(f"{self._search.spec.training.seed}/{number}".encode()).digest()
        seed = int.from_bytes(digest[:4], "big")
        # Some trials at random first, or the sampler only looks around the first good one.
        startup = max(2, min(10, self._search.estimator.trials // 2))
        tpe = optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup, constant_liar=True)
        self.kept.study.sampler = tpe if number > 0 else optuna.samplers.PartialFixedSampler(self._own, tpe)
        suggested = {name: _suggest(trial, name, wanted) for name, wanted in self._space.items()}
        return suggested if number > 0 else {}

    def _used_up(self, tries: Sequence[FrozenTrial], trials: Sequence[Trial]) -> str:
        """Return what of the budget is used up, in words; nothing while another trial may begin."""
        minutes, gpu_hours, wanted = self._budget.minutes, self._budget.gpu_hours, self._search.wanted
        failed = [t.reason for t in trials if t.state == "failed"]
        if sum(counts(t) and t.state is not TrialState.WAITING for t in tries) >= wanted:
            return f"its {wanted} trials" if wanted > 1 else "its trial"
        if len(failed) >= wanted:
            return f"the failures it bears ({len(failed)} trials failed, the last one: {failed[-1]})"
        if minutes is not None and time.time() - self._began >= minutes * 60:
            return f"its {minutes:g} minutes"
        unfinished_s = sum(seconds_of(t) for t in tries if not t.state.is_finished())
        if gpu_hours is not None and _gpu_hours(trials) + unfinished_s * self._search.gpus / 3600 >= gpu_hours:
            return f"its {gpu_hours:g} GPU-hours"
        return ""

    def _report(self, trial: Trial, trials: Sequence[Trial]) -> None:
        """Log in one line how a trial did and what is left."""
        spec, metric = self._search.spec, self._search.spec.training.metric
        did = f"{trial.state}: {trial.reason}"
        if trial.state == "complete":
            score, *folds = ("unknown" if s is None else f"{s:.4g}" for s in (trial.score, *trial.folds))
            did = f"{metric} {score} (folds: {', '.join(folds)}), {trial.rounds} rounds"
        left = [f"{sum(t.state != 'failed' for t in trials)} of {self._search.wanted} done"]
        if self._budget.minutes is not None:
            left.append(f"{max(0.0, self._budget.minutes - (time.time() - self._began) / 60):.1f} min left")
        if self._budget.gpu_hours is not None:
            left.append(f"{max(0.0, self._budget.gpu_hours - _gpu_hours(trials)):.2f} GPU-hours left")
        whose = "" if trial.number else "; the spec's own parameters"
        took = f"{trial.seconds:.1f} s{whose}"
        log.info("%s: trial %d: %s, %s; %s", spec.name, trial.number + 1, did, took, ", ".join(left))
        if self._search.watch is not None:
            self._search.watch.trial(trial.number, trial.score, trial.state)


def _gpu_hours(trials: Sequence[Trial]) -> float:
    return sum(t.seconds * t.gpus for t in trials) / 3600


def _suggest(trial: optuna.Trial, name: str, wanted: SearchRange) -> Any:
    """Return a value of the type that a file keeps, so that it is the same after a restart."""
    if isinstance(wanted, Choice):
        return trial.suggest_categorical(name, wanted.values)
    if isinstance(wanted, FloatRange):
        return float(trial.suggest_float(name, wanted.low, wanted.high, log=wanted.log))
    return int(trial.suggest_int(name, wanted.low, wanted.high, log=wanted.log))


def _holds(wanted: SearchRange, value: Any) -> bool:
    if isinstance(wanted, Choice):
        return value in wanted.values
    if isinstance(value, bool) or not isinstance(value, int | float):  # also: not given at all
        return False
    return wanted.low <= value <= wanted.high and (isinstance(wanted, FloatRange) or float(value).is_integer())
