"""The built-in kinds of model: search parameters on folds, then train on the whole window.

Needs a request and the training rows, nothing else: the same code runs in a task, in a
pod and in a notebook. Equal inputs and seed give an equal model folder, byte for byte.
"""

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from windsock.dataset.time_split import Fold
from windsock.errors import DataContractError, SpecError
from windsock.format_numbers import taken
from windsock.learners.learner import Learner, Rows
from windsock.search.search import Choosing, choose
from windsock.search.trials import Search
from windsock.search.windows import choose_window, of_window
from windsock.served.matrix import Feature, learn_features, to_matrix
from windsock.served.metrics import TIME, codes_of
from windsock.spec import ModelSpec
from windsock.spec.estimators import BuiltIn, CustomSpec, TorchSpec

log = logging.getLogger(__name__)


class Learnt(NamedTuple):
    """What a training gives, before it is judged on the holdout."""

    files: Mapping[str, bytes]
    """The model folder."""
    report: dict[str, Any]
    """Content of the candidate's ``metrics.json`` that depends on inputs and seed alone."""


def search_of(request: Mapping[str, Any], train_set: pa.Table) -> Search:
    """Return all that a trainer request says, ready to be learnt from.

    Raises:
        DataContractError: The training set is empty or has one class only.
        SpecError: A parameter or a feature type does not fit, or the estimator is not built in.
    """
    spec = spec_of(request)
    estimator = spec.training.estimator(str(request["estimator"]["name"]))
    if isinstance(estimator, CustomSpec):
        raise SpecError(
            f"{spec.name}: estimator {estimator.name!r} is a trainer of the user's own; Windsock's own trainer "
            "cannot train it. Give its command or its image in training.estimators."
        )
    _check_learnable(spec, train_set)
    features = learn_features(train_set, list(request["features"]), spec.training.categorical)
    folds = _folds(request["folds"])
    windows = {int(each["days"]): _folds(each["folds"]) for each in request.get("windows", ())}
    learner = _learner(spec, estimator, features, request.get("module"))
    rows = _rows(spec, train_set, features)
    return Search(learner, spec, estimator, rows, folds, windows=windows, days=tuple(request["days"]))


def _folds(raw: Sequence[Mapping[str, Any]]) -> list[Fold]:
    return [Fold(_days(fold["learn"]), _days(fold["judge"]), int(fold["gap_days"])) for fold in raw]


def chosen_of(request: Mapping[str, Any]) -> Choosing | None:
    """Return what a request says was chosen already, as that of a refit does; None: it is to be searched."""
    given = request.get("chosen")
    if given is None:
        return None
    params, days = dict(given["params"]), given.get("window_days")
    return Choosing(params, int(given["rounds"]), int(given["trial"]), note="chosen before", window_days=days)


def learn(search: Search, chosen: Choosing | None = None) -> Learnt:
    """Search, unless parameters have been chosen already, then train on the whole window.

    Raises:
        SpecError: A parameter is refused.
        UpstreamUnavailable: The shared study cannot be reached.
    """
    spec, window = search.spec, None
    if chosen is None and search.windows:
        window = choose_window(search)
        search = of_window(search, window.days)
    chosen = chosen or replace(choose(search), window_days=window.days if window is not None else None)
    rows = search.rows_of(chosen.window_days)
    log.info(
        "%s: training %s on %d rows, %d rounds, trial %d",
        spec.name, search.estimator.name, len(rows.y), chosen.rounds, chosen.chosen + 1,
    )  # fmt: skip
    checkpoint = search.checkpoints.sub("final") if search.checkpoints is not None else None
    learned = search.learner.train(chosen.params, rows, chosen.rounds, checkpoint=checkpoint)
    own = next((t for t in chosen.trials if t.number == chosen.chosen), None)
    selection = None
    if own is not None and own.score is not None:
        selection = {"metric": spec.training.metric, "score": own.score, "folds": list(own.folds)}
    report = {
        "selection": selection,
        "params": chosen.params,
        "rounds": chosen.rounds,
        "trial": chosen.chosen,
        "note": chosen.note,
        "trials": [t.to_json() for t in chosen.trials],
        "folds": [
            {"learn": [f.learn[0].isoformat(), f.learn[-1].isoformat()],
             "judge": [f.judge[0].isoformat(), f.judge[-1].isoformat()], "gap_days": f.gap_days}
            for f in chosen.folds
        ],
        "importance": learned.importance(),
        **({"window_days": chosen.window_days} if chosen.window_days is not None else {}),
        **({"window": window.to_json()} if window is not None else {}),
    }  # fmt: skip
    return Learnt(dict(learned.files()), report)


def spec_of(request: Mapping[str, Any]) -> ModelSpec:
    """Return the spec that a request (or a lineage) carries.

    JSON files keep their keys sorted, but the order of row features is the order of model
    inputs; the list ``features`` brings it back.

    Raises:
        SpecError: The request was made for another version of the spec's rules.
    """
    try:
        place = " ".join(str(request[name]) for name in ("model", "run", "as_of") if name in request)
        raw = taken("definition", copy.deepcopy(request["spec"]), f"spec in the request of training {place}")
        row, order = raw["features"]["row"], list(request["features"])
        raw["features"]["row"] = {name: row[name] for name in sorted(row, key=order.index)}
        return ModelSpec.model_validate(raw)
    except (ValidationError, KeyError, ValueError) as err:
        raise SpecError(
            f"The training request carries no spec that this version of Windsock understands: {err}. "
            "Assemble the training set again."
        ) from err


def _learner(spec: ModelSpec, estimator: BuiltIn, features: list[Feature], module: Mapping[str, str] | None) -> Learner:
    if isinstance(estimator, TorchSpec):
        from windsock.learners.neural.learner import NetworkLearner

        return NetworkLearner(spec, estimator, features, module)
    from windsock.learners.booster import BoosterLearner

    return BoosterLearner(spec, estimator, features)


def _days(texts: list[str]) -> tuple[date, ...]:
    return tuple(date.fromisoformat(text) for text in texts)


def _check_learnable(spec: ModelSpec, train_set: pa.Table) -> None:
    if train_set.num_rows == 0:
        raise DataContractError(f"{spec.name}: the training set is empty. Assemble it from days that have labels.")
    if spec.label.task == "binary":
        values = sorted(set(train_set.column(spec.label.column).unique().to_pylist()), key=str)
        if values != [0, 1]:
            raise DataContractError(
                f"{spec.name}: the labels {spec.label.column} of the {train_set.num_rows} training rows hold "
                f"{', '.join(map(str, values))}; a binary model needs rows of both classes, 0 and 1. "
                "Lengthen training.window_days, or check that the labels arrive."
            )


def _rows(spec: ModelSpec, frame: pa.Table, features: list[Feature]) -> Rows:

    evaluation = spec.training.evaluation
    by = (evaluation.alert_entity, evaluation.exclude_known_positives)
    binary = spec.label.task == "binary"
    return Rows(
        to_matrix(frame, features),
        frame.column(spec.label.column).to_numpy().astype(np.float64),
        pc.strftime(frame.column(TIME), "%Y-%m-%d").to_numpy(zero_copy_only=False).astype("U10"),
        *(codes_of(frame, column) if column is not None and binary else None for column in by),
    )
