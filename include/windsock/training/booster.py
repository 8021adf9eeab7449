"""Training one LightGBM booster, the same bytes every time."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from windsock.errors import SpecError
from windsock.spec import ModelSpec
from windsock.training.matrix import Feature
from windsock.training.model import threads

Params = dict[str, Any]

_DEFAULTS: Mapping[str, Any] = {
    "learning_rate": 0.05,
    "num_leaves": 31,
    # Finer than LightGBM's 255: amounts have a long tail in which positives hide.
    "max_bin": 1023,
}
_PATIENCE = 50
_RESERVED = {
    "num_iterations": "training.estimator.rounds",
    "n_estimators": "training.estimator.rounds",
    "num_boost_round": "training.estimator.rounds",
    "early_stopping_round": "training.estimator.rounds",
    "early_stopping_rounds": "training.estimator.rounds",
    "seed": "training.seed",
    "random_state": "training.seed",
    "metric": "training.metric",
    "num_threads": "the environment variable WINDSOCK_THREADS",
    "n_jobs": "the environment variable WINDSOCK_THREADS",
    "categorical_feature": "training.categorical",
}


@dataclass(frozen=True)
class Rows:
    """Model inputs and answers, row by row in order of time."""

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    days: npt.NDArray[Any]
    """``YYYY-MM-DD``, shape ``(rows,)``."""
    entities: npt.NDArray[Any] | None = None
    """What alerts are counted by."""
    blocked_by: npt.NDArray[Any] | None = None
    """Entities that are left out once they are known to be positive."""

    def where(self, mask: npt.NDArray[np.bool_]) -> Self:
        """Return the rows of a mask."""
        return type(self)(
            self.x[mask],
            self.y[mask],
            self.days[mask],
            self.entities[mask] if self.entities is not None else None,
            self.blocked_by[mask] if self.blocked_by is not None else None,
        )


def own_params(spec: ModelSpec) -> Params:
    """Return the parameters that the spec gives, with Windsock's defaults below them.

    Raises:
        SpecError: A parameter is given in the wrong place.
    """
    estimator = spec.training.estimator
    for name in (*estimator.params, *estimator.search):
        if name in _RESERVED:
            raise SpecError(f"training.estimator: {name!r} is set by {_RESERVED[name]}; remove it from the parameters.")
    return {**_DEFAULTS, **estimator.params}


def train(
    spec: ModelSpec,
    features: Sequence[Feature],
    params: Params,
    rows: Rows,
    rounds: int,
    judged: Rows | None = None,
) -> tuple[Any, list[float]]:
    """Train one booster, the same bytes every time.

    Returns:
        The booster and, with ``judged`` rows, its loss on them after each round.

    Raises:
        SpecError: LightGBM refuses a parameter.
    """
    # Waiting threads must sleep: spinning ones burn the cores that other tasks need.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import lightgbm

    loss = {"binary": "binary_logloss", "regression": "l2"}[spec.label.task]
    if spec.training.metric == "mean_absolute_error":
        loss = "l1"
    settings = {
        "objective": spec.label.task,
        **params,
        "metric": loss,
        "seed": spec.training.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": threads(),
        "verbosity": -1,
    }
    names = [f.name for f in features]
    categorical = [f.name for f in features if f.categories is not None]

    def dataset(part: Rows, reference: Any = None) -> Any:
        return lightgbm.Dataset(
            part.x, part.y, feature_name=names, categorical_feature=categorical, params=settings, reference=reference
        )

    learn = dataset(rows)
    curves: dict[str, Any] = {}
    callbacks = []
    if judged is not None:
        callbacks = [lightgbm.record_evaluation(curves), lightgbm.early_stopping(_PATIENCE, verbose=False)]
    try:
        booster = lightgbm.train(
            settings,
            learn,
            num_boost_round=rounds,
            valid_sets=[dataset(judged, learn)] if judged is not None else None,
            valid_names=["judged"] if judged is not None else None,
            callbacks=callbacks,
        )
    except lightgbm.basic.LightGBMError as err:
        raise SpecError(f"{spec.name}: LightGBM refuses training.estimator: {err}. Parameters: {params}.") from err
    return booster, list(curves.get("judged", {}).get(loss, []))
