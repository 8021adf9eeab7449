"""LightGBM as a learner: the same bytes every time."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from windsock.errors import SpecError
from windsock.learners.learner import Params, Report, Rows
from windsock.runs.run_folder import CheckpointFolder
from windsock.served.formats.lightgbm import lightgbm_files
from windsock.served.matrix import Feature
from windsock.served.model import Task, threads
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
    """Trained trees; see :class:`windsock.learners.learner.Learned`."""

    task: Task
    features: Sequence[Feature]
    booster: Any
    curve: list[float]

    def predict(self, x: npt.NDArray[np.float64], rounds: int | None = None) -> npt.NDArray[np.float64]:
        """Score rows with the first ``rounds`` trees."""
        scores = self.booster.predict(x, num_iteration=rounds, num_threads=threads())
        return np.asarray(scores, dtype=np.float64)

    def files(self) -> dict[str, bytes]:
        """Return the model folder."""
        return lightgbm_files(self.booster, self.task, self.features)

    def importance(self) -> dict[str, float]:
        """Return each feature's share of the total gain."""
        gain = self.booster.feature_importance("gain")
        shares = gain / total if (total := float(gain.sum())) > 0 else np.zeros(len(gain))
        return {f.name: round(float(share), 6) for f, share in zip(self.features, shares, strict=True)}


@dataclass(frozen=True)
class BoosterLearner:
    """LightGBM with fixed inputs.

    A training takes seconds to minutes, so it keeps no checkpoint of its own: the search keeps its finished trials.
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

        task = self.spec.label.task
        loss = {"binary": "binary_logloss", "regression": "l2"}[task]
        if self.spec.training.metric == "mean_absolute_error":
            loss = "l1"
        settings = {
            "objective": task,
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
        learn = lightgbm.Dataset(rows.x, rows.y, feature_name=names, categorical_feature=categorical, params=settings)
        valid: list[Any] = []
        curves: dict[str, Any] = {}
        callbacks: list[Any] = []
        if judged is not None:
            valid = [lightgbm.Dataset(judged.x, judged.y, reference=learn, params=settings)]
            callbacks = [lightgbm.record_evaluation(curves), lightgbm.early_stopping(_PATIENCE, verbose=False)]
            if report is not None:
                callbacks.append(lambda env: report(env.iteration + 1, float(env.evaluation_result_list[0][2])))
        try:
            booster = lightgbm.train(
                settings, learn, rounds, valid_sets=valid, valid_names=["judged"] * len(valid), callbacks=callbacks
            )
        except lightgbm.basic.LightGBMError as err:
            raise SpecError(
                f"{self.spec.name}: LightGBM refuses training.estimator: {err}. Parameters: {params}."
            ) from err
        return Boosted(task, self.features, booster, list(curves.get("judged", {}).get(loss, [])))
