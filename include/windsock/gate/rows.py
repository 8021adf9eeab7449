"""The frozen rows that a challenger is judged on, and the clusters they fall into.

A cluster is what the bootstrap resamples: the entity that alerts are counted by, else
the first entity, else blocks of time (whole days if there are enough of them).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from windsock.gate.weighted import JudgedRows
from windsock.spec import ModelSpec

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

ENOUGH_DAYS = 20
"""From so many days on, a day is the cluster where there is no entity; below, six hours are."""

_DAY_US = 86_400_000_000
_BLOCK_US = _DAY_US // 4


def judged_rows(spec: ModelSpec, holdout: pa.Table) -> tuple[JudgedRows, NDArray[np.bool_]]:
    """Return the rows that count, by the model's evaluation protocol, and which of the holdout's rows they are.

    Args:
        spec: The model.
        holdout: Frozen rows: ``event_timestamp``, entities, features, label, perhaps ``known_positive``.

    Returns:
        The judged rows and a mask of shape ``(rows of the holdout,)``.
    """
    import numpy as np
    import pyarrow as pa

    from windsock.served import metrics

    counted = metrics.counted_rows(spec, holdout)
    kept = holdout.filter(pa.array(counted))
    time = kept.column(metrics.TIME).cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
    day = time // _DAY_US
    everyone = np.arange(kept.num_rows)
    alert_entity = spec.training.evaluation.alert_entity
    entity = _codes(kept, alert_entity) if alert_entity is not None else everyone
    unit = alert_entity or next((c for c in spec.entities.values() if c in kept.column_names), None)
    if unit is not None:
        cluster, by = _codes(kept, unit), unit
    elif len(np.unique(day)) >= ENOUGH_DAYS:
        cluster, by = _dense(day), "day"
    else:
        cluster, by = _dense(time // _BLOCK_US), "block of six hours"
    label = kept.column(spec.label.column).to_numpy().astype(np.float64)
    return JudgedRows(label, _dense(day), entity, cluster, by), counted


def _codes(frame: pa.Table, column: str) -> Any:
    """Number a column's values, 0-based and dense; missing ones count as one value."""
    return frame.column(column).combine_chunks().dictionary_encode(null_encoding="encode").indices.to_numpy()


def _dense(values: Any) -> Any:
    import numpy as np

    return np.unique(values, return_inverse=True)[1]
