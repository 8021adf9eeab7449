"""The embedded online store: one SQLite file, one table per view, one row per entity.

The store never goes backwards, because the database itself decides: an upsert carries the condition that its event time
is not older than the stored one, so writers need no order and no agreement. A day is written in one transaction
together with the note which version of it was written; a kill leaves the day before or the day after, whole.

Keys are Feast's own serialization (version 3), made directly from columns instead of one
protobuf object per row. Values are SQLite's own types; NaN, which SQLite would turn into
NULL, gets a mark of its own. Read ``online`` for the same file through Feast's API.
"""

import math
import os
import sqlite3
import struct
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from windsock.errors import UpstreamUnavailable
from windsock.features.feature_tables import FeatureTable
from windsock.features.view_sql import TIMESTAMP
from windsock.sql import quoted

Cell = int | float | str | bytes | None
Entity = int | str | None
"""Value of a view's entity column; None for the only row of a view without an entity."""

NAN = b"nan"
"""Stands for NaN; no serialized Feast value begins with these bytes (their wire type does not exist)."""

NO_ENTITY_COLUMN = "__dummy_id"
"""Feast's join key for views without an entity; its value is the empty string."""

DAYS_TABLE = "windsock_days"
_CHUNK = 500

_STRING, _INT64 = 2, 4  # feast.types.ValueType


@dataclass(frozen=True)
class OnlineRow:
    """What the online store serves for one entity."""

    micros: int
    """Event time in microseconds since 1970, UTC."""
    values: tuple[Cell, ...]


def online_rows(table: FeatureTable, rows: pa.Table) -> Iterator[tuple[Entity, OnlineRow]]:
    """Yield a view's rows as cells; rows without an entity cannot be looked up and are left out."""
    if table.entity is not None:
        rows = rows.filter(pc.is_valid(rows[table.entity]))
    entities = rows[table.entity].to_pylist() if table.entity is not None else [None] * rows.num_rows
    times = rows[TIMESTAMP].cast(pa.int64()).to_pylist()
    values = zip(*(column_cells(rows[f]) for f in table.features), strict=True)
    yield from zip(entities, map(OnlineRow, times, values), strict=True)


def entity_keys(column: str | None, values: Sequence[Any]) -> list[bytes]:
    """Serialize the values of one entity column as Feast does, version 3.

    The values are whole numbers or strings, none of them None; without an entity column they are ignored.
    """
    name = (column or NO_ENTITY_COLUMN).encode()
    head = struct.pack("<III", 1, _STRING, len(name)) + name
    if column is None:
        return [head + struct.pack("<II", _STRING, 0)] * len(values)
    if values and isinstance(values[0], str):
        return [head + struct.pack("<II", _STRING, len(raw)) + raw for raw in (v.encode() for v in values)]
    pack = struct.Struct("<IIq").pack
    return [head + pack(_INT64, 8, value) for value in values]


def entity_value(column: str | None, key: bytes) -> int | str | None:
    """Return the entity that a key from :func:`entity_keys` stands for; None for a view without an entity."""
    if column is None:
        return None
    at = 12 + len(column.encode())
    kind, length = struct.unpack_from("<II", key, at)
    raw = key[at + 8 : at + 8 + length]
    return int(struct.unpack("<q", raw)[0]) if kind == _INT64 else raw.decode()


def column_cells(column: pa.ChunkedArray) -> list[Cell]:
    """Turn a feature column into cells; times become whole seconds, as Feast holds them."""
    if pa.types.is_temporal(column.type):
        micros = column.cast(pa.timestamp("us")).cast(pa.int64())
        return [None if v is None else v // 1_000_000 for v in micros.to_pylist()]
    if pa.types.is_floating(column.type) and pc.any(pc.is_nan(column)).as_py():
        return [cell(v) for v in column.to_pylist()]
    cells: list[Cell] = column.to_pylist()
    return cells


def cell(value: float | str | None) -> Cell:
    """Turn one plain value into a cell."""
    if isinstance(value, float) and math.isnan(value):
        return NAN
    return int(value) if isinstance(value, bool) else value


def micros_of(time: datetime) -> int:
    """Return microseconds since 1970 of a time in UTC without a zone."""
    return (time - datetime(1970, 1, 1)) // timedelta(microseconds=1)


class OnlineDb:
    """One SQLite file; connections belong to a thread of a process and are opened when needed."""

    def __init__(self, path: Path, busy_timeout_s: float = 60.0) -> None:
        self.path = path
        self._busy_timeout_s = busy_timeout_s
        self._local = threading.local()

    def connection(self) -> sqlite3.Connection:
        """Return this thread's connection."""
        if getattr(self._local, "pid", None) != os.getpid():
            # A connection must not cross a fork: both sides would believe they hold its locks.
            self._local.connection = self._open()
            self._local.pid = os.getpid()
        connection: sqlite3.Connection = self._local.connection
        return connection

    def _open(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                self.path, timeout=self._busy_timeout_s, isolation_level=None, check_same_thread=False
            )
            _use_wal(connection, self._busy_timeout_s)
            connection.execute("pragma synchronous = full")
        except (sqlite3.Error, OSError) as err:
            raise UpstreamUnavailable(
                f"The online store {self.path} cannot be opened: {err}. Check that the folder is writable and on a "
                "local disk, then run the step again."
            ) from err
        return connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Hold the write lock; commit at the end, or undo everything on an error.

        Raises:
            UpstreamUnavailable: Another writer kept the lock longer than the timeout, or the disk failed.
        """
        connection = self.connection()
        try:
            with connection:
                connection.execute("begin immediate")
                yield connection
        except sqlite3.OperationalError as err:
            raise UpstreamUnavailable(
                f"The online store {self.path} could not be written: {err}. Run the step again."
            ) from err

    def create(self, table: str, features: Iterable[str]) -> None:
        """Make sure that a view's table exists and has these features."""
        wanted = [_column(f) for f in features]
        if not set(wanted) - self.columns(table):
            return
        with self.writing() as connection:
            connection.execute(
                f"create table if not exists {quoted(table)} "
                "(entity_key blob primary key, event_us integer not null) without rowid"
            )
            for column in wanted:
                if column not in self.columns(table):
                    connection.execute(f"alter table {quoted(table)} add column {quoted(column)}")
            connection.execute(f"create index if not exists {quoted(table + '_time')} on {quoted(table)} (event_us)")
            connection.execute(
                f"create table if not exists {DAYS_TABLE} "
                "(view text, ds text, content_hash text, primary key (view, ds))"
            )

    def drop(self, table: str) -> None:
        """Remove a view's table and its notes."""
        with self.writing() as connection:
            connection.execute(f"drop table if exists {quoted(table)}")
            if self.columns(DAYS_TABLE):
                connection.execute(f"delete from {DAYS_TABLE} where view = ?", (table,))

    def columns(self, table: str) -> set[str]:
        """Return the columns of a table; none if it does not exist."""
        return {row[1] for row in self.connection().execute(f"pragma table_info({quoted(table)})")}

    def upsert(
        self, table: str, features: Sequence[str], rows: Iterable[tuple[Cell, ...]], *, regardless_of_time: bool = False
    ) -> int:
        """Write rows (entity key, event time in microseconds, values); call it inside :meth:`writing`.

        Newer rows stay, unless ``regardless_of_time`` says that this is a correction.

        Returns:
            How many rows are different now. A row of the same time and other values counts: a recomputed day.
        """
        columns = ["event_us", *map(_column, features)]
        names = ", ".join(map(quoted, columns))
        new = ", ".join(f"excluded.{quoted(c)}" for c in columns)
        old = ", ".join(f"{quoted(table)}.{quoted(c)}" for c in columns)
        not_older = "true" if regardless_of_time else f"excluded.event_us >= {quoted(table)}.event_us"
        cursor = self.connection().executemany(
            f"insert into {quoted(table)} (entity_key, {names}) values (?{', ?' * len(columns)}) "
            f"on conflict (entity_key) do update set ({names}) = ({new}) "
            f"where {not_older} and ({new}) is not ({old})",
            rows,
        )
        return max(cursor.rowcount, 0)

    def read(self, table: str, features: Sequence[str], keys: Sequence[bytes]) -> dict[bytes, OnlineRow]:
        """Return what is stored for these entities; unknown ones are absent."""
        known = self.columns(table)
        if not known:
            return {}
        # A feature that the table does not know yet has no value for anybody.
        picked = "".join(f", {quoted(_column(f)) if _column(f) in known else 'null'}" for f in features)
        found: dict[bytes, OnlineRow] = {}
        for start in range(0, len(keys), _CHUNK):
            chunk = keys[start : start + _CHUNK]
            rows = self.connection().execute(
                f"select entity_key, event_us{picked} from {quoted(table)} "
                f"where entity_key in ({', '.join('?' * len(chunk))})",
                chunk,
            )
            found.update({row[0]: OnlineRow(row[1], tuple(row[2:])) for row in rows})
        return found


def _use_wal(connection: sqlite3.Connection, timeout_s: float) -> None:
    """Switch to a write-ahead log; while another process does that, SQLite refuses without waiting."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            connection.execute("pragma journal_mode = wal")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _column(feature: str) -> str:
    return f"f_{feature}"
