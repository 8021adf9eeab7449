"""Features as they were known at each row's time: for scoring directly, for training through Feast.

Both ways end in the same join over the same files, so a model is scored on what it was trained
on. DuckDB's ASOF join does it in one pass over both sides, sorted. Every row comes out once and
in its place: duplicates, unknown keys and rows without a match keep their line and get NULL.
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
from windsock.features.feature_tables import FeatureRecords, FeatureTable, Records, days_within, feature_tables, pinned
from windsock.features.view_sql import TIMESTAMP
from windsock.ledger import Ledger
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.sql import open_duckdb, quoted
from windsock.store import Store

MEMORY_LIMIT = "1500MB"
_MICROSECOND = timedelta(microseconds=1)


def point_in_time(store: Store, spec: ModelSpec, frame: pa.Table, records: FeatureRecords) -> pa.Table:
    """Add all view features of a model to rows, as they were known at each row's time.

    The frame has ``event_timestamp`` and the entity columns, in any order, duplicates allowed. Of the records, by
    table, only the days that matter are read.

    Returns:
        The frame, row for row, with the features of every view behind its columns, in spec order;
        NULL where nothing was known or the view's ttl had passed.

    Raises:
        DataContractError: The frame lacks ``event_timestamp`` or an entity column.
    """
    if TIMESTAMP not in frame.column_names:
        raise DataContractError(
            f"{spec.name}: the rows to join have no column {TIMESTAMP}. They have: {', '.join(frame.column_names)}."
        )
    times = utc_micros(frame[TIMESTAMP])
    histories = [_history(store, table, times, records.get(table.name, {})) for table in feature_tables(spec)]
    return join_point_in_time(frame, times, histories)


def training_frame(
    settings: Settings, spec: ModelSpec, frame: pa.Table, pins: Mapping[str, Mapping[str, str]]
) -> pa.Table:
    """Do the same as :func:`point_in_time` through Feast's own API, from pinned days: table to ``Ledger.pins``.

    Raises:
        DataContractError: Feast gave other rows than it was given, or lacks a column.
        SpecError: A pinned day is gone from the store, or the registry does not know the model.
    """
    from windsock.featurestore.definitions import apply
    from windsock.featurestore.repo import feature_store

    if not spec.features.views:
        return frame
    apply(settings, remove_gone=False)
    tables = feature_tables(spec)
    records = {t.name: Ledger.of(settings, spec.name, t.name).pinned(pins.get(t.name, {})) for t in tables}
    references = [f"{table.feast_name}:{feature}" for table in tables for feature in table.features]
    with pinned(spec.name, records):
        # Feast hands an Arrow table through to the offline store as it is; pandas would cost copies and types.
        job = feature_store(settings).get_historical_features(entity_df=frame, features=references)
        result = job.to_arrow()
    if result.num_rows != frame.num_rows:
        raise DataContractError(
            f"{spec.name}: the training set has {result.num_rows} rows, but {frame.num_rows} were asked for. "
            "The offline store in feature_store.yaml drops or repeats rows: use "
            "windsock.featurestore.offline.WindsockOfflineStore."
        )
    return result.select([*frame.column_names, *(feature for table in tables for feature in table.features)])


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


def _history(store: Store, table: FeatureTable, times: pa.ChunkedArray, records: Records) -> History:
    span, rows = time_range(times), None
    if span is not None:
        first = span[0] - table.ttl if table.ttl is not None else None
        rows = table.open(store, days_within(records, first, span[1]).values())
    return History(
        name=f"{table.model}: view {table.view!r}",
        rows=rows,
        timestamp=TIMESTAMP,
        keys={table.entity: table.entity} if table.entity is not None else {},
        features={feature: feature for feature in table.features},
        schema=table.schema,
        ttl=table.ttl,
    )


def utc_micros(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return times as ``timestamp[us]`` in UTC without a zone; a time without a zone is read as UTC.

    Finer units are cut down to the microsecond before, so that a feature never counts as known before its time.
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

    NULL where the key or time is NULL or unknown, nothing was known yet, or the value had passed its ttl.

    Raises:
        DataContractError: The frame lacks a key column, or has a column of a feature's name.
    """
    result = frame
    threads = min(os.cpu_count() or 1, 4)
    with open_duckdb(threads=threads, memory_limit=MEMORY_LIMIT, ordered=False) as connection:
        for history in histories:
            _check_columns(result, history)
            schema = pa.schema([(new, history.schema.field(old).type) for old, new in history.features.items()])
            if history.rows is None or frame.num_rows == 0:
                found = pa.table([pa.nulls(frame.num_rows, field.type) for field in schema], schema=schema)
            else:
                found = _join_one(connection, frame, times, history).cast(schema)
            for name in found.column_names:
                result = result.append_column(name, found[name])
    return result


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
    columns: dict[str, pa.Array | pa.ChunkedArray] = {"line": pa.array(np.arange(frame.num_rows)), "at": times}
    conditions, not_null = ["e.at >= h.known"], [f"{quoted(history.timestamp)} is not null"]
    for number, (key, column) in enumerate(history.keys.items()):
        columns[f"k{number}"] = frame[column]
        conditions.append(f"e.k{number} = h.{quoted(key)}")
        not_null.append(f"{quoted(key)} is not null")
    # ASOF gives the latest row; if that one is too old, every other is too, so the ttl can be judged afterwards.
    alive = f"epoch_us(e.at) - epoch_us(h.known) <= {history.ttl // _MICROSECOND}" if history.ttl else "true"
    picked = (f"case when {alive} then h.{quoted(old)} end as {quoted(new)}" for old, new in history.features.items())
    kept = ", ".join(quoted(c) for c in (*history.keys, *history.features))
    connection.register("entity_rows", pa.table(columns))
    connection.register("feature_rows", history.rows)
    found = connection.sql(
        f"select e.line, {', '.join(picked)} from entity_rows e asof left join "
        f"(select {kept}, {quoted(history.timestamp)}::timestamp as known from feature_rows "
        f"where {' and '.join(not_null)}) h on {' and '.join(conditions)}"
    ).to_arrow_table()
    return found.combine_chunks().sort_by("line").drop_columns(["line"])
