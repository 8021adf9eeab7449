"""Files: one a day by pattern, a folder of part files a day, or one big file of which each day is cut (``bigfile``).

Those that are named by the days of another zone than UTC are read by ``local_days``.

A relative path is relative to the model's folder, so that a model folder can be moved with its data. A daily file is
read once: hash, raw copy and rows come from the same bytes. What changes while it is read is not there yet.
"""

from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

from windsock.ingest.sources import bigfile, local_days, parts
from windsock.ingest.sources.delivery import Delivery, NotWhole
from windsock.ingest.sources.parse import Unreadable, format_of, parse
from windsock.ingest.sources.places import allowance, locate, opening, read_file
from windsock.listing import written_at
from windsock.redact import redact
from windsock.spec import ModelSpec
from windsock.spec.sources import DeliveredFiles, FilesSource, has_day, url_of_day

_MARKS = ("name", "size", "mtime", "ETag", "LastModified", "last_modified", "updated", "created")
"""What file systems say of a file, each in its own words, that changes with it."""

Infos = list[dict[str, Any]]
"""What a file system says of some files."""

_BIG_FILE_RESTS = 60
"""Seconds for which one big file has not changed before its newest day is taken: a copy of it grows row by row."""


def fetch(spec: ModelSpec, source: FilesSource, day: date) -> Delivery:
    """Fetch one day from its file or folder, or cut it out of the big file."""
    if has_day(source.url):
        ask = partial(fetch_daily, spec, source)
        zone = source.timezone
        return ask(day) if zone is None else local_days.fetch_overlapping(spec, source, zone, day, ask)
    url = locate(spec, source.url)
    kind, compression = format_of(url, source.format)
    name, origin = f"{day}.parquet", f"{day} of {redact(url)}"
    try:
        with opening(url) as (fs, path):
            seen = _look(fs, path, source, day)
            rests = _BIG_FILE_RESTS if source.quiet_seconds is None else 0
            try:
                rows, over = bigfile.cut(fs, path, kind, compression, spec, day, source.zone_of_times)
            except Unreadable:  # what is half written is no fault yet
                _let_it_rest(seen, rests)
                _look_again(fs, path, source, day, seen, redact(url))
                raise
            try:
                _let_it_rest(seen, 0 if source.mark is not None else rests)
                _look_again(fs, path, source, day, seen, redact(url))
            except NotWhole:
                if not (over() or day == spec.last_day):
                    raise
                _look_again(fs, path, source, day, seen, redact(url), may_grow=True)
    except Unreadable as problem:
        return Delivery(None, None, name, origin, f"{redact(url)}: {problem}")
    return Delivery.of_rows(rows, name=name, origin=origin, zone=source.zone_of_times)


def fetch_daily(spec: ModelSpec, files: DeliveredFiles, day: date) -> Delivery:
    """Fetch the file of one day, or its folder of part files, which the pattern names.

    Raises:
        SpecError: Its format is neither given nor told by the ending.
        NotDelivered: It is not there yet, or not whole.
    """
    folder, url = files.url.endswith("/"), locate(spec, url_of_day(files.url, day)).rstrip("/")
    told = None if folder else format_of(url, files.format)
    shown, name = redact(url), url.split("?", 1)[0].rsplit("/", 1)[-1]
    raw, rows, problem = None, None, None
    try:
        with opening(url) as (fs, path):
            seen = _look(fs, path, files, day)
            try:
                if told is None:
                    name, found = f"{day}.parquet", parts.read_parts(fs, path, files.format, allowance(spec), shown)
                else:
                    found, raw = None, read_file(fs, path, allowance(spec))
            finally:  # what is half written is no fault yet
                _look_again(fs, path, files, day, seen, shown)
        if found is not None:
            return Delivery.of_rows(found, name=name, origin=shown, zone=files.zone_of_times)
        rows = parse(raw or b"", *told, allowance(spec)) if told is not None else None
    except Unreadable as err:
        problem = f"{shown}: {err}"
    return Delivery(rows, raw, name, shown, problem, files.zone_of_times)


def _look(fs: Any, path: str, files: DeliveredFiles, day: date) -> Infos:
    """Return what the file system says of a delivery's files.

    Raises:
        NotWhole: It lacks its mark, or is being written.
    """
    folder = files.url.endswith("/")
    infos = parts.listed(fs, path) if folder else [fs.info(path)]
    mark = url_of_day(files.mark, day) if files.mark is not None else parts.MARK if folder else None
    if mark is not None:
        place, asked, query = path.partition("?")  # of a web address
        where = place if folder else place.rpartition("/")[0]
        if not fs.exists(f"{where}/{mark}{asked}{query}"):
            raise NotWhole(
                f"{redact(path)} is there, but not the mark {mark} that says that it is whole. Should the sender write "
                f"another one, name it by `mark:` beside `url:` in model.yaml."
            )
    _let_it_rest(infos, files.quiet_seconds or 0)
    return infos


def _let_it_rest(infos: Infos, seconds: int) -> None:
    """Raise NotWhole for files that changed within so many seconds; what cannot tell when it changed is at rest."""
    for info in infos if seconds else ():
        changed = written_at(info)
        if changed is not None and datetime.now(UTC) - changed < timedelta(seconds=seconds):
            raise NotWhole(
                f"{redact(info['name'])} changed at {changed:%Y-%m-%d %H:%M:%S} UTC, less than {seconds} seconds ago, "
                "so it may still be growing. It is looked at again; `mark:` or `quiet_seconds:` in model.yaml say when "
                "it is whole."
            )


def _look_again(
    fs: Any, path: str, files: DeliveredFiles, day: date, seen: Infos, shown: str, *, may_grow: bool = False
) -> None:
    """Raise NotWhole for what has changed since ``seen``; ``may_grow``: further rows are of later days."""
    fs.invalidate_cache()
    now = _look(fs, path, files, day)
    if _marks(now) == _marks(seen):
        return
    # An object of a bucket is replaced whole, and its tag tells; a file that was appended to has only become longer.
    if may_grow and now[0].get("ETag") is None and int(now[0]["size"]) > int(seen[0]["size"]):
        return
    raise NotWhole(f"{shown} changed while it was read: it is still being written.")


def _marks(infos: Infos) -> list[list[str]]:
    return [[str(info.get(name)) for name in _MARKS] for info in infos]
