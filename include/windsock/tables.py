"""Tables: one Parquet file a day and content, never changed once it is written.

A file is named by the hash of its rows, so writers of one day with different rows write different files, and the
ledger's record alone says which are in force. Each file has a schema of its own: nothing is cast on the way in, and
on the way out a column is only widened, or NULL where a file lacks it.
"""

import hashlib
import io
import uuid
from collections.abc import Iterable, Sequence
from datetime import date, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq

from windsock.column_types import arrow_schema, declared_name, widens
from windsock.copies import read_files
from windsock.days import spans
from windsock.errors import SpecError
from windsock.ledger import LATE, DayRecord, Output
from windsock.row_places import places_of
from windsock.spec import ModelSpec
from windsock.spec.columns import KNOWN_AT, event_columns, event_known_at, label_columns
from windsock.store import Store

_ROW_GROUP = 1 << 17
"""Rows that are read, or skipped by a filter, at once."""
_ROWS_AT_ONCE = 1 << 20
"""Rows that may be held in memory as they lie in an object store, every column of them."""


def content_hash(rows: pa.Table) -> str:
    """Return a SHA-256 of rows: their schema, values and order."""
    # Parquet bytes are a function of the values alone; Arrow buffers hold undefined bytes under nulls.
    plain = rows.replace_schema_metadata(None).combine_chunks()
    digest = hashlib.sha256(_parquet(plain, compression="none", use_dictionary=False, store_schema=False))
    digest.update(str(plain.schema).encode())
    return digest.hexdigest()


def column_hashes(rows: pa.Table) -> dict[str, str]:
    """Return column name to a SHA-256 of the column in the rows' order; see :func:`windsock.ledger.columns_hash`."""
    return {name: content_hash(rows.select([name])) for name in rows.column_names}


def write_day(
    store: Store, model: str, table: str, day: date, rows: pa.Table, *, previous: DayRecord | None = None
) -> Output:
    """Write one day's rows of a table, unless a record names exactly these rows already.

    Nobody sees them before a record names them.

    Args:
        store: Where tables live.
        model: Model name; the table lies at ``<model>/<table>``.
        table: Table name, may contain ``/``.
        day: The folder, ``ds=<day>``.
        rows: The day's rows in their final order.
        previous: The day's record now in force, to recognise unchanged rows.
    """
    digest = content_hash(rows)
    old = previous.outputs.get(table) if previous is not None else None
    if old is not None and old.hash == digest and all(store.exists(f) for f in old.files):
        return old
    columns = tuple((field.name, str(field.type)) for field in rows.schema)
    if rows.num_rows == 0:
        return Output(0, digest, (), columns)
    folder = f"{model}/{table}/ds={day}"
    file = f"{folder}/{digest}.parquet"
    if store.exists(file):
        # Of a writer that was killed, it may be, and then maintenance may be about to remove it.
        file = f"{folder}/{digest}.{uuid.uuid4().hex[:8]}.parquet"
    store.write_bytes(_parquet(rows.replace_schema_metadata(None), row_group_size=_ROW_GROUP), file)
    return Output(rows.num_rows, digest, (file,), columns)


def read(
    store: Store,
    records: Iterable[DayRecord],
    table: str,
    columns: Sequence[str] | None = None,
    *,
    schema: pa.Schema | None = None,
) -> pa.Table | None:
    """Read one table's rows of the given days (default: every column), in order of days, then as written.

    Returns:
        The rows, or None if no given day has any.

    Raises:
        SpecError: See :func:`open_dataset`.
    """
    dataset = open_dataset(store, records, table, schema)
    return dataset.to_table(columns=columns and list(columns)) if dataset is not None else None


def read_events(
    store: Store,
    spec: ModelSpec,
    records: Iterable[DayRecord],
    columns: Sequence[str] | None = None,
    *,
    late_in: Iterable[DayRecord] = (),
) -> pa.Table:
    """Read the events of the given days as the spec declares them today; see :func:`read`.

    Those that came late are read with them where ``late_in`` names the records of their deliveries; rows are in order
    of time then. What is scored and trained on are the events that a day had when it was scored: it names none.

    Raises:
        SpecError: A column of the model's own has the name by which some of these days say when events became known.
    """
    schema, records = arrow_schema(event_columns(spec).items()), list(records)
    ours = event_known_at(spec)
    late_in = list(late_in)
    outputs = [
        (r.day, r.outputs[name])
        for r in (*records, *late_in)
        for name in ("events", f"{LATE}events")
        if name in r.outputs
    ]
    others = sorted({day for day, output in outputs if output.rows and _known_at_column(output) != ours})
    if others:
        raise SpecError(
            f"events: when an event became known is called {ours!r} now, and otherwise in the rows of {spans(others)}, "
            f"as the model's columns include {KNOWN_AT!r} on one side only. Ingest those days again, or give the "
            f"column another name, as in {KNOWN_AT}_there: {{type: timestamp, from: {KNOWN_AT}}}."
        )
    names, same = list(columns or schema.names), (spec.events.key, spec.events.time)
    late = _late(store, late_in, "events", schema, same, records)
    needed = names if late is None else list(dict.fromkeys([*names, *same]))
    rows = read(store, records, "events", needed, schema=schema)
    if rows is None:
        rows = schema.empty_table().select(needed)
    return rows if late is None else _with_late(rows, late.select(needed), same).select(names)


def read_labels(store: Store, spec: ModelSpec, records: Iterable[DayRecord]) -> pa.Table:
    """Read the labels of the given days (of events, or of delivery) as the spec declares them today.

    When a label that came with its event became known is what the spec says now: a delay that was found to be longer
    holds for every label at once. One that came late was not known before its delivery.
    """
    schema, records = arrow_schema(label_columns(spec).items()), list(records)
    rows = read(store, records, "labels", schema=schema)
    if rows is None:
        rows = schema.empty_table()
    if spec.label.files is not None:
        return rows
    rows = rows.set_column(3, schema.field(3), label_known_at(spec, rows["event_time"]))
    same = (spec.events.key, "event_time")
    late = _late(store, records, "labels", schema, same, records)
    if late is None:
        return rows
    known_at = pc.max_element_wise(label_known_at(spec, late["event_time"]), late[KNOWN_AT])
    return _with_late(rows, late.set_column(3, schema.field(3), known_at), same)


def _late(
    store: Store,
    late_in: Iterable[DayRecord],
    table: str,
    schema: pa.Schema,
    same: tuple[str, str],
    records: Iterable[DayRecord],
) -> pa.Table | None:
    """Read the rows of a table that came late for some days, each as it came first; None if there are none.

    ``same`` names the columns that tell rows apart, key and event time.
    """
    late = read(store, late_in, f"{LATE}{table}", schema=schema)
    if late is None:
        return None
    key, time = (late[name] for name in same)
    of_these = pc.is_in(time.cast(pa.date32()), value_set=pa.array([r.day for r in records], pa.date32()))
    first = pc.equal(places_of([key, time], [key, time]).cast(pa.int64()), pa.array(range(len(late)), pa.int64()))
    return late.filter(pc.and_(of_these, first))


def _with_late(rows: pa.Table, late: pa.Table, same: tuple[str, str]) -> pa.Table:
    """Add rows that came late, unless they had come in time, in order of time and key."""
    key, time = same
    near = rows.select(same).filter(pc.is_in(rows[key], value_set=pc.unique(late[key])))  # the few, of many
    known = places_of([late[key], late[time]], [near[key], near[time]])
    return pa.concat_tables([rows, late.filter(known.is_null())]).sort_by([(time, "ascending"), (key, "ascending")])


def label_known_at(spec: ModelSpec, event_time: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return when labels that come with their events become known: ``label.delay_days`` after these."""
    return pc.add(event_time, pa.scalar(timedelta(days=spec.label.delay_days), pa.duration("us")))


def open_dataset(
    store: Store, records: Iterable[DayRecord], table: str, schema: pa.Schema | None = None
) -> ds.Dataset | None:
    """Open one table's rows of the given days, in order of days, or return None if there are none.

    Args:
        store: Where tables live.
        records: Day records; only their files are read.
        table: Table name as in ``DayRecord.outputs``.
        schema: Columns to offer, where one that a file lacks reads as NULL; None: every column of any file.

    Raises:
        SpecError: Some day holds a column in a type that cannot be widened to the one that is offered.
    """
    outputs = [(r.day, r.outputs[table]) for r in sorted(records, key=lambda r: r.ds) if table in r.outputs]
    outputs = [(day, output) for day, output in outputs if output.files]
    if not outputs:
        return None
    files, parquet = _file_system(store), ds.ParquetFileFormat()
    names = [file for _, output in outputs for file in output.files]
    if store.is_local or sum(output.rows for _, output in outputs) > _ROWS_AT_ONCE:
        fragments = [parquet.make_fragment(store.path(name), files) for name in names]
    else:  # one request for each file, all at once, instead of several one after another
        found = read_files(store, names)
        fragments = [parquet.make_fragment(pa.BufferReader(found.get(n) or store.read_bytes(n))) for n in names]
    stored = [(day, stored_schema(store, output)) for day, output in outputs]
    offered = schema if schema is not None else _widest(one for _, one in stored)
    _refuse_narrowing(table, offered, stored)
    return ds.FileSystemDataset(fragments, offered, parquet, files)


def delivered_columns(store: Store, output: Output) -> dict[str, pa.DataType]:
    """Return name to type of the columns that a day's events have of their delivery: all but when each became known."""
    ours = _known_at_column(output)
    return {field.name: field.type for field in stored_schema(store, output) if field.name != ours}


def _known_at_column(output: Output) -> str:
    """Return the column of a day's events that says when each became known: the last; always one in version 0.1."""
    return output.columns[-1][0] if output.columns else KNOWN_AT


def stored_schema(store: Store, output: Output) -> pa.Schema:
    """Return the schema of a day's rows: as their record names it, else as their file does; empty if there is none."""
    try:
        columns = [(name, pa.type_for_alias(kind)) for name, kind in output.columns]
    except ValueError:  # of a type that has more to it than a name: dictionary-encoded text
        columns = []
    if columns or not output.files:
        return pa.schema(columns)
    return ds.ParquetFileFormat().make_fragment(store.path(output.files[0]), _file_system(store)).physical_schema


def _file_system(store: Store) -> pa.fs.FileSystem:
    # Arrow's own local file system reads in parallel; one made from fsspec holds the interpreter's lock.
    return pa.fs.LocalFileSystem() if store.is_local else pa.fs.PyFileSystem(pa.fs.FSSpecHandler(store.fs))


def _parquet(rows: pa.Table, **options: object) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, **options)
    return buffer.getvalue()


def _widest(stored: Iterable[pa.Schema]) -> pa.Schema:
    """Return every column of any schema, in order of appearance, in the widest of its types."""
    columns: dict[str, pa.DataType] = {}
    for field in (field for one in stored for field in one):
        known = columns.get(field.name)
        if known is None or widens(known, field.type):
            columns[field.name] = field.type
    return pa.schema(columns.items())


def _refuse_narrowing(table: str, offered: pa.Schema, stored: Sequence[tuple[date, pa.Schema]]) -> None:
    for field in offered:
        others = {
            day: one.field(field.name).type
            for day, one in stored
            if field.name in one.names and not widens(one.field(field.name).type, field.type)
        }
        if others:
            kinds = " and ".join(sorted({declared_name(kind) for kind in others.values()}))
            new = declared_name(field.type)
            named = f", as in {field.name}_{new}: {{type: {new}, from: {field.name}}}" if table == "events" else ""
            raise SpecError(
                f"{table}: column {field.name!r} is {new}, but {kinds} in the rows of "
                f"{spans(others)}, and only int64 becomes double and date becomes timestamp without loss. Give the "
                f"column of the new type a name of its own{named}, or ingest those days again."
            )
