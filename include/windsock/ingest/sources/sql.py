"""SQL: one query a day, with the day's bounds bound as parameters.

The database's URL comes from an environment variable, because it may carry a password;
no message repeats it. SQLite has no time type and keeps any value in any column, so that
its rows are delivered as text, as those of a CSV file are.
"""

import os
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from sqlalchemy import URL, Engine, create_engine, exc, make_url, text
from sqlalchemy.pool import NullPool

from windsock.days import end_of, start_of
from windsock.errors import SpecError, UpstreamUnavailable
from windsock.ingest.sources.delivery import Delivery, NotDelivered
from windsock.ingest.sources.parse import Allowance, Unreadable
from windsock.redact import redact, redact_line
from windsock.spec import ModelSpec
from windsock.spec.sources import SqlSource

# Bounds carry no zone; a session in another one would move the day's edges of columns that do.
_IN_UTC = {
    "postgresql": "SET TIME ZONE 'UTC'",
    "mysql": "SET time_zone = '+00:00'",
    "mariadb": "SET time_zone = '+00:00'",
}


def fetch(spec: ModelSpec, source: SqlSource, day: date) -> Delivery:
    """Run the query for one day.

    Rows are ordered by event time and key, because a query may return them in any order.

    Raises:
        SpecError: The variable is not set, its URL names no usable driver, or the query fails.
        NotDelivered: The SQLite file is not there yet.
        UpstreamUnavailable: The database cannot be reached or broke off.
    """
    url = _url(source)
    try:
        most = spec.validation.max_rows
        rows = _query(_engine(url, source), url, source, day, most)
    except (SpecError, UpstreamUnavailable) as err:
        # Drivers may quote what they were given: the original error is neither shown nor chained.
        raise type(err)(redact(err, [str(url.password or "")])) from None
    delivered = (spec.events.time_source, spec.events.sources[spec.events.key])
    name, origin = f"{day}.parquet", f"query at ${source.url_env} for {day}"
    try:
        Allowance(max_rows=most).take(rows=rows.num_rows)
    except Unreadable as problem:
        return Delivery(None, None, name, origin, f"{origin}: {problem}")
    order = [name for name in delivered if name in rows.schema.names]
    rows = rows.sort_by([(name, "ascending") for name in order]) if order and rows.num_rows else rows
    return Delivery.of_rows(rows, name=name, origin=origin)


def _url(source: SqlSource) -> URL:
    given = os.environ.get(source.url_env, "")
    if not given:
        raise SpecError(
            f"The environment variable {source.url_env} (source.url_env) is not set. "
            "Set it to the database's SQLAlchemy URL, for example postgresql+psycopg://user:password@host/name."
        )
    try:
        return make_url(given)
    except (exc.ArgumentError, ValueError):
        raise SpecError(
            f"The environment variable {source.url_env} (source.url_env) does not hold a SQLAlchemy URL. "
            "It looks like postgresql+psycopg://user:password@host/name."
        ) from None


def _engine(url: URL, source: SqlSource) -> Engine:
    file = url.database if url.get_backend_name() == "sqlite" else None
    if file and file != ":memory:" and not file.startswith("file:") and not Path(file).exists():
        # SQLite would create an empty database and then miss the table.
        raise NotDelivered(f"The SQLite file {file} (${source.url_env}) does not exist (yet).")
    try:
        return create_engine(url, poolclass=NullPool)
    except (exc.NoSuchModuleError, ModuleNotFoundError, exc.ArgumentError) as err:
        raise SpecError(
            f"The database driver {url.drivername!r} (${source.url_env}) cannot be used: {redact_line(err)}. "
            "Install it, or name another driver in the URL."
        ) from None


def _query(engine: Engine, url: URL, source: SqlSource, day: date, most: int | None) -> pa.Table:
    """Return the day's rows; one more than ``most``, if there are more."""
    where = f"The database at ${source.url_env} ({url.drivername}, host {url.host or 'local'})"
    bounds = {"start": _bound(start_of(day), url), "end": _bound(end_of(day), url)}
    try:
        connection = engine.connect()
    except Exception as err:
        raise UpstreamUnavailable(
            f"{where} cannot be reached: {_reason(err)}. Check that it runs and that the URL is right."
        ) from None
    with connection:
        try:
            if in_utc := _IN_UTC.get(url.get_backend_name()):
                connection.execute(text(in_utc))
            # With a limit, the server keeps the rows that are not asked for.
            streamed = {"stream_results": most is not None}
            result = connection.execute(text(source.query), bounds, execution_options=streamed)
            names, found = list(result.keys()), result.fetchall() if most is None else result.fetchmany(most + 1)
        except exc.ResourceClosedError:
            raise SpecError("source.query returns no rows. Give a SELECT.") from None
        except exc.SQLAlchemyError as err:
            if _is_away(err, url):
                raise UpstreamUnavailable(f"{where} broke off: {_reason(err)}. Run the step again.") from None
            raise SpecError(
                f"source.query fails ({source.url_env}, {url.drivername}): {_reason(err)}. Correct it in model.yaml."
            ) from None
    return _to_table(names, found, as_text=url.get_backend_name() == "sqlite")


def _bound(moment: datetime, url: URL) -> datetime | str:
    # SQLite compares times as text; without a fraction the bound sorts before all spellings of its instant.
    return moment.isoformat(" ") if url.get_backend_name() == "sqlite" else moment


def _is_away(err: Exception, url: URL) -> bool:
    """Tell a database that went away or gave way from a query that is wrong."""
    if not isinstance(err, exc.DBAPIError):
        return False
    if url.get_backend_name() == "sqlite":  # reports a missing table as an operational error
        return "locked" in str(err.orig) or "disk I/O" in str(err.orig)
    return err.connection_invalidated or isinstance(err, (exc.OperationalError, exc.InterfaceError))


def _to_table(names: list[str], rows: Sequence[Any], *, as_text: bool) -> pa.Table:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SpecError(f"source.query returns {', '.join(twice)} more than once. Name each column once.")
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    convert = _to_text if as_text else _to_array
    return pa.table(dict(zip(names, map(convert, columns), strict=True)))


def _to_array(values: Sequence[Any]) -> pa.Array:
    """Let Arrow infer the type; mixtures, documents and what Arrow has no type for become text."""
    try:
        array = pa.array(values)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        array = None
    if array is None or isinstance(array.type, pa.BaseExtensionType) or pa.types.is_nested(array.type):
        return _to_text(values)
    return array


def _to_text(values: Sequence[Any]) -> pa.Array:
    return pa.array([None if value is None else str(value) for value in values], pa.string())


def _reason(err: Exception) -> str:
    return redact_line(getattr(err, "orig", None) or err)
