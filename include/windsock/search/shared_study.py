"""A study that several trainers share, through Optuna's storage in PostgreSQL.

Whoever takes a trial does so under one lock of the database: it puts back the trials of
processes that died (no heartbeat for a while), counts, and claims. So there are never
more trials than the budget allows, and the spec's own parameters are tried once.

A trial's record makes it done. One that was put back keeps its number and parameters
under a new key, so the other process goes on from the same checkpoints; if the first one
was only cut off from the database, its late result is turned away.
"""

from __future__ import annotations

import logging
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from windsock.errors import UpstreamUnavailable
from windsock.search.budget import Budget
from windsock.search.sampling import Sampler
from windsock.search.study import Claim, SharedStudy, Turn
from windsock.search.study_database import StudyDatabase
from windsock.search.trials import Trial

log = logging.getLogger(__name__)

_BEGAN = "began"
_NUMBER, _RECORD, _SECONDS, _GPUS, _GIVEN_BACK = "number", "record", "seconds", "gpus", "given_back"
_MOST_TRIES = 5
_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)


class JoinedStudy:
    """A shared study, as one of its processes sees it."""

    def __init__(self, shared: SharedStudy, fingerprint: str, sampler: Sampler, budget: Budget, gpus: int = 0) -> None:
        """Join the study, or begin it.

        Raises:
            SpecError: The database's URL is wrong.
            UpstreamUnavailable: The database is away.
        """
        self._sampler, self._budget, self._gpus = sampler, budget, gpus
        self._heartbeat_s = shared.heartbeat_s
        self._database = StudyDatabase(
            shared.url,
            f"{shared.name}/{fingerprint[:16]}",
            maximize=sampler.maximize,
            heartbeat_s=shared.heartbeat_s,
            grace_s=shared.grace_s,
        )
        self._began: float | None = None
        self._ahead_s = 0.0  # of the database's clock
        self.why_over = ""

    def claim(self) -> Claim | Turn:
        """Take a trial that was put back, or a new one.

        Raises:
            UpstreamUnavailable: The database is away.
        """
        with self._database.locked() as now:
            self._ahead_s = now - time.time()
            self._put_back()
            tries = self._tries()
            self._keep_clock(now)
            latest = [one[-1] for one in tries]
            running = [t for t in latest if _is(t, "RUNNING")]
            waiting = [t for t in latest if _is(t, "WAITING")]
            if not latest:
                return self._take(self._add(0, {}), {})
            if waiting and waiting[0].user_attrs[_NUMBER] == 0:
                return self._take(waiting[0], {})  # without the yardstick there is nothing to choose
            done = [trial for one in tries if (trial := _outcome(one)) is not None]
            used = {
                "elapsed_s": self.elapsed_s(),
                "gpu_s": sum(t.user_attrs[_SECONDS] * t.user_attrs[_GPUS] for t in latest),
            }
            if waiting and self._budget.used_up(done, taken=len(running), **used) is None:
                return self._take(waiting[0], dict(waiting[0].params))
            over = self._budget.used_up(done, taken=len(running) + len(waiting), **used)
            if over is None:
                beside = [dict(t.params) for t in running if t.user_attrs[_NUMBER] > 0]
                params = self._sampler.propose(len(latest), done, beside)
                return self._take(self._add(len(latest), params), params)
            if running:
                return Turn.WAIT
            self.why_over = over
            return Turn.OVER

    @contextmanager
    def running(self, claim: Claim) -> Iterator[None]:
        """Give signs of life while a trial runs; on an error, give it back at once."""
        stopped = threading.Event()
        signs = threading.Thread(target=self._live, args=(claim, stopped), name="study-heartbeat", daemon=True)
        signs.start()
        try:
            yield
        except BaseException as err:
            stopped.set()
            signs.join()
            # If even that fails, the missing heartbeat says the same a little later.
            with suppress(UpstreamUnavailable):
                self._give_back(claim, counts=not isinstance(err, SystemExit | KeyboardInterrupt | UpstreamUnavailable))
            raise
        finally:
            stopped.set()
            signs.join()

    def finish(self, claim: Claim, trial: Trial) -> bool:
        """Keep a trial for good; a database that is away for a moment is asked again.

        Raises:
            UpstreamUnavailable: The database stays away.
        """
        for pause in _PAUSES_S:
            try:
                return self._finish(claim, trial)
            except UpstreamUnavailable as err:
                log.warning("Trial %d cannot be kept yet: %s", claim.number + 1, err)
                time.sleep(pause)
        return self._finish(claim, trial)

    def finished(self) -> list[Trial]:
        """Return the trials that are done; once the search is over, also those never run to their end, as failed."""
        with self._database.errors():
            tries = self._tries()
        found = [_outcome(one) for one in tries]
        if self.why_over:
            found = [t or _unfinished(one[-1], "was not run to its end") for t, one in zip(found, tries, strict=True)]
        return [t for t in found if t is not None]

    def elapsed_s(self) -> float:
        """Return the seconds since the first trial began anywhere, by the database's clock."""
        return 0.0 if self._began is None else max(0.0, time.time() + self._ahead_s - self._began)

    def _put_back(self) -> None:
        """Queue the trials of dead processes again. Under the lock."""
        import optuna

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(self._database.study)
            again = optuna.storages.RetryHeartbeatStaleTrialCallback()
            for tries in self._tries():
                last = tries[-1]
                # Told by what is there, not by who failed it: that process may have died half-way, too.
                if _is(last, "FAIL") and _RECORD not in last.user_attrs and not _given_up(tries):
                    log.info("Trial %d is put back: its process died or gave it up", last.user_attrs[_NUMBER] + 1)
                    again(self._database.study, last)

    def _tries(self) -> list[list[Any]]:
        """Return every trial's tries, in order of the trials' numbers; the last try counts."""
        tries: dict[int, list[Any]] = {}
        for trial in self._database.study.get_trials(deepcopy=False):
            tries.setdefault(trial.user_attrs[_NUMBER], []).append(trial)
        return [tries[number] for number in sorted(tries)]

    def _keep_clock(self, now: float) -> None:
        began = self._database.study.user_attrs.get(_BEGAN)
        if began is None:
            self._database.study.set_user_attr(_BEGAN, now)
        self._began = now if began is None else float(began)

    def _add(self, number: int, params: dict[str, Any]) -> Any:
        """Queue a new trial. Under the lock."""
        import optuna

        template = optuna.create_trial(
            state=optuna.trial.TrialState.WAITING,
            params=params,
            distributions=dict(self._sampler.space) if params else {},
            user_attrs={_NUMBER: number, _SECONDS: 0.0, _GPUS: self._gpus},
        )
        storage = self._database.storage
        return storage.get_trial(storage.create_new_trial(self._database.id, template))

    def _take(self, trial: Any, params: dict[str, Any]) -> Claim:
        """Make a queued trial ours. Under the lock."""
        from optuna.trial import TrialState

        key, storage = trial._trial_id, self._database.storage
        # Heartbeat first: a running trial without one would never be missed.
        storage.record_heartbeat(key)
        storage.set_trial_state_values(key, state=TrialState.RUNNING)
        return Claim(trial.user_attrs[_NUMBER], params, key, trial.user_attrs[_SECONDS])

    def _finish(self, claim: Claim, trial: Trial) -> bool:
        from optuna.trial import TrialState

        storage = self._database.storage
        state = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}[trial.state]
        with self._database.locked():
            found = storage.get_trial(claim.key)
            if found.state.is_finished():
                kept = _RECORD in found.user_attrs  # by an attempt whose answer was lost
                if not kept:
                    log.warning(
                        "Trial %d was given to another process, as no sign of life came from this one; "
                        "its result is dropped", claim.number + 1,
                    )  # fmt: skip
                return kept
            storage.set_trial_user_attr(claim.key, _SECONDS, trial.seconds)
            storage.set_trial_user_attr(claim.key, _RECORD, trial.to_record())
            if trial.state == "complete" and trial.score is None:
                state = TrialState.FAIL  # Optuna knows no complete trial without a value; the record does
            values = [trial.score] if state is TrialState.COMPLETE and trial.score is not None else None
            storage.set_trial_state_values(claim.key, state=state, values=values)
        return True

    def _give_back(self, claim: Claim, *, counts: bool) -> None:
        from optuna.trial import TrialState

        storage = self._database.storage
        with self._database.locked():
            found = storage.get_trial(claim.key)
            if not found.state.is_finished():
                if not counts:
                    storage.set_trial_user_attr(claim.key, _GIVEN_BACK, found.number)
                storage.set_trial_state_values(claim.key, state=TrialState.FAIL)

    def _live(self, claim: Claim, stopped: threading.Event) -> None:
        storage, started, silent = self._database.storage, time.monotonic(), False
        while not stopped.wait(self._heartbeat_s):
            try:
                storage.record_heartbeat(claim.key)
                spent = round(claim.seconds + time.monotonic() - started, 3)
                storage.set_trial_user_attr(claim.key, _SECONDS, spent)
                silent = False
            except Exception as err:
                # Whatever it is, the next beat may get through; the training itself does not depend on it.
                if not silent:
                    log.warning("Trial %d gives no sign of life (%s)", claim.number + 1, type(err).__name__)
                silent = True
        storage.remove_session()


def _is(trial: Any, state: str) -> bool:
    return bool(trial.state.name == state)


def _given_up(tries: list[Any]) -> bool:
    """Whether a trial has taken too many processes with it; the spec's own is always tried again."""
    counted = [t for t in tries if t.user_attrs.get(_GIVEN_BACK) != t.number]
    return tries[-1].user_attrs[_NUMBER] > 0 and len(counted) >= _MOST_TRIES


def _outcome(tries: list[Any]) -> Trial | None:
    """Return how a trial did; None while it is not known."""
    last = tries[-1]
    if _RECORD in last.user_attrs:
        return Trial.from_record(last.user_attrs[_RECORD])
    if _is(last, "FAIL") and _given_up(tries):
        return _unfinished(last, f"the processes that ran it ended before it did, {len(tries)} times")
    return None


def _unfinished(last: Any, reason: str) -> Trial:
    attrs = last.user_attrs
    spent = {"seconds": attrs[_SECONDS], "gpus": attrs[_GPUS]}
    return Trial(attrs[_NUMBER], dict(last.params), 0, None, (), "failed", reason, **spent)
