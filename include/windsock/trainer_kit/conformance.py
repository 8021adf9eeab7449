"""Does a candidate keep the trainer contract? One sentence per clause, for the author of a trainer.

:func:`check_candidate` looks at a finished folder, whoever filled it; ``trainer_trial`` also runs the trainer,
interrupts it and gives it wrong requests. ``docs/trainer.md`` lists the clauses.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from windsock.dataset.csv_export import csv_table
from windsock.errors import SpecError, WindsockError, did_you_mean
from windsock.runs.contract import TrainerRequest
from windsock.served.first_load import load_untrusted
from windsock.served.model import Model, usable_scores
from windsock.trainers.choose_step import compare_native_scores


@dataclass(frozen=True)
class Finding:
    """One clause of the contract and whether it is kept."""

    clause: str
    kept: bool | None
    """None: could not be looked at."""
    message: str


class Broken(WindsockError):
    """A clause is not kept; the text says what was found and what is expected."""


class Unchecked(Exception):
    """A clause could not be looked at; the text says why."""


def finding_of(clause: str, check: Callable[..., str], *inputs: Any) -> Finding:
    """Run the check of a clause: it returns what it found, or raises :class:`Unchecked` or one of our errors."""
    try:
        return Finding(clause, True, check(*inputs))
    except WindsockError as err:
        return Finding(clause, False, str(err))
    except Unchecked as err:
        return Finding(clause, None, str(err))


@dataclass
class Candidate:
    """What a trainer left, read piece by piece."""

    request: TrainerRequest

    @cached_property
    def model(self) -> Model:
        """The model, loaded as Windsock does with a stranger's."""
        return load_untrusted(self.request.store.url(str(self.request.raw["output"]["model"])))

    @cached_property
    def rows(self) -> pa.Table:
        """The training rows, in whichever form the trainer got them."""
        train = self.request.raw["train"]
        if train.get("format") != "csv":
            return self.request.train_table()
        return csv_table(self.request.train_bytes(), train["columns"])


def check_candidate(request_url: str) -> list[Finding]:
    """Check a finished candidate: a finding per clause, in the order of the documentation.

    Raises:
        UpstreamUnavailable: Its store cannot be read.
    """
    try:
        candidate = Candidate(TrainerRequest.read(request_url))
    except SpecError as err:
        return [Finding("request", False, str(err))]
    found: dict[str, Finding] = {}
    for clause, needs, check in _CLAUSES:
        if broken := [need for need in needs if found[need].kept is False]:
            found[clause] = Finding(clause, None, f"not looked at, as {broken[0]} is broken")
        else:
            found[clause] = finding_of(clause, check, candidate)
    return list(found.values())


def _rows_are_untouched(candidate: Candidate) -> str:
    train = candidate.request.raw["train"]
    try:
        found = hashlib.sha256(candidate.request.train_bytes()).hexdigest()
    except FileNotFoundError as err:
        raise Broken(f"{train['path']} is gone; a trainer only reads it") from err
    if found != train["sha256"]:
        raise Broken(
            f"{train['path']} has SHA-256 {found[:12]}, the request says {train['sha256'][:12]}: it was changed. "
            "A trainer only reads it, and refuses one that differs"
        )
    return f"{train['path']} is as the request names it"


def _metrics_is_complete(candidate: Candidate) -> str:
    return f"metrics.json is there, of format {candidate.request.report()['format']}"


def _answers_this_request(candidate: Candidate) -> str:
    candidate.request.metrics()
    return "metrics.json carries the hash of this request.json"


def _selection_can_be_compared(candidate: Candidate) -> str:
    selection, wanted = candidate.request.report().get("selection"), candidate.request.raw["metric"]
    if selection is None:
        return "no selection: the estimator can stand alone, but not be compared with others"
    if not isinstance(selection, dict):
        raise Broken(f"selection is {selection!r}; give an object with metric, score and folds, or null")
    if selection.get("metric") != wanted:
        raise Broken(f"selection.metric is {selection.get('metric')!r}, but the request asks for {wanted!r}")
    folds = selection.get("folds") or []
    if not isinstance(folds, list):
        raise Broken(f"selection.folds is {folds!r}; give the list of scores that selection.score is the mean of")
    for name, value in [("score", selection.get("score")), *((f"folds[{n}]", v) for n, v in enumerate(folds))]:
        if not _finite(value) and not (name != "score" and value is None):
            raise Broken(f"selection.{name} is {value!r}; give a finite number")
    return f"{wanted} on the folds is {selection['score']:.4g}"


def _importance_names_features(candidate: Candidate) -> str:
    importance = candidate.request.report().get("importance")
    if importance is None:
        return "no importance is told"
    names = candidate.request.raw["features"]
    if not isinstance(importance, dict):
        raise Broken(f"importance is {importance!r}; give an object of feature to number, or leave it out")
    for name, value in importance.items():
        if name not in names:
            raise Broken(f"importance names {name!r}, which is no feature of the request.{did_you_mean(name, names)}")
        if not _finite(value):
            raise Broken(f"importance of {name!r} is {value!r}; give a finite number")
    return f"importance of {len(importance)} features"


def _model_can_be_served(candidate: Candidate) -> str:
    model, store = candidate.model, candidate.request.store
    place = str(candidate.request.raw["output"]["model"])
    more = [name for name in store.files(place) if name not in model.content and not name.startswith(".")]
    if more:
        raise Broken(
            f"the model folder also holds {', '.join(more)}, which its format does not have: Windsock neither loads "
            "nor keeps that, least of all a pickle. What only the trainer needs belongs into checkpoints"
        )
    if model.task != candidate.request.raw["task"]:
        raise Broken(f"model.json says task {model.task!r}, but the request asks for {candidate.request.raw['task']!r}")
    return f"the model folder holds {', '.join(sorted(model.content))} and loads"


def _features_are_the_requests(candidate: Candidate) -> str:
    known = candidate.request.raw["features"]
    for name in candidate.model.feature_names:
        if name not in known:
            raise Broken(
                f"model.json asks for {name!r}, which the request does not list among its features."
                f"{did_you_mean(name, known)} Windsock could not feed it"
            )
    return f"the model takes {len(candidate.model.feature_names)} of the request's {len(known)} features"


def _scores_are_scores(candidate: Candidate) -> str:

    features = candidate.rows.select(candidate.model.feature_names)
    # A row of which nothing is known has to get a score as well.
    empty = pa.table({f.name: pa.nulls(1, f.type) for f in features.schema})
    for what, rows in (("training rows", features), ("rows without any value", empty)):
        usable_scores(candidate.model, candidate.model.task, rows, what)
    return f"every one of {features.num_rows} rows gets a usable score, also one without any value"


def _scores_are_its_librarys(candidate: Candidate) -> str:
    request = candidate.request
    return compare_native_scores(request.store, str(request.raw["key"]), candidate.model, candidate.rows)


def _metrics_came_last(candidate: Candidate) -> str:
    store, output = candidate.request.store, candidate.request.raw["output"]
    committed = store.fs.modified(store.path(str(output["metrics"])))
    for path in store.fs.find(store.path(str(output["model"]))):
        if store.fs.modified(path) > committed:
            raise Broken(
                f"{str(path).rsplit('/', 1)[-1]} of the model folder is younger than metrics.json; write metrics.json "
                "last, or a reader finds a candidate that looks complete and is not"
            )
    return "nothing in the model folder is younger than metrics.json"


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_CLAUSES: tuple[tuple[str, tuple[str, ...], Callable[[Candidate], str]], ...] = (
    ("rows", (), _rows_are_untouched),
    ("metrics", (), _metrics_is_complete),
    ("request-hash", ("metrics",), _answers_this_request),
    ("selection", ("metrics",), _selection_can_be_compared),
    ("importance", ("metrics",), _importance_names_features),
    ("model", (), _model_can_be_served),
    ("features", ("model",), _features_are_the_requests),
    ("scores", ("rows", "model", "features"), _scores_are_scores),
    ("exact", ("rows", "model", "features"), _scores_are_its_librarys),
    ("order", ("metrics", "model"), _metrics_came_last),
)
"""Clause, the clauses without which it makes no sense, and its check."""
