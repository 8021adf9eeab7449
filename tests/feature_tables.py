"""Days of feature tables written directly, for tests of the feature store."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from small_model import small_fraud
from windsock import tables
from windsock.column_types import arrow_schema
from windsock.features.feature_tables import FeatureRecords, FeatureTable, feature_tables
from windsock.ledger import DayRecord
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store

SPENDING_SQL = """
select CUSTOMER_ID, TX_DATETIME as event_timestamp, count(*) over (partition by CUSTOMER_ID) as N_TX,
    TX_AMOUNT as LAST_AMOUNT from history
"""
ALL_SQL = """
select TX_DATETIME as event_timestamp, count(*) over () as N_ALL, TX_AMOUNT > 5 as BUSY, 'x' || TX_AMOUNT as WORD,
    TX_DATETIME as SEEN from history
"""

Row = Sequence[Any]


def two_views(folder: Path, *, ttl_days: int | None = 10, **overrides: Any) -> tuple[Settings, ModelSpec]:
    """Make a small model with one view per customer and one without an entity, of every type there is."""
    model = folder / "models" / "fraud"
    model.mkdir(parents=True, exist_ok=True)
    (model / "spending.sql").write_text(SPENDING_SQL)
    (model / "all.sql").write_text(ALL_SQL)
    spending = {"name": "spending", "entity": "customer", "sql": "spending.sql", "lookback_days": 3}
    everything = {"name": "everything", "sql": "all.sql", "lookback_days": 0}
    if ttl_days is not None:
        spending["ttl_days"] = everything["ttl_days"] = ttl_days
    row = {"TX_AMOUNT": "TX_AMOUNT", "TX_DURING_WEEKEND": "0", "TX_DURING_NIGHT": "0"}
    return small_fraud(folder, **{"features": {"row": row, "views": [spending, everything]}, **overrides})


def table_of(spec: ModelSpec, view: str) -> FeatureTable:
    """Return one view's table."""
    return next(t for t in feature_tables(spec) if t.view == view)


def feature_days(settings: Settings, spec: ModelSpec) -> FeatureRecords:
    """Return every day of each view's table, by the table's name."""
    return {table.name: table.ledger(Store.of(settings)).all() for table in feature_tables(spec)}


def rows_of(spec: ModelSpec, view: str, rows: Sequence[Row]) -> pa.Table:
    """Build rows of a view, given in the order of its columns."""
    schema = arrow_schema(table_of(spec, view).columns)
    columns = list(zip(*rows, strict=True)) if rows else [() for _ in schema]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)


def publish(
    settings: Settings, spec: ModelSpec, day: date, views: Mapping[str, Sequence[Row]], status: Any = "published"
) -> dict[str, DayRecord]:
    """Write a day's rows of some views and publish their records; a view that is not given has no rows.

    Returns:
        Table name to record.
    """
    store, published = Store.of(settings), dict[str, DayRecord]()
    for table in feature_tables(spec):
        ledger, rows = table.ledger(store), rows_of(spec, table.view, views.get(table.view, ()))
        output = tables.write_day(store, spec.name, table.name, day, rows, previous=ledger.get(day))
        published[table.name] = ledger.publish(DayRecord(day.isoformat(), status, {table.name: output}))
    return published


def at(day: int, hour: int = 12, minute: int = 0, second: int = 0, micro: int = 0) -> datetime:
    """Name a time in March 2026."""
    return datetime(2026, 3, day, hour, minute, second, micro)
