"""Is this model worse than that one? A paired, clustered, one-sided bootstrap.

Both models have scored the same rows; each resample weighs the rows anew, with the same
weights for both, and takes the difference of the metric. The candidate passes if the
lower bound of that difference stays above ``-margin``.

What is resampled are not rows but clusters of rows that share their luck: all rows of
one entity (a customer's transactions are fraudulent together), or, without entities,
blocks of time. Rows taken as independent would make the bound too tight. Measured on ten
weeks of the handbook's transactions (two LightGBM models, average precision, a new pair
each week): the weekly differences vary with sd 0.019, retraining included; resampling
rows says 0.010, days 0.010, terminals 0.012, customers 0.015.

Weights are exponential (Rubin's Bayesian bootstrap) rather than counts, so that no
resample loses all of its few positives. The seed is fixed: equal inputs, equal verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from windsock.spec.modelling import LOWER_IS_BETTER

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from windsock.gate.weighted import JudgedRows

    Vector = NDArray[np.float64]

_CHUNK_CELLS = 4_000_000
"""Weights held at once: about 100 MB with what is made of them."""


@dataclass(frozen=True)
class Comparison:
    """What the bootstrap found."""

    metric: str
    candidate: float
    """Metric of the candidate on the rows as they are."""
    reference: float
    """Metric of the other model on the same rows."""
    lower: float
    """One-sided lower bound of :attr:`advantage`."""
    margin: float
    confidence: float
    advantages: Vector
    """One advantage per resample."""
    clusters: int
    clustered_by: str

    @property
    def advantage(self) -> float:
        """How much better the candidate is; positive is better, also where lower values are."""
        return signed(self.metric) * (self.candidate - self.reference)

    @property
    def passed(self) -> bool:
        """Whether the candidate is not worse by more than the margin."""
        return self.lower > -self.margin


def signed(metric: str) -> int:
    """Return -1 for metrics where lower is better, else 1."""
    return -1 if metric in LOWER_IS_BETTER else 1


def compare(
    rows: JudgedRows,
    candidate: Vector,
    reference: Vector,
    *,
    metric: str,
    margin: float,
    confidence: float,
    resamples: int,
    seed: int,
    k: int = 100,
) -> Comparison:
    """Compare two models' scores of the same rows.

    Args:
        rows: Labels, days and clusters, ``n`` rows.
        candidate: Scores of the model that wants to pass, shape ``(n,)``.
        reference: Scores of the model it must not fall behind, shape ``(n,)``.
        metric: Metric of the spec.
        margin: How much worse is still acceptable, in the metric's unit.
        confidence: Of the one-sided bound, in ``(0.5, 1)``.
        resamples: How many weightings.
        seed: Of the weightings.
        k: Alerts a day, for ``precision_at_k``.
    """
    import numpy as np

    from windsock.gate.weighted import weighted_metric

    measures = [weighted_metric(metric, rows, score, k=k) for score in (candidate, reference)]
    points = [float(m(np.ones((1, rows.rows)))[0]) for m in measures]
    rng = np.random.default_rng(seed)
    step = max(1, min(resamples, _CHUNK_CELLS // max(1, rows.rows)))
    parts: list[Any] = []
    for start in range(0, resamples, step):
        drawn = rng.standard_exponential((min(step, resamples - start), rows.clusters), dtype=np.float32)
        weights = np.take(drawn, rows.cluster, axis=1)
        values = [m(weights) for m in measures]
        parts.append(signed(metric) * (values[0] - values[1]))
    advantages = np.concatenate(parts)
    # Of two models that are equal everywhere the bound is 0 and not above -0: equal is not an improvement.
    lower = float(np.quantile(advantages, 1 - confidence))
    return Comparison(
        metric, points[0], points[1], lower, margin, confidence, advantages, rows.clusters, rows.clustered_by
    )


def planted_worse(score: Vector, *, share: float, seed: int) -> Vector:
    """Return scores of a model that is certainly worse: a share of the rows has its scores dealt out anew."""
    import numpy as np

    rng = np.random.default_rng(seed)
    chosen = np.nonzero(rng.random(len(score)) < share)[0]
    worse = score.copy()
    worse[chosen] = score[rng.permutation(chosen)]
    return worse
