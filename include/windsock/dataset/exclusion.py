"""Which entities were already known to be positive when an event happened.

A card that is known to be defrauded is blocked: a model that finds it again has found
nothing. Known means that the label had arrived before the event's day began.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from windsock.days import start_of

if TYPE_CHECKING:
    import pyarrow as pa


def known_positive(
    frame: pa.Table, history: pa.Table, *, entity: str, label: str, since: date, delay_days: int
) -> npt.NDArray[np.bool_]:
    """Mark the rows whose entity had a positive label that was known before the row's day.

    Args:
        frame: Rows to mark, with ``event_timestamp`` and the entity column.
        history: Labelled rows with ``event_timestamp``, the entity column, the label and
            ``known_at``.
        entity: Entity column.
        label: Label column, 0 or 1.
        since: Positives of earlier days are not looked at.
        delay_days: Days from an event until its label counts as known, whole days at least.

    Returns:
        Shape ``(rows of frame,)``.
    """
    import duckdb

    with duckdb.connect() as db:
        db.execute("set threads = 1")
        db.register("frame", frame.select(["event_timestamp", entity]).append_column("n", [np.arange(frame.num_rows)]))
        db.register("history", history.select(["event_timestamp", entity, label, "known_at"]))
        rows = db.execute(
            f"""
            with known as (
                select {entity} as entity,
                       min(greatest(cast(event_timestamp as date) + {int(delay_days) + 1},
                                    cast(known_at - interval 1 microsecond as date) + 1)) as from_day
                from history where {label} = 1 and event_timestamp >= ? and {entity} is not null group by 1
            )
            select n from frame join known on frame.{entity} = known.entity
            where cast(frame.event_timestamp as date) >= from_day
            """,
            [start_of(since)],
        ).fetchnumpy()
    marked = np.zeros(frame.num_rows, dtype=bool)
    marked[np.asarray(rows["n"], dtype=np.int64)] = True
    return marked
