"""What is kept of a search: its trials, in an Optuna study in a file among the checkpoints, or in a shared database."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Self, TypeVar

import optuna
import sqlalchemy as sa
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState

from windsock.errors import SpecError, UpstreamUnavailable
from windsock.learners.learner import Params
from windsock.redact import redact, redact_line
from windsock.runs.run_folder import CheckpointFolder
from windsock.spec.estimators import BuiltIn
from windsock.store import to_json

Direction = Literal["maximize", "minimize"]

log = logging.getLogger(__name__)

TRIALS = "trials.json"
RECORD, SECONDS = "record", "seconds of try "
"""Attributes of a trial: how it did, and how long the try of an id ran."""
_MOST_RETRIES = 4
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)
_AWAY = (sa.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError)
T = TypeVar("T")


@dataclass(frozen=True)
class Trial:
    """One parameter set and how it did."""

    number: int
    params: Params
    """What the search changed; empty for the spec's own parameters."""
    rounds: int = 0
    """Rounds chosen, or done when it was pruned."""
    score: float | None = None
    """Mean of the folds; None if a fold could not be judged, or the trial did not get to its end."""
    folds: tuple[float | None, ...] = ()
    state: Literal["complete", "pruned", "failed"] = "complete"
    reason: str = ""
    """Why it was pruned or failed."""
    losses: tuple[float, ...] = ()
    """Lowest loss so far on the first fold, at the rounds where pruning looks."""
    means: tuple[float, ...] = ()
    """Mean metric after each fold but the last, each at its own best round."""
    seconds: float = field(default=0.0, compare=False)
    """In all tries together."""
    gpus: int = field(default=0, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return what inputs and seed decide, so without times, as plain JSON types."""
        decided = {n: v for n, v in vars(self).items() if n not in ("losses", "means", "seconds", "gpus")}
        return {**decided, "folds": list(self.folds)}

    @classmethod
    def from_record(cls, raw: Mapping[str, Any]) -> Self:
        """Rebuild a trial from its fields, read from JSON."""
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in raw.items()}
        return cls(**values)


@dataclass(frozen=True)
class SharedStudy:
    """A study in a database, shared by several trainers."""

    url: str = field(repr=False)
    """SQLAlchemy URL; it may hold a password."""
    name: str
    """``<model>/<run>/<estimator>``; what decides the trials' results is added to it."""
    heartbeat_s: int = 15
    grace_s: int = 60
    """Without a sign of life for so long, a trial is another's to run."""

    @classmethod
    def of(cls, url: str, request: Mapping[str, Any], estimator: BuiltIn) -> Self | None:
        """Return the study of a trainer request; None if this trainer searches alone."""
        if estimator.budget.parallel == 1:
            return None
        if not url:
            note = "no database for shared studies (WINDSOCK_STUDIES), so one process does the whole search"
            log.info("%s: %s", request["model"], note)
            return None
        return cls(url, f"{request['model']}/{request['run']}/{estimator.name}")


@dataclass(frozen=True)
class KeptStudy:
    """An Optuna study, and what the place where it is kept asks for."""

    study: optuna.Study
    keep: Callable[[], None] = lambda: None
    """Puts what was done in its place."""
    errors: Callable[[], AbstractContextManager[None]] = nullcontext
    """Turns the storage's errors into ours."""

    def latest_tries(self) -> list[FrozenTrial]:
        """Put back what dead processes left, and return each trial's latest try, in order of the trials' numbers."""
        optuna.storages.fail_stale_trials(self.study)
        return list({t.system_attrs.get("failed_trial", t.number): t for t in self.study.get_trials()}.values())

    def put_back(self, number: int, *, counts: bool) -> None:
        """Queue a try that came to no end again, by Optuna's number; ``counts``: it took its process with it."""
        failed = next(t for t in self.study.get_trials() if t.number == number)
        if not failed.state.is_finished():
            self.study.tell(number, state=TrialState.FAIL)
        if not counts:
            failed.system_attrs.pop("retry_history", None)
        _retry(self.study, failed)


def outcomes(tries: Sequence[FrozenTrial], gpus: int, *, over: bool = False) -> list[Trial]:
    """Return the trials that are done; of a search that is over, also those that will never be."""
    found = []
    for number, last in enumerate(tries):
        retries = len(last.system_attrs.get("retry_history", ()))
        given_up = last.state is TrialState.FAIL and retries >= _MOST_RETRIES
        if RECORD in last.user_attrs and last.state.is_finished():
            found.append(Trial.from_record(last.user_attrs[RECORD]))
        elif given_up or (over and last.state is TrialState.WAITING):
            reason = f"the processes that ran it ended before it did, {retries + given_up} times"
            seconds = seconds_of(last)
            found.append(Trial(number, last.params, state="failed", reason=reason, seconds=seconds, gpus=gpus))
    return found


def counts(last: FrozenTrial) -> bool:
    """Whether a trial is one of the budget's: it runs or waits, or did not fail."""
    record = last.user_attrs.get(RECORD)
    return last.state is not TrialState.FAIL if record is None else bool(record["state"] != "failed")


def seconds_of(trial: FrozenTrial | optuna.Trial) -> float:
    """Return how long a trial ran, in all its tries."""
    return sum(float(spent) for name, spent in trial.user_attrs.items() if name.startswith(SECONDS))


def _retry(study: optuna.Study, failed: FrozenTrial) -> None:
    if RECORD not in failed.user_attrs:  # else it died with its work done
        optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=_MOST_RETRIES)(study, failed)


def patiently(do: Callable[[], T], errors: Callable[[], AbstractContextManager[None]]) -> T:
    """Do what a database may refuse for a moment, again and again for half a minute."""
    for pause_s in PAUSES_S:
        try:
            with errors():
                return do()
        except UpstreamUnavailable as err:
            log.warning("%s Trying again in %g s.", err, pause_s)
            time.sleep(pause_s)
    with errors():
        return do()


class _Journal(BaseJournalBackend):
    """Optuna's journal in memory; ``open_file`` puts it in one file, as a whole."""

    def __init__(self, logs: list[dict[str, Any]]) -> None:
        self.logs = logs

    def read_logs(self, log_number_from: int) -> Sequence[dict[str, Any]]:
        return self.logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.logs.extend(logs)


def open_file(checkpoints: CheckpointFolder | None, fingerprint: str, direction: Direction) -> KeptStudy:
    """Return the study of a trainer that searches alone, as far as it had come."""
    journal = _Journal([])
    if checkpoints is not None and (data := checkpoints.read(TRIALS)) is not None:
        try:
            journal = _Journal(json.loads(data))
            optuna.load_study(study_name=fingerprint, storage=optuna.storages.JournalStorage(journal))
        except Exception as err:  # whatever the file holds instead
            log.warning("%s is damaged or of another training (%r); the search begins anew", TRIALS, err)
            checkpoints.clear()  # those inside the trials are of that other training, too
            journal = _Journal([])
    storage = optuna.storages.JournalStorage(journal)
    study = optuna.create_study(study_name=fingerprint, storage=storage, direction=direction, load_if_exists=True)

    def keep() -> None:
        if checkpoints is not None:
            checkpoints.write(TRIALS, to_json(journal.logs))

    return KeptStudy(study, keep)


class _Storage(optuna.storages.RDBStorage):
    """Optuna's storage, but its signs of life outlast a database that is away, and say how long a try took so far."""

    def record_heartbeat(self, trial_id: int) -> None:
        started = self.__dict__.setdefault(f"started {trial_id}", time.monotonic())
        try:
            super().record_heartbeat(trial_id)
            self.set_trial_user_attr(trial_id, f"{SECONDS}{trial_id}", round(time.monotonic() - started, 3))
        except optuna.exceptions.OptunaError as err:
            log.warning("A trial gives no sign of life (%s)", type(err).__name__)


def open_database(shared: SharedStudy, fingerprint: str, direction: Direction) -> KeptStudy:
    """Return a shared study, begun if it is not there yet: in PostgreSQL, or in SQLite for processes of one machine.

    Raises:
        SpecError: The URL is none, names a database of another kind, or its tables are of another Optuna.
        UpstreamUnavailable: The database cannot be reached.
    """
    try:
        url = sa.make_url(shared.url)
        kind = url.get_backend_name()
    except (sa.exc.ArgumentError, ValueError):
        kind = ""
    if kind != "postgresql" and (kind != "sqlite" or not url.database):
        raise SpecError(
            "WINDSOCK_STUDIES is no URL of a PostgreSQL database (it is not shown here: it may hold a password). "
            "It looks like postgresql+psycopg2://user:password@host:5432/studies."
        )

    def open_study() -> optuna.Study:
        storage = _Storage(
            shared.url,
            engine_kwargs=_engine(kind),
            heartbeat_interval=shared.heartbeat_s,
            grace_period=shared.grace_s,
            heartbeat_stale_trial_callback=_retry,
        )
        name = f"{shared.name}/{fingerprint[:16]}"
        return optuna.create_study(study_name=name, storage=storage, direction=direction, load_if_exists=True)

    errors = partial(_errors, url)
    try:
        study = patiently(open_study, errors)  # several that make the tables at once trip over each other
    except (sa.exc.ArgumentError, ImportError, RuntimeError) as err:
        raise SpecError(
            f"WINDSOCK_STUDIES: {_described(url, err)}. Use postgresql+psycopg2://, and a database whose tables are "
            "of this version of Optuna."
        ) from None
    return KeptStudy(study, errors=errors)


def remove_studies(url: str, model: str, over: Callable[[str], bool], *, dry: bool) -> list[str]:
    """Remove the studies of a model's runs that are ``over``, and return their names.

    Raises:
        UpstreamUnavailable: The database cannot be reached.
    """
    place = sa.make_url(url)
    with _errors(place):
        storage = optuna.storages.RDBStorage(url, engine_kwargs=_engine(place.get_backend_name()))
        names = [name.split("/") for name in optuna.get_all_study_names(storage)]
        found = ["/".join(name) for name in names if len(name) == 4 and name[0] == model and over(name[1])]
        for name in found if not dry else ():
            optuna.delete_study(study_name=name, storage=storage)
    return found


def _engine(kind: str) -> dict[str, Any]:
    connect = {"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10}
    return {"connect_args": {"timeout": 60} if kind == "sqlite" else connect, "pool_pre_ping": True}


@contextmanager
def _errors(url: sa.URL) -> Iterator[None]:
    """Turn the database's errors into ours; the password of the URL is in none of them."""
    try:
        yield
    except (*_AWAY, UnboundLocalError) as error:
        # Optuna 5.0 trips over itself where the storage is away at a trial's end.
        err = error.__context__ if isinstance(error, UnboundLocalError) else error
        if isinstance(err, sa.exc.ArgumentError) or not isinstance(err, _AWAY):
            raise
        raise UpstreamUnavailable(
            f"The database of shared studies does not answer as it should: {_described(url, err.__cause__ or err)}. "
            "See that it runs and can be reached from here; the search goes on where it stopped."
        ) from None


def _described(url: sa.URL, err: BaseException) -> str:
    secrets = [str(secret) for secret in (url.password, *url.query.values()) if secret]
    reason = redact_line(getattr(err, "orig", None) or err, secrets).rstrip(".")
    return f"{redact(url.render_as_string())}: {type(err).__name__}: {reason}"
