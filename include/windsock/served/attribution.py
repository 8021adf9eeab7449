"""What each input does to a model's scores, as shares of the whole: the monitor weighs drifted inputs by them.

Trees of LightGBM say it exactly (SHAP values, Lundberg and others 2020: mean absolute contribution to the raw score).
Of any other model it is how far scores move, on average, when one input's values are dealt out anew among the rows.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from windsock.served.matrix import to_matrix
from windsock.served.model import Floats, Model, scored, threads

_ROWS = 2000
_PERMUTED_ROWS = 500
_DIGITS = 6


def attribution(model: Model, rows: pa.Table, rng: np.random.Generator) -> dict[str, Any]:
    """Measure what each of a model's inputs does to its scores.

    Returns:
        ``by`` (``shap`` or ``permutation``) and ``shares``: feature to share, which add up to 1; all 0 for a model that
        gives every row the same score.
    """
    by_trees = hasattr(model.engine, "num_trees")
    drawn = np.sort(rng.permutation(rows.num_rows)[: _ROWS if by_trees else _PERMUTED_ROWS])
    x = to_matrix(rows.take(pa.array(drawn)), model.features)
    if by_trees:
        effect = np.abs(model.engine.predict(x, pred_contrib=True, num_threads=threads())[:, :-1]).mean(axis=0)
    else:
        effect = _permuted(model, x, rng)
    total = effect.sum()
    shares = effect / total if total > 0 else effect
    named = {name: round(float(share), _DIGITS) for name, share in zip(model.feature_names, shares, strict=True)}
    return {"by": "shap" if by_trees else "permutation", "shares": named}


def _permuted(model: Model, x: Floats, rng: np.random.Generator) -> Floats:
    before, order = scored(model.scorer, x), rng.permutation(len(x))
    effect = np.zeros(x.shape[1])
    for column in range(x.shape[1]):
        changed = x.copy()
        changed[:, column] = x[order, column]
        effect[column] = np.abs(scored(model.scorer, changed) - before).mean()
    return effect
