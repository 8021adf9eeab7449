"""Is this model worse than that one? A paired, clustered, one-sided bootstrap.

Both models have scored the same rows; each resample weighs the rows anew (see ``served.resampling``), with the same
weights for both, and takes the difference of the metric. The candidate passes if the lower bound of that difference
stays above ``-margin``. The seed is fixed: equal inputs, equal verdict. ADR 0007 says why and has the numbers.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from windsock.errors import DataContractError
from windsock.served.resampling import ClusteredRows, weighted_metric
from windsock.spec import ModelSpec
from windsock.spec.modelling import LOWER_IS_BETTER

Vector = NDArray[np.float64]

_DEGREES = 10
"""Most degrees of freedom of Student's bound: with 20 to 200 positives it holds at 0.005, where resamples do not (ADR
0030). Half of the clusters of equal weight, where those are fewer than twice as many: there resamples never do."""
_EQUAL_ENOUGH = 2.0 * _DEGREES
"""From so many clusters of equal weight on, resamples bound as they are, and nobody need be told of the weights."""


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
    effective: float
    """How many clusters of equal weight these are worth."""
    clustered_by: str

    @property
    def advantage(self) -> float:
        """How much better the candidate is; positive is better, also where lower values are."""
        return signed(self.metric) * (self.candidate - self.reference)

    @property
    def resampled_by(self) -> str:
        """By what, how many of it, and what these are worth if that is little."""
        worth = f", worth {self.effective:.1f} of equal weight" if self.effective < _EQUAL_ENOUGH else ""
        return f"resampled by {self.clustered_by}, {self.clusters} of them{worth}"

    @property
    def passed(self) -> bool:
        """Whether the candidate is not worse by more than the margin."""
        return self.lower > -self.margin


def signed(metric: str) -> int:
    """Return -1 for metrics where lower is better, else 1."""
    return -1 if metric in LOWER_IS_BETTER else 1


def effective_clusters(spec: ModelSpec, rows: ClusteredRows) -> float:
    """Return how many clusters of equal weight the rows are worth, by rows or by positives: what is less.

    A few large ones among many, or few that hold the positives, say no more than those few would alone.
    """
    weights = [np.ones(rows.rows)]
    if spec.label.task == "binary" and rows.positives:
        weights.append(rows.label)
    counts = [np.bincount(rows.cluster, weight) for weight in weights]
    return min(float(count.sum() ** 2 / (count**2).sum()) for count in counts)


def compare(
    spec: ModelSpec,
    rows: ClusteredRows,
    candidate: Vector,
    reference: Vector,
    *,
    margin: float,
    confidence: float | None = None,
) -> Comparison:
    """Compare two models' scores of the same rows, by the spec's metric, confidence, resamples and seed.

    ``candidate`` is of the model that wants to pass, ``reference`` of the one that it must not fall behind, shape
    ``(rows,)`` both; ``margin`` is how much worse is still acceptable, in the metric's unit. With a ``confidence`` of
    its own, beyond what resamples of few rows can tell, the bound is Student's, from their standard deviation; with
    few clusters it is so, too, where that is lower.

    Raises:
        DataContractError: The metric needs both classes, and the rows are of one; or it cannot be computed on them.
    """
    metric, gate, k = spec.training.metric, spec.gate, spec.training.evaluation.alerts_per_day
    if metric in ("average_precision", "roc_auc") and len(classes := np.unique(rows.label)) == 1:
        raise DataContractError(
            f"all {rows.rows} rows judged have {spec.label.column} = {classes[0]:g}, so {metric} tells no two models "
            "apart. Lengthen training.holdout_days, or train as of a day by which the other labels are known."
        )
    candidate_metric, reference_metric = (weighted_metric(metric, rows, score, k=k) for score in (candidate, reference))
    weightings = rows.weightings(gate.resamples, np.random.default_rng(spec.training.seed))
    advantages = signed(metric) * np.concatenate([candidate_metric(w) - reference_metric(w) for w in weightings])
    as_they_are = np.ones((1, rows.rows))
    now, then = (float(value(as_they_are)[0]) for value in (candidate_metric, reference_metric))
    # Of two models that are equal everywhere the bound is 0 and not above -0: equal is not an improvement.
    effective = effective_clusters(spec, rows)
    degrees, level = min(_DEGREES, effective / 2), gate.confidence if confidence is None else confidence
    # Weights of n equal clusters give (n - 1) / (n + 1) of the variance that their differences have.
    spread = float(np.std(advantages, ddof=1)) * math.sqrt((effective + 1) / max(effective - 1, 0.1))
    lower = signed(metric) * (now - then) - float(student.ppf(level, degrees)) * spread
    if confidence is None:
        resampled = float(np.quantile(advantages, 1 - level))
        lower = min(resampled, lower) if effective < _EQUAL_ENOUGH else resampled
    if not math.isfinite(lower):
        raise DataContractError(f"{metric} cannot be computed on these rows.")
    return Comparison(
        metric,
        now,
        then,
        lower,
        margin,
        level,
        advantages,
        rows.clusters,
        effective,
        rows.clustered_by,
    )


def planted_worse(score: Vector, *, share: float, seed: int) -> Vector:
    """Return scores of a model that is certainly worse: a share of the rows has its scores dealt out anew."""
    rng = np.random.default_rng(seed)
    chosen = np.nonzero(rng.random(len(score)) < share)[0]
    worse = score.copy()
    worse[chosen] = score[rng.permutation(chosen)]
    return worse
