"""LightGBM as a learner: the same bytes every time."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from windsock.errors import SpecError
from windsock.learners.learner import Params, Report
from windsock.learners.rows import Rows
from windsock.runs.checkpoints import CheckpointFolder
from windsock.served.matrix import Feature
from windsock.served.model import threads
from windsock.spec import ModelSpec
from windsock.spec.estimators import LightGBMSpec

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


def own_params(estimator: LightGBMSpec) -> Params:
    """Return the parameters that the spec gives, with Windsock's defaults below them.

    Raises:
        SpecError: A parameter is given in the wrong place.
    """
    for name in (*estimator.params, *estimator.search):
        if name in _RESERVED:
            raise SpecError(f"training.estimator: {name!r} is set by {_RESERVED[name]}; remove it from the parameters.")
    return {**_DEFAULTS, **estimator.params}


@dataclass(frozen=True)
class Boosted:
    """Trained trees."""

    spec: ModelSpec
    features: tuple[Feature, ...]
    booster: Any
    curve: list[float] = field(default_factory=list)

    def predict(self, x: npt.NDArray[np.float64], rounds: int | None = None) -> npt.NDArray[np.float64]:
        """Score rows with the first ``rounds`` trees."""
        scores = self.booster.predict(x, num_iteration=rounds, num_threads=threads())
        return np.asarray(scores, dtype=np.float64)

    def files(self) -> dict[str, bytes]:
        """Return the model folder."""
        from windsock.served.formats.lightgbm import from_booster

        return from_booster(self.booster, self.spec.label.task, self.features).files()

    def importance(self) -> dict[str, float]:
        """Return each feature's share of the total gain."""
        gain = self.booster.feature_importance("gain")
        total = float(gain.sum())
        return {
            f.name: round(float(g) / total, 6) if total > 0 else 0.0 for f, g in zip(self.features, gain, strict=True)
        }


@dataclass(frozen=True)
class BoosterLearner:
    """LightGBM with fixed inputs.

    A training takes seconds to minutes, so it keeps no checkpoint of its own: the search
    keeps its finished trials.
    """

    spec: ModelSpec
    estimator: LightGBMSpec
    features: Sequence[Feature]

    @property
    def most_rounds(self) -> int:
        """Trees at most."""
        return self.estimator.rounds

    def own_params(self) -> Params:
        """Return the spec's parameters; see :func:`own_params`."""
        return own_params(self.estimator)

    def train(
        self,
        params: Params,
        rows: Rows,
        rounds: int,
        judged: Rows | None = None,
        *,
        checkpoint: CheckpointFolder | None = None,
        report: Report | None = None,
    ) -> Boosted:
        """Train one booster; see :meth:`windsock.learners.learner.Learner.train`."""
        # Waiting threads must sleep: spinning ones burn the cores that other tasks need.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        import lightgbm

        loss = {"binary": "binary_logloss", "regression": "l2"}[self.spec.label.task]
        if self.spec.training.metric == "mean_absolute_error":
            loss = "l1"
        settings = {
            "objective": self.spec.label.task,
            **params,
            "metric": loss,
            "seed": self.spec.training.seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": threads(),
            "verbosity": -1,
        }
        names = [f.name for f in self.features]
        categorical = [f.name for f in self.features if f.categories is not None]

        def dataset(part: Rows, reference: Any = None) -> Any:
            return lightgbm.Dataset(
                part.x,
                part.y,
                feature_name=names,
                categorical_feature=categorical,
                params=settings,
                reference=reference,
            )

        learn = dataset(rows)
        curves: dict[str, Any] = {}
        callbacks: list[Any] = []
        if judged is not None:
            callbacks = [lightgbm.record_evaluation(curves), lightgbm.early_stopping(_PATIENCE, verbose=False)]
            if report is not None:
                callbacks.append(_reporting(report))
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
            raise SpecError(
                f"{self.spec.name}: LightGBM refuses training.estimator: {err}. Parameters: {params}."
            ) from err
        return Boosted(self.spec, tuple(self.features), booster, list(curves.get("judged", {}).get(loss, [])))


def _reporting(report: Report) -> Any:
    def tell(env: Any) -> None:
        report(env.iteration + 1, float(env.evaluation_result_list[0][2]))

    return tell
