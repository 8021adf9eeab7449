"""The loop of a search: Optuna proposes and keeps trials until the budget is used up.

The parameters of trial n follow from the seed, n and the trials known by then, and from
nothing that lives in a process: so a trainer that goes on after a kill proposes what it
would have proposed. Of several processes that train together (``ranks``), the one of
rank 0 has the study; the others run the trials that it announces.
"""

import hashlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState

from windsock.errors import UpstreamUnavailable
from windsock.learners import ranks
from windsock.learners.learner import Params
from windsock.search.study import MOST_RETRIES, RECORD, SECONDS, KeptStudy, experimental, patiently
from windsock.search.trials import Search, Trial
from windsock.spec.estimators import Choice, FloatRange, SearchRange

log = logging.getLogger(__name__)

_BEGAN = "began"
_POLL_S, _SILENT_S = 2.0, 120.0
_A_FOLD = 1000  # further than any round: who did a whole fold came further


class Ended(NamedTuple):
    """How a search ended: all its trials, how many were done by this process, and what was used up."""

    trials: Sequence[Trial]
    done: int
    used_up: str


def run_trials(search: Search, open_study: Callable[[], KeptStudy], *, wait: bool) -> Ended:
    """Run trials until there are none left; with ``wait``, also until those of other trainers are done."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # a user reads our own line of each trial
    while ranks.rank() != 0:
        announced = ranks.shared(lambda: None)
        if isinstance(announced, Ended):
            return announced
        if announced is not None:
            search.run(*announced)
    leader = None
    try:
        leader = _Leader(search, open_study())
        with leader.kept.errors():
            ended = leader.run(wait=wait)
    except Exception as err:
        if leader is None or leader.running is None:  # in a trial, the others raise by themselves
            ranks.shared(partial(_raise, err))
        raise
    return ranks.shared(lambda: ended)


def _raise(err: Exception) -> None:
    raise err


class _SurplusTrial(Exception):
    """Another process took the last trial of the budget at the same moment."""


class _Leader:
    """The process that has the study."""

    def __init__(self, search: Search, kept: KeptStudy) -> None:
        self.kept = kept
        self.running: optuna.Trial | None = None
        self._search, self._budget, self._own = search, search.estimator.budget, search.learner.own_params()
        self._space = dict(sorted(search.estimator.search.items()))
        self._own_in_space = all(_holds(wanted, self._own.get(name)) for name, wanted in self._space.items())
        self._wanted = search.estimator.trials if self._space else 1
        self._result: Trial | None = None
        if _BEGAN not in kept.study.user_attrs:
            kept.study.set_user_attr(_BEGAN, time.time())
            kept.keep()
        self._began = float(kept.study.user_attrs[_BEGAN])
        if done := len(self._outcomes(kept.latest_tries())):
            log.info("The search goes on after %d trials that are done already", done)
        if self._budget.gpu_hours is not None and search.gpus == 0:
            note = "there is no GPU here, so the budget of %g GPU-hours ends nothing"
            log.info(f"%s: {note}", search.spec.name, self._budget.gpu_hours)

    def run(self, *, wait: bool) -> Ended:
        """Run trials until there are none left."""
        done, silent = 0, dict[int, float]()
        while True:
            tries = self.kept.latest_tries()
            trials = self._outcomes(tries)
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
                return Ended(self._outcomes(tries, over=True), done, used_up)

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
        self._result = None
        try:
            self.kept.study.optimize(partial(self._objective, finished), n_trials=1, catch=(_SurplusTrial,))
        except BaseException as err:
            if self._result is not None and isinstance(err, ValueError | optuna.exceptions.UpdateFinishedTrialError):
                dropped = (
                    "Trial %d was given to another process, as this one gave no sign of life; its result is dropped"
                )
                log.warning(dropped, self._result.number + 1)
                return False
            if self.running is not None:
                # If even that fails, the missing heartbeat says the same a little later.
                with suppress(Exception):
                    self.kept.put_back(
                        self.running.number, counts=not isinstance(err, SystemExit | UpstreamUnavailable)
                    )
            raise
        if self._result is None:
            return False
        self.kept.keep()
        self._search.clear(self._result.number)
        self._tell(self._result, [*finished, self._result])
        return True

    def _objective(self, finished: Sequence[Trial], trial: optuna.Trial) -> float:
        tries = self.kept.latest_tries()
        number = [t.number for t in tries].index(trial.number)
        if number > 0 and sum(map(_counts, tries[:number])) >= self._wanted:
            raise _SurplusTrial
        changed, earlier_s = self._suggest(trial, number), _seconds(trial)
        ranks.shared(lambda: (number, changed))
        self.running = trial
        result = self._search.run(number, changed, finished)
        self.running = None
        self._result = result = replace(result, seconds=result.seconds + earlier_s)
        patiently(lambda: self._record(trial, result))
        if result.state == "complete":
            # Without a value Optuna counts it as failed: the sampler learns nothing from it, and the record stands.
            known = result.score is not None and (number > 0 or self._own_in_space)
            return result.score if known else math.nan  # type: ignore[return-value]
        # Optuna ranks pruned trials by how far they came, then by their last value. One that failed has none and
        # ranks behind them all, so that its neighbours are avoided.
        if result.means:
            trial.report(result.means[-1], _A_FOLD + len(result.means))
        elif result.losses:
            trial.report(result.losses[-1] * (-1 if self._search.direction == "maximize" else 1), len(result.losses))
        raise optuna.TrialPruned

    def _record(self, trial: optuna.Trial, result: Trial) -> None:
        with self.kept.errors():
            trial.set_user_attr(RECORD, result.to_record())

    def _suggest(self, trial: optuna.Trial, number: int) -> Params:
        """Return what a trial changes; the spec's own parameters are told to Optuna if they lie in its space."""
        if number == 0 and not self._own_in_space:
            return {}
        digest = hashlib.sha256(f"{self._search.spec.training.seed}/{number}".encode()).digest()
        # Some trials at random first, or the sampler only looks around the first good one.
        startup = max(2, min(10, self._search.estimator.trials // 2))
        seed = int.from_bytes(digest[:4], "big")
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup, constant_liar=True)
        self.kept.study.sampler = sampler
        if number == 0:
            with experimental():
                self.kept.study.sampler = optuna.samplers.PartialFixedSampler(self._own, sampler)
        suggested = {name: _suggest(trial, name, wanted) for name, wanted in self._space.items()}
        return suggested if number > 0 else {}

    def _outcomes(self, tries: Sequence[FrozenTrial], *, over: bool = False) -> list[Trial]:
        """Return the trials that are done; of a search that is over, also those that will never be."""
        outcomes = []
        for number, last in enumerate(tries):
            retries = len(last.system_attrs.get("retry_history", ()))
            given_up = last.state is TrialState.FAIL and retries >= MOST_RETRIES
            if RECORD in last.user_attrs and last.state.is_finished():
                outcomes.append(Trial.from_record(last.user_attrs[RECORD]))
            elif given_up or (over and last.state is TrialState.WAITING):
                reason = f"the processes that ran it ended before it did, {retries + given_up} times"
                spent_s, gpus = _seconds(last), self._search.gpus
                lost = Trial(number, last.params, state="failed", reason=reason, seconds=spent_s, gpus=gpus)
                outcomes.append(lost)
        return outcomes

    def _used_up(self, tries: Sequence[FrozenTrial], trials: Sequence[Trial]) -> str:
        """Return what of the budget is used up, in words; nothing while another trial may begin."""
        minutes, gpu_hours = self._budget.minutes, self._budget.gpu_hours
        failed = [t.reason for t in trials if t.state == "failed"]
        if sum(_counts(t) and t.state is not TrialState.WAITING for t in tries) >= self._wanted:
            return f"its {self._wanted} trials" if self._wanted > 1 else "its trial"
        if len(failed) >= self._wanted:
            return f"the failures it bears ({len(failed)} trials failed, the last one: {failed[-1]})"
        if minutes is not None and time.time() - self._began >= minutes * 60:
            return f"its {minutes:g} minutes"
        unfinished_s = sum(_seconds(t) for t in tries if not t.state.is_finished())
        if gpu_hours is not None and _gpu_hours(trials) + unfinished_s * self._search.gpus / 3600 >= gpu_hours:
            return f"its {gpu_hours:g} GPU-hours"
        return ""

    def _tell(self, trial: Trial, trials: Sequence[Trial]) -> None:
        """Tell in one line how a trial did and what is left."""
        spec, metric = self._search.spec, self._search.spec.training.metric
        did = f"{trial.state}: {trial.reason}"
        if trial.state == "complete":
            score, *folds = ("unknown" if s is None else f"{s:.4g}" for s in (trial.score, *trial.folds))
            did = f"{metric} {score} (folds: {', '.join(folds)}), {trial.rounds} rounds"
        left = [f"{sum(t.state != 'failed' for t in trials)} of {self._wanted} done"]
        if self._budget.minutes is not None:
            left.append(f"{max(0.0, self._budget.minutes - (time.time() - self._began) / 60):.1f} min left")
        if self._budget.gpu_hours is not None:
            left.append(f"{max(0.0, self._budget.gpu_hours - _gpu_hours(trials)):.2f} GPU-hours left")
        log.info(
            "%s: trial %d: %s, %.1f s%s; %s",
            spec.name, trial.number + 1, did, trial.seconds,
            "" if trial.number else "; the spec's own parameters", ", ".join(left),
        )  # fmt: skip
        if self._search.watch is not None:
            self._search.watch.trial(trial.number, trial.score, trial.state)


def _counts(last: FrozenTrial) -> bool:
    """Whether a trial is one of the budget's: it runs or waits, or did not fail."""
    record = last.user_attrs.get(RECORD)
    return last.state is not TrialState.FAIL if record is None else bool(record["state"] != "failed")


def _seconds(trial: FrozenTrial | optuna.Trial) -> float:
    """Return how long a trial ran, in all its tries."""
    return sum(float(spent) for name, spent in trial.user_attrs.items() if name.startswith(SECONDS))


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
