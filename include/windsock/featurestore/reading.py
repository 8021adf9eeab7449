"""What Feast's historical calls read: a source's rows, and the rows that features are asked for.

Windsock's tables are read by ledger record, Parquet files as they are.
"""

from datetime import UTC, datetime

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from feast import FeatureView, FileSource, RepoConfig
from feast.data_source import DataSource
from feast.feature_view import DUMMY_ENTITY_ID

from windsock import tables
from windsock.column_types import arrow_schema
from windsock.errors import DataContractError, SpecError
from windsock.faults import file_system
from windsock.features.feature_tables import days_of_table, latest_rows
from windsock.features.view_sql import TIMESTAMP
from windsock.featurestore.retrieval import MEMORY_LIMIT, utc_micros
from windsock.featurestore.source import WindsockSource
from windsock.ledger import Ledger
from windsock.settings import Settings
from windsock.sql import open_duckdb
from windsock.store import Store

_US = pa.timestamp("us")


def open_source(config: RepoConfig, source: DataSource, first: datetime | None, last: datetime | None) -> ds.Dataset:
    """Open a source's rows that may matter for ``[first, last]`` (UTC, without zone; None: no bound).

    Raises:
        SpecError: The source is of a kind that this store cannot read.
    """
    if isinstance(source, WindsockSource):
        store, schema = _store_of(config), arrow_schema(source.columns)
        records = days_of_table(store, source.model, source.table, first, last)
        rows = tables.open_dataset(store, records.values(), source.table, schema)
        return rows if rows is not None else ds.dataset(schema.empty_table())
    if isinstance(source, FileSource):
        uri = FileSource.get_uri_for_file_path(config.repo_path, source.path)
        fs, path = file_system(uri)
        paths = fs.glob(path) if "*" in path else path
        return ds.dataset(paths, format="parquet", filesystem=fs)
    raise SpecError(
        f"Source {source.name!r} is a {type(source).__name__}, which Windsock's offline store cannot read. "
        "Use a WindsockSource or a FileSource, or choose another offline_store in feature_store.yaml."
    )


def source_of(view: FeatureView) -> DataSource:
    """Return where a view's history lies.

    Raises:
        SpecError: It has none.
    """
    if view.batch_source is None:
        raise SpecError(f"Feature view {view.name!r} has no batch source, so there is no history to read.")
    return view.batch_source


def pull(
    config: RepoConfig,
    data_source: DataSource,
    join_key_columns: list[str],
    feature_name_columns: list[str],
    timestamp_field: str,
    created_timestamp_column: str | None = None,
    start_date: datetime | None = None,
    end_date: datetime | None = None,
    *,
    latest: bool = False,
) -> pa.Table:
    """Read a source's rows from ``start_date`` to ``end_date``, both included, in order of time; named as in Feast.

    ``latest`` keeps the last row of each key. Without keys there is Feast's column for views without an entity.
    """
    first, last = (
        t if t is None or t.tzinfo is None else t.astimezone(UTC).replace(tzinfo=None) for t in (start_date, end_date)
    )
    names = list(dict.fromkeys([*join_key_columns, *feature_name_columns, timestamp_field]))
    rows = open_source(config, data_source, first, last).to_table(columns=names)
    times = utc_micros(rows[timestamp_field])
    utc = times.cast(pa.timestamp("us", tz="UTC"))
    rows = rows.set_column(names.index(timestamp_field), timestamp_field, utc)
    after = pc.greater_equal(times, pa.scalar(first or datetime.min, _US))
    before = pc.less_equal(times, pa.scalar(last or datetime.max, _US))
    rows = rows.filter(pc.and_(after, before)).sort_by(timestamp_field)
    if latest:
        rows = latest_rows(rows, join_key_columns)
    if not join_key_columns:
        rows = rows.append_column(DUMMY_ENTITY_ID, pa.array([""] * rows.num_rows, pa.string()))
    return rows


def entity_rows(config: RepoConfig, views: list[FeatureView], given: pd.DataFrame | pa.Table | str) -> pa.Table:
    """Return entity rows as Arrow, all columns and rows as given, times parsed.

    Raises:
        SpecError: They are of another kind, or the SQL fails.
    """
    if isinstance(given, str):
        frame = _rows_from_sql(config, views, given)
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
    found = []
    for view in views:
        keys = [c.name for c in view.entity_columns if c.name != DUMMY_ENTITY_ID]
        source = source_of(view)
        rows = pull(config, source, keys, [], source.timestamp_field, None, start, end)
        found.append(rows.select([*keys, source.timestamp_field]).rename_columns([*keys, TIMESTAMP]))
    frame = pa.concat_tables(found, promote_options="default")
    order = [(TIMESTAMP, "ascending"), *((c, "ascending") for c in frame.column_names if c != TIMESTAMP)]
    return frame.group_by(frame.column_names).aggregate([]).sort_by(order)


def _rows_from_sql(config: RepoConfig, views: list[FeatureView], query: str) -> pa.Table:
    """Run SQL over ``events`` and ``labels`` of the views' model, as they are published now."""
    models = sorted({v.batch_source.model for v in views if isinstance(v.batch_source, WindsockSource)})
    if len(models) != 1:
        raise SpecError(
            f"SQL as entity_df reads the events of one model, but the features asked for are of "
            f"{', '.join(models) or 'none'}. Ask per model, or give a frame."
        )
    store = _store_of(config)
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


def _store_of(config: RepoConfig) -> Store:
    """Return the store that the configuration names, or else the settings."""
    given = config.offline_store.store
    return Store(given.rstrip("/")) if given else Store.of(Settings.from_env())
