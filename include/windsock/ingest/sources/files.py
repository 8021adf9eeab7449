"""Files: one a day by pattern, or one big file of which each day is cut by event time.

A relative path is relative to the model's folder, so that a model folder can be moved
with its data. A daily file is read once: hash, raw copy and rows come from the same bytes.
A day of a big file is read without the rest: Parquet by its row groups' statistics, CSV as
a stream. Rows of a big file without a readable event time belong to no day; they come
with the model's first day, so that they are set aside there instead of being lost.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from windsock.errors import SpecError, UpstreamUnavailable, WindsockError
from windsock.ingest.sources import bigfile
from windsock.ingest.sources.base import Delivery, NotDelivered, redact, shorten
from windsock.ingest.sources.parse import Format, Unreadable, format_of, parse
from windsock.spec import ModelSpec
from windsock.spec.data import FilesSource

_DAY = "{ds}"


def fetch(spec: ModelSpec, source: FilesSource, day: date) -> Delivery:
    """Fetch one day from its file, or cut it out of the big file.

    Raises:
        NotDelivered: The file is not there yet or ends before the day.
        UpstreamUnavailable: It cannot be reached.
        SpecError: The URL names no file system, or a folder, or its format is unknown.
    """
    if _DAY in source.url:
        return fetch_daily(spec, source.url, source.format, day)
    url = locate(spec, source.url)
    kind, compression = format_of(url, source.format)
    name, origin = f"{day}.parquet", f"{day} of {redact(url)}"
    try:
        with opening(url) as (fs, path):
            rows = bigfile.cut(fs, path, kind, compression, spec=spec, day=day)
    except Unreadable as problem:
        return Delivery(None, None, name, None, f"{redact(url)}: {problem}", origin)
    return Delivery.of_rows(rows, name=name, origin=origin)


def fetch_daily(spec: ModelSpec, pattern: str, given: Format | None, day: date) -> Delivery:
    """Fetch the file of one day.

    Args:
        spec: The model's spec; relative paths start at its folder.
        pattern: URL or path in which ``{ds}`` stands for the day.
        given: Format, or None to tell it by the ending.
        day: The day that the file is named after.

    Raises:
        NotDelivered: The file is not there yet.
        UpstreamUnavailable: It cannot be reached.
        SpecError: The URL names no file system, or a folder, or its format is unknown.
    """
    url = locate(spec, pattern.replace(_DAY, day.isoformat()))
    kind, compression = format_of(url, given)
    with opening(url) as (fs, path):
        raw = bytes(fs.cat_file(path))
    shown = redact(url)
    rows, problem = None, None
    try:
        rows = parse(raw, kind, compression)
    except Unreadable as err:
        problem = f"{shown}: {err}"
    name = url.split("?", 1)[0].rsplit("/", 1)[-1]
    return Delivery.of_file(raw, name=name, origin=shown, rows=rows, problem=problem)


def locate(spec: ModelSpec, url: str) -> str:
    """Return a URL as it is, and a path as absolute, relative ones from the model's folder."""
    if "://" in url or "::" in url:
        return url
    return str(spec.folder / Path(url).expanduser())


@contextmanager
def opening(url: str) -> Iterator[tuple[Any, str]]:
    """Resolve a URL to ``(file system, path)`` and turn what goes wrong inside into our errors.

    The original errors are not chained: they may quote the URL with its secrets.

    Raises:
        NotDelivered: The file is not there.
        UpstreamUnavailable: It cannot be reached.
        SpecError: There is no such file system, or a folder stands there.
    """
    import fsspec

    shown = redact(url)
    try:
        try:
            fs, path = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as err:
            raise SpecError(
                f"source.url {shown!r} cannot be used: {shorten(err)}. Give a path or an fsspec URL."
            ) from None
        yield fs, path
    except (WindsockError, Unreadable):
        raise
    except FileNotFoundError as err:
        if isinstance(err.__cause__, OSError) and not isinstance(err.__cause__, FileNotFoundError):
            raise _away(shown, err.__cause__) from None  # so says fsspec of a web server that does not answer
        raise NotDelivered(
            f"{shown} does not exist (yet). If it will not come, check source.url in the model's model.yaml."
        ) from None
    except IsADirectoryError:
        raise SpecError(f"{shown} is a folder, not a file. Name one file, or one a day with {{ds}}.") from None
    except Exception as err:
        raise _away(shown, err) from None


def _away(shown: str, err: BaseException) -> UpstreamUnavailable:
    return UpstreamUnavailable(
        f"{shown} cannot be read now: {type(err).__name__}: {shorten(err)}. Check the address and the access rights, "
        "then run the step again."
    )
