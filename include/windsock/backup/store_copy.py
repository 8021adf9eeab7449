"""A store in a backup, consistent while steps write: first the records, then (after the databases) what they name.

A record is written after what it names, and what it names never changes. So whoever has read the records of a moment
finds all that they name afterwards. The moment: the records of a model are read between two listings that are equal.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from windsock.backup.target import Entry, Manifest, Target, holds, write
from windsock.errors import UpstreamUnavailable
from windsock.format_numbers import RESTORING
from windsock.listing import Listed, listed
from windsock.store import MARKER, Store, to_json

log = logging.getLogger(__name__)

RECORDS = ("ledger", "promotions", "versions")
"""Folders of a model that hold records: they say what counts."""
STORE = "store"
_HISTORY = "/history/"
_SETTLE_SECONDS = 300.0
_AT_ONCE = 8

T = TypeVar("T")
R = TypeVar("R")
Tick = Callable[[int, int], None]
"""Told of progress: done, of how many."""


@dataclass(frozen=True)
class Records:
    """All records as they stood at a moment, each model at its own."""

    files: dict[str, Entry]
    named: dict[str, str]
    """File that a record in force names, to that record."""


def read_records(store: Store, target: Target) -> Records:
    """Read the records of all models, and keep them.

    Raises:
        UpstreamUnavailable: They changed all the time.
    """
    files, named = dict[str, Entry](), dict[str, str]()
    for model in sorted(folder for folder in store.folders() if set(store.folders(folder)) & set(RECORDS)):
        content = _at_a_moment(store, model)
        for name, entry in zip(content, _at_once(target.keep, content.values()), strict=True):
            files[f"{STORE}/{name}"] = entry
        for name, data in content.items():
            with suppress(ValueError, AttributeError, TypeError):  # a damaged record is backed up as it is
                outputs = json.loads(data).get("outputs") or {}
                named |= {file: name for output in outputs.values() for file in output["files"]}
    return Records(files, named)


def _at_a_moment(store: Store, model: str) -> dict[str, bytes]:
    """Return the records of a model that stood side by side at one moment."""
    before, content = dict[str, Listed](), dict[str, bytes]()
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        found = (file for part in RECORDS for file in listed(store, f"{model}/{part}"))
        now = {file.name: file for file in found if is_record(file.name)}
        if now == before:
            return content
        if time.monotonic() > deadline:
            raise UpstreamUnavailable(
                f"{model}: its records changed all the time for {_SETTLE_SECONDS:.0f} s, so that no moment of them "
                "could be read. Run it again when fewer days run at once."
            )
        read = store.read_many(name for name, file in now.items() if before.get(name) != file)
        content = {name: read[name] if name in read else content.get(name, b"") for name in now}
        before = now


def is_record(name: str) -> bool:
    """Say whether a file of a store is a record that counts: what is kept of earlier ones never changes."""
    parts = name.split("/")
    return len(parts) > 2 and parts[1] in RECORDS and _HISTORY not in name and not _is_temporary(name)


def copy_files(store: Store, target: Target, records: Records, last: Manifest | None, tick: Tick) -> dict[str, Entry]:
    """Keep everything else of a store; what has not changed since the ``last`` backup is not even read.

    Returns:
        All files of the store, records included.

    Raises:
        UpstreamUnavailable: What a record names was removed meanwhile.
    """
    known = last.part(STORE) if last is not None else {}
    wanted = [f for f in listed(store, "") if not is_record(f.name) and not _is_temporary(f.name)]
    found = dict(records.files)

    def copied(file: Listed) -> Entry | None:
        stamp = stamp_of(file)
        if (entry := known.get(file.name)) is not None and entry.stamp == stamp and target.has(entry):
            return entry
        try:
            return target.keep_file(store.fs, store.path(file.name), file.size, stamp)
        except FileNotFoundError:  # removed meanwhile: an old page, a note of a run that is over
            return None

    for done, (file, entry) in enumerate(zip(wanted, _at_once(copied, wanted), strict=True), start=1):
        tick(done, len(wanted))
        if entry is not None:
            found[f"{STORE}/{file.name}"] = entry
    if gone := [file for file in records.named if f"{STORE}/{file}" not in found]:
        raise UpstreamUnavailable(
            f"{store.url(gone[0])}: is named by {records.named[gone[0]]} and was removed meanwhile. Run it again."
        )
    return found


def stamp_of(file: Listed) -> str:
    """Return what tells that a file has not changed."""
    return f"{file.size} {file.written.isoformat()} {file.tag}"


def put_back(target: Target, manifest: Manifest, store: Store, tick: Tick) -> None:
    """Write a store as it was, but for its marker: by that everybody refuses it until :func:`finish`.

    ``store`` must be empty, or one in which the same restoring was cut off.
    """
    files = {name: entry for name, entry in manifest.part(STORE).items() if name != MARKER}
    begun = to_json({RESTORING: f"{target} {manifest.made_at}"})
    store.write_bytes(begun, MARKER)
    sizes = {file.name: file.size for file in listed(store, "")}

    def bring(name: str) -> None:
        entry = files[name]
        if sizes.get(name) != entry.size or not holds(store, name, entry):
            write(store, name, entry.size, target.parts(entry, name))

    for done, _ in enumerate(_at_once(bring, files), start=1):
        tick(done, len(files))


def finish(target: Target, manifest: Manifest, store: Store) -> None:
    """Have a store that was put back count."""
    if (marker := manifest.part(STORE).get(MARKER)) is not None:
        store.write_bytes(b"".join(target.parts(marker, MARKER)), MARKER)
    else:  # of version 0.1, which wrote none
        store.remove(MARKER)


def _at_once(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from pool.map(work, items)


def _is_temporary(name: str) -> bool:
    last = name.rsplit("/", 1)[-1]
    return last.startswith(".") and last.endswith(".tmp")
