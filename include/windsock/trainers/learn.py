"""The built-in kinds of model: search parameters on folds, then train on the whole window.

Needs a request and the training rows, nothing else: the same code runs in a task, in a
pod and in a notebook. Equal inputs and seed give an equal model folder, byte for byte.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from windsock.dataset.folds import Fold
from windsock.errors import DataContractError, SpecError
from windsock.format_numbers import taken
from windsock.learners.learner import Learner
from windsock.learners.rows import Rows
from windsock.runs.checkpoints import CheckpointFolder
from windsock.search.search import Choosing, choose, take_part
from windsock.search.trials import Search
from windsock.served.matrix import Feature, learn_features, to_matrix
from windsock.served.metrics import TIME
from windsock.spec import ModelSpec
from windsock.spec.estimators import CustomSpec, TorchSpec

if TYPE_CHECKING:
    import pyarrow as pa

    from windsock.search.study import SharedStudy
    from windsock.search.trials import TrialWatch
    from windsock.spec.estimators import BuiltIn

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Learnt:
    """What a training gives, before it is judged on the holdout."""

    files: Mapping[str, bytes]
    """The model folder."""
    report: dict[str, Any]
    """Content of the candidate's ``metrics.json`` that depends on inputs and seed alone."""


@dataclass(frozen=True)
class TrainingTask:
    """Everything that a request says, ready to be learnt from."""

    spec: ModelSpec
    estimator: BuiltIn
    learner: Learner
    rows: Rows
    folds: tuple[Fold, ...]

    @classmethod
    def of(cls, request: Mapping[str, Any], train_set: pa.Table) -> TrainingTask:
        """Read a trainer request.

        Args:
            request: Content of the candidate's ``request.json``.
            train_set: Rows of the window: key, ``event_timestamp``, features, label.

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
        _learnable(spec, train_set)
        features = learn_features(train_set, list(request["features"]), spec.training.categorical)
        rows = _rows(spec, train_set, to_matrix(train_set, features))
        folds = tuple(
            Fold(_days(fold["learn"]), _days(fold["judge"]), int(fold["gap_days"])) for fold in request["folds"]
        )
        learner = _learner(spec, estimator, features, request.get("module"))
        return cls(spec, estimator, learner, rows, folds)


def learn(
    task: TrainingTask,
    *,
    checkpoints: CheckpointFolder | None = None,
    shared_study: SharedStudy | None = None,
    watch: TrialWatch | None = None,
) -> Learnt:
    """Search, then train on the whole window.

    Args:
        task: From :meth:`TrainingTask.of`.
        checkpoints: Where progress is kept; what is found there is gone on from.
        shared_study: The study that several trainers share.
        watch: Told of every trial.

    Raises:
        SpecError: A parameter is refused.
        UpstreamUnavailable: The shared study cannot be reached.
    """
    chosen = choose(_search(task, checkpoints, shared_study, watch))
    return train_chosen(task, chosen, checkpoints=checkpoints)


def train_chosen(task: TrainingTask, chosen: Choosing, *, checkpoints: CheckpointFolder | None = None) -> Learnt:
    """Train on the whole window with parameters that have been chosen."""
    spec = task.spec
    log.info(
        "%s: training %s on %d rows, %d rounds, trial %d",
        spec.name, task.estimator.name, len(task.rows.y), chosen.rounds, chosen.chosen + 1,
    )  # fmt: skip
    final = checkpoints.sub("final") if checkpoints is not None else None
    learned = task.learner.train(chosen.params, task.rows, chosen.rounds, checkpoint=final)
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
    }  # fmt: skip
    return Learnt(dict(learned.files()), report)


def search_only(
    task: TrainingTask, checkpoints: CheckpointFolder, shared_study: SharedStudy, watch: TrialWatch | None
) -> int:
    """Take part in a shared search without training the final model; returns how many trials were done here."""
    return take_part(_search(task, checkpoints, shared_study, watch))


def _search(
    task: TrainingTask, checkpoints: CheckpointFolder | None, shared_study: SharedStudy | None, watch: TrialWatch | None
) -> Search:
    return Search(task.learner, task.spec, task.estimator, task.rows, task.folds, checkpoints, shared_study, watch)


def spec_of(request: Mapping[str, Any]) -> ModelSpec:
    """Return the spec that a request (or a lineage) carries.

    JSON files keep their keys sorted, but the order of row features is the order of model
    inputs; the list ``features`` brings it back.

    Raises:
        SpecError: The request was made for another version of the spec's rules.
    """
    from pydantic import ValidationError

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
        from windsock.learners.neural import NetworkLearner

        return NetworkLearner(spec, estimator, features, module)
    from windsock.learners.booster import BoosterLearner

    return BoosterLearner(spec, estimator, features)


def _days(texts: list[str]) -> tuple[date, ...]:
    return tuple(date.fromisoformat(text) for text in texts)


def _learnable(spec: ModelSpec, train_set: pa.Table) -> None:
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


def _rows(spec: ModelSpec, frame: pa.Table, x: npt.NDArray[np.float64]) -> Rows:
    import pyarrow.compute as pc

    evaluation = spec.training.evaluation

    def codes(column: str | None) -> npt.NDArray[Any] | None:
        if column is None or spec.label.task != "binary":
            return None
        encoded = frame.column(column).combine_chunks().dictionary_encode(null_encoding="encode")
        return encoded.indices.to_numpy()  # type: ignore[no-any-return]

    return Rows(
        x,
        frame.column(spec.label.column).to_numpy().astype(np.float64),
        pc.strftime(frame.column(TIME), "%Y-%m-%d").to_numpy(zero_copy_only=False).astype("U10"),
        codes(evaluation.alert_entity),
        codes(evaluation.exclude_known_positives),
    )
