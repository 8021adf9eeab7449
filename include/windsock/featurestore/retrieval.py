"""Features as they were known at each row's time: for scoring directly, for training through Feast.

Both ways end in the same join (``asof``) over the same files, so a model is scored on
what it was trained on.
"""

from collections.abc import Mapping
from datetime import date

import pyarrow as pa

from windsock.errors import DataContractError
from windsock.features.view_sql import TIMESTAMP
from windsock.featurestore.asof import History, join_point_in_time, time_range, utc_micros
from windsock.featurestore.feature_tables import STAGE, FeatureTable, days_within, feature_tables
from windsock.featurestore.pins import pinned
from windsock.ledger import DayRecord, Ledger
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store


def point_in_time(store: Store, spec: ModelSpec, frame: pa.Table, records: Mapping[date, DayRecord]) -> pa.Table:
    """Add all view features of a model to rows, as they were known at each row's time.

    Args:
        store: Where tables live.
        spec: The model.
        frame: Rows with ``event_timestamp`` and the entity columns; any order, duplicates allowed.
        records: Day to record of ledger stage ``features``; only the days that matter are read.

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
    histories = [_history(store, table, times, records) for table in feature_tables(spec)]
    return join_point_in_time(frame, times, histories)


def training_frame(settings: Settings, spec: ModelSpec, frame: pa.Table, pins: Mapping[str, str]) -> pa.Table:
    """Do the same as :func:`point_in_time` through Feast's own API, from pinned days.

    The registry must hold the model (see ``definitions.apply``); ``pins`` are ``Ledger.pins`` of stage ``features``.

    Raises:
        DataContractError: Feast gave other rows than it was given, or lacks a column.
        SpecError: A pinned day is gone from the store, or the registry does not know the model.
    """
    from windsock.featurestore.definitions import apply
    from windsock.featurestore.repo import feature_store

    if not spec.features.views:
        return frame
    apply(settings, remove_gone=False)
    records = Ledger.of(settings, spec.name, STAGE).pinned(pins)
    tables = feature_tables(spec)
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


def _history(store: Store, table: FeatureTable, times: pa.ChunkedArray, records: Mapping[date, DayRecord]) -> History:
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
