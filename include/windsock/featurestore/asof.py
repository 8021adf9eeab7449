"""The point-in-time join: for each row, the last feature values known at its time.

DuckDB's ASOF join does it in one pass over both sides, sorted. Every row of the frame
comes out once and in its place: duplicates, unknown keys and rows without a match keep
their line and get NULL. Columns that are not needed for the join never enter it.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from windsock.errors import DataContractError
from windsock.sql import open_duckdb, quoted

MEMORY_LIMIT = "1500MB"
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class History:
    """One view's feature rows, ready to be joined."""

    name: str
    """What messages call it."""
    rows: pa.Table | ds.Dataset | None
    """Arrow table or dataset with distinct (keys, time), times in UTC; None: there are no rows."""
    timestamp: str
    """Column of the feature's time."""
    keys: Mapping[str, str]
    """Key column to the frame's column it is compared with; empty for a view without an entity."""
    features: Mapping[str, str]
    """Feature column to its name in the result."""
    schema: pa.Schema
    """Types of the feature columns."""
    ttl: timedelta | None
    """Largest age, itself included; None: any."""


def utc_micros(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return times as ``timestamp[us]`` in UTC without a zone; a time without a zone is read as UTC.

    Finer units are cut down to the microsecond before, so that a feature never counts as
    known before its time.
    """
    kind = column.type
    if pa.types.is_date(kind):
        return column.cast(pa.timestamp("us"))
    if not pa.types.is_timestamp(kind):
        raise DataContractError(
            f"The event time is of type {kind}, not a timestamp. Convert the column to a timestamp (UTC) first."
        )
    if kind.unit == "ns":
        # Arrow casts towards zero; floor keeps times before 1970 on the safe side too.
        column = pc.floor_temporal(column.cast(pa.timestamp("ns")), unit="microsecond")
    return column.cast(pa.timestamp("us", tz=kind.tz), safe=False).cast(pa.timestamp("us"))


def time_range(times: pa.ChunkedArray) -> tuple[datetime, datetime] | None:
    """Return the first and the last time, or None if there is none."""
    bounds = pc.min_max(times).as_py()
    return (bounds["min"], bounds["max"]) if bounds["min"] is not None else None


def join_point_in_time(frame: pa.Table, times: pa.ChunkedArray, histories: Sequence[History]) -> pa.Table:
    """Add every history's features to the frame, as they were known at each row's time (see :func:`utc_micros`).

    Returns:
        The frame, row for row, with the feature columns behind its own. NULL where the key or
        time is NULL or unknown, nothing was known yet, or the value had passed its ttl.

    Raises:
        DataContractError: The frame lacks a key column, or has a column of a feature's name.
    """
    result = frame
    threads = min(os.cpu_count() or 1, 4)
    with open_duckdb(threads=threads, memory_limit=MEMORY_LIMIT, ordered=False) as connection:
        for history in histories:
            _check_columns(result, history)
            if history.rows is None or frame.num_rows == 0:
                found = pa.table(
                    {new: pa.nulls(frame.num_rows, history.schema.field(old).type) for old, new in _named(history)}
                )
            else:
                found = _join_one(connection, frame, times, history)
            for name in found.column_names:
                result = result.append_column(name, found[name])
    return result


def _named(history: History) -> list[tuple[str, str]]:
    return list(history.features.items())


def _check_columns(frame: pa.Table, history: History) -> None:
    missing = [column for column in history.keys.values() if column not in frame.column_names]
    if missing:
        raise DataContractError(
            f"{history.name}: the rows to join have no column {', '.join(missing)}. "
            f"They have: {', '.join(frame.column_names)}."
        )
    twice = [new for new in history.features.values() if new in frame.column_names]
    if twice:
        raise DataContractError(
            f"{history.name}: the rows already have a column {', '.join(twice)}. "
            "Rename it, or ask for full feature names."
        )


def _join_one(
    connection: duckdb.DuckDBPyConnection, frame: pa.Table, times: pa.ChunkedArray, history: History
) -> pa.Table:
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        "line": pa.array(np.arange(frame.num_rows, dtype=np.int64)),
        "at": times,
    }
    conditions, not_null = [], [f"{quoted(history.timestamp)} is not null"]
    for number, (key, column) in enumerate(history.keys.items()):
        columns[f"k{number}"] = frame[column]
        conditions.append(f"e.k{number} = h.{quoted(key)}")
        not_null.append(f"{quoted(key)} is not null")
    conditions.append("e.at >= h.known")
    # ASOF gives the latest row; if that one is too old, every other is too, so the ttl can be judged afterwards.
    alive = f"epoch_us(e.at) - epoch_us(h.known) <= {history.ttl // _MICROSECOND}" if history.ttl else "true"
    picked = ", ".join(f"case when {alive} then h.{quoted(old)} end as {quoted(new)}" for old, new in _named(history))
    kept = ", ".join(quoted(c) for c in (*history.keys, *history.features))
    connection.register("entity_rows", pa.table(columns))
    connection.register("feature_rows", history.rows)
    try:
        found = connection.sql(
            f"select e.line, {picked} from entity_rows e asof left join "
            f"(select {kept}, {quoted(history.timestamp)}::timestamp as known from feature_rows "
            f"where {' and '.join(not_null)}) h on {' and '.join(conditions)}"
        ).to_arrow_table()
    finally:
        connection.unregister("entity_rows")
        connection.unregister("feature_rows")
    place = np.empty(frame.num_rows, dtype=np.int64)
    place[found["line"].to_numpy()] = np.arange(frame.num_rows)
    schema = pa.schema([(new, history.schema.field(old).type) for old, new in _named(history)])
    return found.drop_columns(["line"]).combine_chunks().take(pa.array(place)).cast(schema)
