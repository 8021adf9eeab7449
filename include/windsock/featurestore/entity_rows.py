"""The rows that features are asked for: a frame, SQL over a model's events, or a time range."""

from datetime import datetime

import duckdb
import pandas as pd
import pyarrow as pa
from feast import FeatureView, RepoConfig

from windsock import tables
from windsock.errors import DataContractError, SpecError
from windsock.features.view_sql import TIMESTAMP
from windsock.featurestore.asof import MEMORY_LIMIT
from windsock.featurestore.cells import NO_ENTITY_COLUMN
from windsock.featurestore.reading import pull, source_of, store_of
from windsock.featurestore.source import WindsockSource
from windsock.ledger import Ledger
from windsock.sql import open_duckdb


def entity_rows(config: RepoConfig, views: list[FeatureView], given: pd.DataFrame | pa.Table | str) -> pa.Table:
    """Return entity rows as Arrow, all columns and rows as given, times parsed.

    Raises:
        SpecError: They are of another kind, or the SQL fails.
    """
    if isinstance(given, str):
        frame = _from_sql(config, views, given)
    elif isinstance(given, pa.Table):
        frame = given
    elif isinstance(given, pd.DataFrame):
        frame = pa.Table.from_pandas(given, preserve_index=False).replace_schema_metadata(None)
    else:
        raise SpecError(f"entity_df is a {type(given).__name__}: give a pandas frame, an Arrow table or SQL.")
    if TIMESTAMP in frame.column_names and pa.types.is_string(frame.schema.field(TIMESTAMP).type):
        parsed = pd.to_datetime(frame[TIMESTAMP].to_pandas(), utc=True)
        frame = frame.set_column(frame.column_names.index(TIMESTAMP), TIMESTAMP, pa.array(parsed))
    return frame


def time_column(frame: pa.Table) -> str:
    """Return the column of the rows' time: ``event_timestamp``, or the only timestamp there is.

    Raises:
        DataContractError: There is none, or more than one.
    """
    if TIMESTAMP in frame.column_names:
        return TIMESTAMP
    times = [f.name for f in frame.schema if pa.types.is_timestamp(f.type)]
    if len(times) != 1:
        raise DataContractError(
            f"The entity rows have no column {TIMESTAMP} and {len(times)} timestamps ({', '.join(times) or 'none'}). "
            f"Name the rows' time {TIMESTAMP}."
        )
    return str(times[0])


def entity_rows_between(
    config: RepoConfig, views: list[FeatureView], start: datetime | None, end: datetime | None
) -> pa.Table:
    """List every distinct entity and time that any of the views has a row for in ``[start, end]``."""
    keys = []
    for view in views:
        columns = [c.name for c in view.entity_columns if c.name != NO_ENTITY_COLUMN]
        source = source_of(view)
        rows = pull(config, source, columns, source.timestamp_field, start, end)
        keys.append(rows.select([*columns, source.timestamp_field]).rename_columns([*columns, TIMESTAMP]))
    frame = pa.concat_tables(keys, promote_options="default")
    order = [(TIMESTAMP, "ascending"), *((c, "ascending") for c in frame.column_names if c != TIMESTAMP)]
    return frame.group_by(frame.column_names).aggregate([]).sort_by(order)


def _from_sql(config: RepoConfig, views: list[FeatureView], query: str) -> pa.Table:
    """Run SQL over ``events`` and ``labels`` of the views' model, as they are published now."""
    models = sorted({v.batch_source.model for v in views if isinstance(v.batch_source, WindsockSource)})
    if len(models) != 1:
        raise SpecError(
            f"SQL as entity_df reads the events of one model, but the features asked for are of "
            f"{', '.join(models) or 'none'}. Ask per model, or give a frame."
        )
    store = store_of(config)
    with open_duckdb(memory_limit=MEMORY_LIMIT) as connection:
        for table, stages in (("events", ["ingest"]), ("labels", ["ingest", "labels"])):
            records = [r for stage in stages for r in Ledger(store, models[0], stage).all().values()]
            rows = tables.open_dataset(store, records, table)
            if rows is not None:
                connection.register(table, rows)
        try:
            return connection.sql(query).to_arrow_table()
        except duckdb.Error as err:
            text = " ".join(str(err).split())
            raise SpecError(f"entity_df: the SQL over events and labels of {models[0]} does not run: {text}") from err
