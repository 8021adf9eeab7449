"""Resampling rows for a bootstrap: by clusters that share their luck, with exponential weights.

Rows are the wrong unit to resample: all rows of one entity (a customer's transactions are
fraudulent together) rise and fall together. A cluster is the entity that alerts are counted
by, else the first entity, else a block of time (whole days if there are enough of them).
Weights are exponential (Rubin, "The Bayesian Bootstrap", Annals of Statistics 1981) rather
than counts, so that no resample loses all of its few positives. ADR 0007 has the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from windsock.served import metrics
from windsock.spec import ModelSpec

if TYPE_CHECKING:
    import pyarrow as pa

ENOUGH_DAYS = 20
"""From so many days on, a day is the cluster where there is no entity; below, six hours are."""

_DAY_US = 86_400_000_000
_BLOCK_US = _DAY_US // 4
_CHUNK_CELLS = 4_000_000
"""Weights held at once: about 100 MB with what is made of them."""


@dataclass(frozen=True)
class ClusteredRows:
    """Labelled rows that count by the evaluation protocol, and the clusters they fall into."""

    label: NDArray[np.float64]
    """Shape ``(rows,)``; 0 or 1 for binary tasks."""
    day: NDArray[np.intp]
    """Day number of each row, shape ``(rows,)``."""
    entity: NDArray[np.intp]
    """What alerts are counted by, as numbers, shape ``(rows,)``; each row its own where there is no entity."""
    cluster: NDArray[np.intp]
    """Resampled unit of each row, 0-based and dense, shape ``(rows,)``."""
    clustered_by: str
    """What the units are, in words."""

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.label)

    @property
    def clusters(self) -> int:
        """How many resampled units there are."""
        return int(self.cluster.max()) + 1 if self.rows else 0

    @property
    def positives(self) -> int:
        """Rows with a label above zero."""
        return int((self.label > 0).sum())

    def weightings(self, resamples: int, rng: np.random.Generator) -> Iterator[NDArray[np.float32]]:
        """Draw weights of the rows, in chunks of shape ``(some resamples, rows)``; a cluster's rows weigh the same."""
        step = max(1, min(resamples, _CHUNK_CELLS // max(1, self.rows)))
        for start in range(0, resamples, step):
            drawn = rng.standard_exponential((min(step, resamples - start), self.clusters), dtype=np.float32)
            yield np.take(drawn, self.cluster, axis=1)


def clustered_rows(spec: ModelSpec, frame: pa.Table) -> tuple[ClusteredRows, NDArray[np.bool_]]:
    """Return the rows that count, and which of the frame's rows they are.

    Args:
        spec: The model.
        frame: ``event_timestamp``, entities, label, perhaps ``known_positive``.

    Returns:
        The rows and a mask of shape ``(rows of the frame,)``.
    """
    import pyarrow as pa

    counted = metrics.counted_rows(spec, frame)
    kept = frame.filter(pa.array(counted))
    time = kept.column(metrics.TIME).cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
    day = time // _DAY_US
    alert_entity = spec.training.evaluation.alert_entity
    entity = _codes(kept, alert_entity) if alert_entity is not None else np.arange(kept.num_rows)
    unit = alert_entity or next((c for c in spec.entities.values() if c in kept.column_names), None)
    if unit is not None:
        cluster, by = _codes(kept, unit), unit
    elif len(np.unique(day)) >= ENOUGH_DAYS:
        cluster, by = _dense(day), "day"
    else:
        cluster, by = _dense(time // _BLOCK_US), "block of six hours"
    label = kept.column(spec.label.column).to_numpy().astype(np.float64)
    return ClusteredRows(label, _dense(day), entity, cluster, by), counted


def _codes(frame: pa.Table, column: str) -> Any:
    """Number a column's values, 0-based and dense; missing ones count as one value."""
    return frame.column(column).combine_chunks().dictionary_encode(null_encoding="encode").indices.to_numpy()


def _dense(values: Any) -> Any:
    return np.unique(values, return_inverse=True)[1]
