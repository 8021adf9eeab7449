"""A small real learner for tests of the search: a linear model by gradient descent, one round a step.

It keeps its progress like a network does: weights every few rounds, and on going on it reports the rounds
before again. ``pause_s`` makes a round as slow as a test needs it.
"""

import json
import tempfile
import time
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np

from training_world import TRAINING, world_spec
from windsock.dataset.time_split import time_folds
from windsock.days import day_range
from windsock.errors import SpecError
from windsock.learners.learner import Rows
from windsock.learners.ranks import rank, shared
from windsock.search.trials import Search

EVERY = 5
DAYS = day_range(date(2026, 3, 4), date(2026, 3, 10))
FOLDS = time_folds(DAYS, folds=3, gap_days=1)
SEARCH = {
    "learning_rate": {"kind": "float", "low": 0.01, "high": 3, "log": True},
    "l2": {"kind": "float", "low": 1e-4, "high": 1, "log": True},
    "intercept": {"kind": "choice", "values": [True, False]},
}


def some_rows(per_day: int = 60, *, binary: bool = True, seed: int = 0) -> Rows:
    """Return rows of a week that a linear model can learn from."""
    rng = np.random.default_rng(seed)
    n = per_day * len(DAYS)
    x = rng.normal(size=(n, 4)) * [1, 3, 0.3, 1]
    y = x @ [1.0, 0.3, -1.0, 0.0] + rng.normal(size=n)
    return Rows(x, (y > 1).astype(float) if binary else y, np.repeat([d.isoformat() for d in DAYS], per_day))


def spec_with(training=(), search_more=(), **estimator):
    """Return a spec whose estimator is searched as ``SEARCH`` says, and that estimator."""
    own = {"kind": "lightgbm", "search": {**SEARCH, **dict(search_more)}, "trials": 6, **estimator}
    with tempfile.TemporaryDirectory() as home:
        _, spec = world_spec(Path(home), training={**TRAINING, **dict(training), "estimator": own})
    return spec, spec.training.estimator()


def a_search(learner, spec, estimator, rows, folds=FOLDS, **more):
    """Return the inputs of a search."""
    return Search(learner, spec, estimator, rows, folds, **more)


@dataclass
class Line:
    weights: list
    """After each round, shape (features + 1,)."""
    binary: bool
    curve: list

    def predict(self, x, rounds=None):
        z = _with_one(x) @ self.weights[(rounds or len(self.weights)) - 1]
        return _sigmoid(z) if self.binary else z

    def files(self):
        return {"model.json": json.dumps([float(w) for w in self.weights[-1]]).encode()}

    def importance(self):
        return None


@dataclass
class GradientLearner:
    most_rounds: int = 40
    binary: bool = True
    pause_s: float = 0.0
    own: dict = field(default_factory=lambda: {"learning_rate": 0.3, "l2": 0.01, "intercept": True})
    rounds_trained: int = 0

    def own_params(self):
        return dict(self.own)

    def train(self, params, rows, rounds, judged=None, *, checkpoint=None, report=None):
        if params["l2"] < 0:
            raise SpecError(f"l2 must not be negative: {params['l2']}")
        x, weights, curve = _with_one(rows.x), [], []
        kept = shared(partial(checkpoint.read, "progress.json")) if checkpoint is not None else None
        if kept is not None:
            state = json.loads(kept)
            weights, curve = [np.array(w) for w in state["weights"]], state["curve"]
        for done, loss in enumerate(curve, 1):
            if report is not None:
                shared(partial(report, done, loss))
        now = weights[-1].copy() if weights else np.zeros(x.shape[1])
        with np.errstate(all="ignore"):
            for done in range(len(weights) + 1, rounds + 1):
                time.sleep(self.pause_s)
                z = x @ now
                slope = x.T @ ((_sigmoid(z) if self.binary else z) - rows.y) / len(rows.y) + params["l2"] * now
                slope[-1] *= params["intercept"]
                now = now - params["learning_rate"] * slope
                weights.append(now)
                self.rounds_trained += 1
                if judged is not None:
                    curve.append(self._loss(judged, now))
                if checkpoint is not None and done % EVERY == 0 and rank() == 0:
                    state = {"weights": [w.tolist() for w in weights], "curve": curve}
                    checkpoint.write("progress.json", json.dumps(state).encode())
                if report is not None and judged is not None:
                    shared(partial(report, done, curve[-1]))
        return Line(weights, self.binary, curve)

    def _loss(self, rows, weights):
        z = _with_one(rows.x) @ weights
        if not self.binary:
            return float(np.mean((z - rows.y) ** 2))
        return float(np.mean(np.logaddexp(0, z) - rows.y * z))


def _with_one(x):
    return np.hstack([x, np.ones((len(x), 1))])


def _sigmoid(z):
    return 1 / (1 + np.exp(-np.clip(z, -500, 500)))
