"""Reading the rows of a Feast data source: Windsock's tables by ledger record, Parquet files as they are."""

from datetime import UTC, datetime

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from feast import FeatureView, FileSource, RepoConfig
from feast.data_source import DataSource

from windsock import tables
from windsock.column_types import arrow_schema
from windsock.errors import SpecError
from windsock.featurestore.asof import utc_micros
from windsock.featurestore.cells import NO_ENTITY_COLUMN
from windsock.featurestore.feature_tables import latest_rows
from windsock.featurestore.pins import feature_records
from windsock.featurestore.source import WindsockSource
from windsock.settings import Settings
from windsock.store import Store


def store_of(config: RepoConfig) -> Store:
    """Return the store that the configuration names, or else the settings."""
    given = config.offline_store.store
    return Store(given.rstrip("/")) if given else Store.of(Settings.from_env())


def open_source(
    config: RepoConfig, source: DataSource, first: datetime | None, last: datetime | None
) -> ds.Dataset | None:
    """Open a source's rows that may matter for ``[first, last]`` (UTC, without zone), or return None if there are none.

    Raises:
        SpecError: The source is of a kind that this store cannot read.
    """
    if isinstance(source, WindsockSource):
        store = store_of(config)
        records = feature_records(store, source.model, first, last)
        return tables.open_dataset(store, records.values(), source.table, arrow_schema(source.columns))
    if isinstance(source, FileSource):
        uri = FileSource.get_uri_for_file_path(config.repo_path, source.path)
        fs, path = fsspec.core.url_to_fs(uri)
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


def source_schema(config: RepoConfig, source: DataSource) -> pa.Schema:
    """Return a source's columns, also if it has no rows yet."""
    if isinstance(source, WindsockSource):
        return arrow_schema(source.columns)
    return open_source(config, source, None, None).schema  # type: ignore[union-attr]


def pull(
    config: RepoConfig,
    source: DataSource,
    columns: list[str],
    timestamp: str,
    start: datetime | None,
    end: datetime | None,
    latest_by: list[str] | None = None,
) -> pa.Table:
    """Read a source's rows from ``start`` to ``end``, both included, in order of time.

    ``latest_by`` names the keys of which only the latest row is kept; None keeps all rows.
    """
    first, last = naive_utc(start), naive_utc(end)
    rows = open_source(config, source, first, last)
    kept = [c for c in columns if c != NO_ENTITY_COLUMN]
    schema = source_schema(config, source) if rows is None else rows.schema
    names = list(dict.fromkeys([*kept, timestamp]))
    empty = pa.schema([schema.field(n) for n in names]).empty_table()
    table = rows.to_table(columns=names) if rows is not None else empty
    times = utc_micros(table[timestamp])
    table = table.set_column(table.column_names.index(timestamp), timestamp, times.cast(pa.timestamp("us", tz="UTC")))
    keep = pc.is_valid(times)
    for bound, compare in ((first, pc.greater_equal), (last, pc.less_equal)):
        if bound is not None:
            keep = pc.and_(keep, compare(times, pa.scalar(bound, pa.timestamp("us"))))
    table = table.filter(keep).sort_by(timestamp)
    if latest_by is not None:
        table = latest_rows(table, [k for k in latest_by if k != NO_ENTITY_COLUMN])
    if not kept or NO_ENTITY_COLUMN in columns or (latest_by is not None and not latest_by):
        table = table.append_column(NO_ENTITY_COLUMN, pa.array([""] * table.num_rows, pa.string()))
    return table


def naive_utc(time: datetime | None) -> datetime | None:
    """Return a time in UTC without its zone; a time without zone is read as UTC."""
    return time if time is None or time.tzinfo is None else time.astimezone(UTC).replace(tzinfo=None)
