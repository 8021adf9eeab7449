"""The embedded online store: one SQLite file, one table per view, one row per entity.

The store never goes backwards, because the database itself decides: an upsert carries
the condition that its event time is not older than the stored one, so writers need no
order and no agreement. A day is written in one transaction together with the note which
version of it was written; a kill leaves the day before or the day after, whole.

Read ``online`` for the same file through Feast's API.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from windsock.errors import UpstreamUnavailable
from windsock.features.view_sql import TIMESTAMP
from windsock.featurestore.cells import Cell, Entity, column_cells
from windsock.featurestore.feature_tables import FeatureTable
from windsock.sql import quoted

_CHUNK = 500
_DAYS = "windsock_days"


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


class OnlineDb:
    """One SQLite file; connections belong to a thread of a process and are opened when needed."""

    def __init__(self, path: Path, busy_timeout_s: float = 60.0) -> None:
        self.path = path
        self._busy_timeout_s = busy_timeout_s
        self._local = threading.local()

    def connection(self) -> sqlite3.Connection:
        """Return this thread's connection.

        Raises:
            UpstreamUnavailable: The file cannot be opened.
        """
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

    def close(self) -> None:
        """Close this thread's connection, if it has one."""
        if getattr(self._local, "pid", None) == os.getpid():
            self._local.connection.close()
        self._local.pid = None

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Hold the write lock; commit at the end, or undo everything on an error.

        Raises:
            UpstreamUnavailable: Another writer kept the lock longer than the timeout, or the disk failed.
        """
        connection = self.connection()
        try:
            connection.execute("begin immediate")
            try:
                yield connection
                connection.execute("commit")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("rollback")
                raise
        except sqlite3.OperationalError as err:
            raise UpstreamUnavailable(
                f"The online store {self.path} could not be written: {err}. Run the step again."
            ) from err

    def create(self, table: str, features: Iterable[str]) -> None:
        """Make sure that a view's table exists and has these features."""
        wanted = [_column(f) for f in features]
        if not set(wanted) - self._columns(table):
            return
        with self.writing() as connection:
            connection.execute(
                f"create table if not exists {quoted(table)} "
                "(entity_key blob primary key, event_us integer not null) without rowid"
            )
            for column in wanted:
                if column not in self._columns(table):
                    connection.execute(f"alter table {quoted(table)} add column {quoted(column)}")
            connection.execute(f"create index if not exists {quoted(table + '_time')} on {quoted(table)} (event_us)")
            connection.execute(
                f"create table if not exists {_DAYS} (view text, ds text, content_hash text, primary key (view, ds))"
            )

    def drop(self, table: str) -> None:
        """Remove a view's table and its notes."""
        with self.writing() as connection:
            connection.execute(f"drop table if exists {quoted(table)}")
            if self._columns(_DAYS):
                connection.execute(f"delete from {_DAYS} where view = ?", (table,))

    def _columns(self, table: str) -> set[str]:
        return {row[1] for row in self.connection().execute(f"pragma table_info({quoted(table)})")}

    def upsert(
        self,
        table: str,
        features: Sequence[str],
        rows: Iterable[tuple[Cell, ...]],
        *,
        regardless_of_time: bool = False,
    ) -> int:
        """Write rows that are not older than what is stored; call it inside :meth:`writing`.

        Args:
            table: The view's table.
            features: Feature names, in the order of the rows' values.
            rows: Entity key, event time in microseconds, then the values.
            regardless_of_time: Also overwrite newer rows: a correction.

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

    def delete(self, table: str, keys: Iterable[bytes]) -> int:
        """Remove entities; call it inside :meth:`writing`. Returns how many there were."""
        cursor = self.connection().executemany(
            f"delete from {quoted(table)} where entity_key = ?", [(k,) for k in keys]
        )
        return max(cursor.rowcount, 0)

    def read(self, table: str, features: Sequence[str], keys: Sequence[bytes]) -> dict[bytes, OnlineRow]:
        """Return what is stored for these entities; unknown ones are absent."""
        known = self._columns(table)
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

    def keys_between(self, table: str, first_us: int, stop_us: int) -> list[bytes]:
        """List the entities whose stored event time lies in ``[first, stop)``."""
        if not self._columns(table):
            return []
        rows = self.connection().execute(
            f"select entity_key from {quoted(table)} where event_us >= ? and event_us < ?", (first_us, stop_us)
        )
        return [row[0] for row in rows]

    def note_day(self, table: str, day: date, content_hash: str) -> None:
        """Note which version of a day was written; call it inside :meth:`writing`."""
        self.connection().execute(
            f"insert into {_DAYS} (view, ds, content_hash) values (?, ?, ?) "
            "on conflict (view, ds) do update set content_hash = excluded.content_hash",
            (table, day.isoformat(), content_hash),
        )

    def noted_days(self, table: str) -> Mapping[str, str]:
        """Return day to the version that was written last."""
        if not self._columns(_DAYS):
            return {}
        return dict(self.connection().execute(f"select ds, content_hash from {_DAYS} where view = ?", (table,)))

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let several reads see one state."""
        self.connection().execute("begin")
        try:
            yield
        finally:
            self.connection().execute("commit")


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
