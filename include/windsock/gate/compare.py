"""Is this model worse than that one? A paired, clustered, one-sided bootstrap.

Both models have scored the same rows; each resample weighs the rows anew (see
``served.resampling``), with the same weights for both, and takes the difference of the
metric. The candidate passes if the lower bound of that difference stays above ``-margin``.
The seed is fixed: equal inputs, equal verdict. ADR 0007 says why and has the numbers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windsock.served.resampling import ClusteredRows
from windsock.served.weighted import weighted_metric
from windsock.spec.modelling import LOWER_IS_BETTER

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """What the bootstrap found."""

    metric: str
    candidate: float
    """Value of the metric on the rows as they are; ``reference`` is that of the other model."""
    reference: float
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
    rows: ClusteredRows,
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
    """Compare two models' scores of the same rows, both of shape ``(rows,)``.

    Args:
        rows: Labels, days and clusters.
        candidate: Scores of the model that wants to pass.
        reference: Scores of the model it must not fall behind.
        metric: Metric of the spec.
        margin: How much worse is still acceptable, in the metric's unit.
        confidence: Of the one-sided bound, in ``(0.5, 1)``.
        resamples: How many weightings are drawn with ``seed``.
        seed: Equal seeds give equal verdicts.
        k: Alerts a day, for ``precision_at_k``.
    """
    candidate_metric, reference_metric = (weighted_metric(metric, rows, score, k=k) for score in (candidate, reference))
    equal = np.ones((1, rows.rows))
    advantages = np.concatenate(
        [
            signed(metric) * (candidate_metric(weights) - reference_metric(weights))
            for weights in rows.weightings(resamples, np.random.default_rng(seed))
        ]
    )
    return Comparison(
        metric,
        float(candidate_metric(equal)[0]),
        float(reference_metric(equal)[0]),
        # Of two models that are equal everywhere the bound is 0 and not above -0: equal is not an improvement.
        float(np.quantile(advantages, 1 - confidence)),
        margin,
        confidence,
        advantages,
        rows.clusters,
        rows.clustered_by,
    )


def planted_worse(score: Vector, *, share: float, seed: int) -> Vector:
    """Return scores of a model that is certainly worse: a share of the rows has its scores dealt out anew."""
    rng = np.random.default_rng(seed)
    chosen = np.nonzero(rng.random(len(score)) < share)[0]
    worse = score.copy()
    worse[chosen] = score[rng.permutation(chosen)]
    return worse
