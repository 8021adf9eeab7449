"""Labels as they were known at a time, and the guards against learning from the future."""

from datetime import date, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from windsock.dataset.time_split import Windows
from windsock.days import spans, start_of
from windsock.errors import DataContractError, SpecError
from windsock.row_places import places_of
from windsock.served.metrics import KNOWN_POSITIVE, TIME
from windsock.spec import ModelSpec
from windsock.spec.columns import KNOWN_AT
from windsock.sql import open_duckdb, quoted

_LATE_SHARE = 0.1
"""Largest share of a window's labels that may have come after the gap, where they are files or may come late."""


def attach_labels(spec: ModelSpec, frame: pa.Table, labels: pa.Table, known_by: datetime) -> pa.Table:
    """Give rows the label that was in force at a time.

    Args:
        spec: The model.
        frame: Rows with the key and ``event_timestamp``, in any order.
        labels: Table ``labels`` (key, label, ``event_time``, ``known_at``); an event may stand there several times.
        known_by: Labels that became known later do not exist yet; of several, the latest counts.

    Returns:
        The rows that have a label, in their order, with the label column and ``known_at``.
    """
    return labelled(with_labels(spec, frame, labels, known_by))


def labelled(rows: pa.Table) -> pa.Table:
    """Return those of the rows of :func:`with_labels` that have a label."""
    return rows.filter(rows[KNOWN_AT].is_valid())


def with_labels(spec: ModelSpec, frame: pa.Table, labels: pa.Table, known_by: datetime) -> pa.Table:
    """Do the same as :func:`attach_labels`, but keep all rows: both columns are NULL where there is no label."""
    key, label = spec.events.key, spec.label.column
    known = labels.filter(pc.less_equal(labels[KNOWN_AT], pa.scalar(known_by, pa.timestamp("us"))))
    # The last of several is the one in force: Arrow finds first places, so the latest goes first.
    known = known.take(pc.sort_indices(known, sort_keys=[(KNOWN_AT, "descending"), (label, "descending")]))
    found = places_of([frame[key], frame[TIME]], [known[key], known["event_time"]])
    for column in (label, KNOWN_AT):
        frame = frame.append_column(column, known[column].take(found))
    return frame


def known_when_made(spec: ModelSpec, rows: pa.Table, windows: Windows) -> tuple[pa.Table, int]:
    """Keep the training rows whose label was known when the model would have been made: it knew no others.

    ``rows`` hold the ``known_at`` of each row's first label.

    Returns:
        The rows kept, and how many were left out because their label came too late.

    Raises:
        SpecError: The gap is shorter than the label delay, and labels did come too late.
        DataContractError: Labels came later than their delay says, too many to leave out.
    """
    in_time = pc.less_equal(rows[KNOWN_AT], pa.scalar(windows.made_at, pa.timestamp("us")))
    late = rows.num_rows - (pc.sum(in_time).as_py() or 0)
    if late == 0:
        return rows, 0
    after = rows.filter(pc.invert(in_time))
    days = spans(t.date() for t in pc.unique(pc.floor_temporal(after[TIME], unit="day")).to_pylist())
    latest = pc.max(after[KNOWN_AT]).as_py()
    facts = (
        f"{late} of {rows.num_rows} labels of the training days {spans(windows.train)} became known only after the "
        f"holdout had begun on {windows.holdout[0]} (events of {days}; the latest on {latest:%Y-%m-%d %H:%M})"
    )
    if spec.gap_days < spec.label.delay_days:
        raise SpecError(
            f"{spec.name}: training.gap_days is {spec.gap_days}, but labels take {spec.label.delay_days} days: "
            f"{facts}. "
            "A model made on that day could not have learnt from them, so its score would be too good. "
            f"Remove training.gap_days (the gap is then the delay), or make it at least {spec.label.delay_days}."
        )
    if (spec.label.files is None and not spec.events.late_days) or late > _LATE_SHARE * rows.num_rows:
        raise DataContractError(
            f"{spec.name}: labels are said to take {spec.label.delay_days} days, but {facts}. "
            "Set label.delay_days (or training.gap_days) to what labels really take."
        )
    return rows.filter(in_time), late


def mark_known_positives(spec: ModelSpec, rows: pa.Table, history: pa.Table, since: date) -> pa.Table:
    """Add the column ``known_positive``: whether a positive label of the row's entity was known before its day began.

    A card that is known to be defrauded is blocked: a model that finds it again has found nothing. A label counts as
    known ``label.delay_days`` whole days after its event at the earliest.

    Args:
        spec: The model; its evaluation excludes known positives.
        rows: Rows with ``event_timestamp`` and the entity column.
        history: Labelled rows with these and ``known_at``.
        since: Positives of earlier days are not looked at.
    """
    entity, label = spec.training.evaluation.exclude_known_positives, spec.label.column
    assert entity is not None
    with open_duckdb(threads=1) as db:
        db.register("frame", rows.select([TIME, entity]).append_column("n", [np.arange(rows.num_rows)]))
        db.register("history", history.select([TIME, entity, label, KNOWN_AT]))
        found = db.execute(
            f"""
            with known as (
                select {quoted(entity)} as entity,
                       min(greatest(cast(event_timestamp as date) + {spec.label.delay_days + 1},
                                    cast(known_at - interval 1 microsecond as date) + 1)) as from_day
                from history where {quoted(label)} = 1 and event_timestamp >= ? and {quoted(entity)} is not null
                group by 1
            )
            select n from frame join known on frame.{quoted(entity)} = known.entity
            where cast(frame.event_timestamp as date) >= from_day
            """,
            [start_of(since)],
        ).fetchnumpy()
    marked = np.zeros(rows.num_rows, dtype=bool)
    marked[np.asarray(found["n"], dtype=np.int64)] = True
    return rows.append_column(KNOWN_POSITIVE, [marked])
