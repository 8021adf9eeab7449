"""Rows of earlier days in a day's delivery: kept by the day of delivery, as labels of files are (ADR 0019).

Such a row joins its own day for whoever reads a range of days that holds both. So a reader of days up to X sees what
had been delivered by X, no record but that of the delivery changes, and nobody waits for rows that may still come.
"""

from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from windsock.days import start_of
from windsock.ingest.labels import inline_labels
from windsock.ledger import LATE
from windsock.spec import ModelSpec


def is_late(spec: ModelSpec, day: date, rows: pa.Table) -> np.ndarray:
    """Return which rows of a delivery are of an earlier day that it may hold, shape ``(rows,)``, boolean."""
    time = rows.column(spec.events.time).to_numpy()
    first, start = (np.datetime64(start_of(d), "us") for d in (spec.oldest_day_in(day), day))
    late: np.ndarray = (time >= first) & (time < start)  # of no time at all, neither holds
    return late


def late_tables(spec: ModelSpec, day: date, rows: pa.Table, events: pa.Table) -> dict[str, pa.Table]:
    """Return the tables of what came late with a day's delivery; none if nothing did.

    Args:
        spec: The model.
        day: The day of delivery: nothing of it was known before, whatever time it claims.
        rows: The late rows, in the declared form.
        events: The same as table ``events``, the last column saying when each became known.
    """
    if not rows.num_rows:
        return {}
    last = events.num_columns - 1
    known_at = pc.max_element_wise(events.column(last), pa.scalar(start_of(day), pa.timestamp("us")))
    found = {f"{LATE}events": events.set_column(last, events.schema.field(last), known_at)}
    if spec.label.files is None:
        labels, labelled = inline_labels(spec, rows), pc.is_valid(rows.column(spec.label.column))
        last = labels.num_columns - 1
        found[f"{LATE}labels"] = labels.set_column(last, labels.schema.field(last), known_at.filter(labelled))
    return found


def late_by_day(spec: ModelSpec, rows: pa.Table) -> dict[str, int]:
    """Return how many late rows each earlier day got."""
    days, counts = np.unique(rows.column(spec.events.time).to_numpy().astype("datetime64[D]"), return_counts=True)
    return dict(zip(days.astype(str).tolist(), counts.tolist(), strict=True))


def none_of_its_day(spec: ModelSpec, day: date, late: pa.Table) -> str:
    """Say that a delivery is that of another day: all its rows are late."""
    days = late_by_day(spec, late)
    return (
        f"{spec.events.time}: none of {late.num_rows:,} rows is of {day}, they are of {', '.join(days)} (rule 'a day's "
        f"delivery holds rows of its day', events.late_days: {spec.events.late_days}), e.g. {spec.events.key} "
        f"{late.column(spec.events.key)[0].as_py()!r}. Is this the file of another day?"
    )
