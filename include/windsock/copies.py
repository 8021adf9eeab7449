"""Copies of a bucket's objects in the home, so that a day does not ask again for what the day before it has read.

A table's file is named by its rows and never changes: its copy is found by its name. A record may be replaced: its copy
is found by the MD5 that a bucket's listing gives as its tag, one request for a thousand records, and is one only of
content with this very MD5. A copy goes once it has not been read for some days, which is looked after where copies are
made. Whatever is wrong with one only means that the bucket is asked.
"""

import hashlib
import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from windsock.files import replace_file
from windsock.store import Store

FOLDER = "copies"
"""In the home."""
KEPT_S = 3 * 86_400
_READ_AGAIN_S = 3_600
_FEW = 3
"""So few records are asked for as they are."""
_DIGEST_BYTES = hashlib.sha256().digest_size
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')


def read_files(store: Store, names: Iterable[str]) -> dict[str, bytes]:
    """Return name to bytes of table files that are there: from copies, or from the store, all at once."""
    return _read_many(store, {name: f"{store.root} {name}" for name in names})


def read_records(store: Store, names: Iterable[str]) -> dict[str, bytes]:
    """Return name to bytes of records that are there, all of one folder: from copies, or from the store at once."""
    names = list(names)
    if len(names) <= _FEW or _folder(store) is None:
        return store.read_many(names)
    folder = names[0].rpartition("/")[0]
    found = {f"{folder}/{file}": tag for file, tag in tags(store, folder).items()}
    there = {name: found[name] for name in names if name in found}
    return _read_many(store, {name: md5[1] if (md5 := _MD5.match(tag)) else "" for name, tag in there.items()})


def tags(store: Store, folder: str) -> dict[str, str]:
    """Return the files right in a folder of a store by name, each with what is another one once it was replaced.

    In a bucket that is one request for a thousand files. What a file system tells of none is another one each time.
    """
    path = store.path(folder)
    store.fs.invalidate_cache(path)
    try:
        found = store.fs.ls(path, detail=True)
    except FileNotFoundError:
        return {}
    files = (info for info in found if info["type"] == "file")
    return {str(info["name"]).rsplit("/", 1)[-1]: _tag(info) for info in files}


def _tag(info: Mapping[str, Any]) -> str:
    tag = info.get("ETag") or info.get("etag")
    if not tag and info.get("ino") and info.get("mtime"):
        tag = f"{info['ino']} {info['mtime']}"
    return str(tag or f"unknown {uuid.uuid4()}")


def _folder(store: Store) -> Path | None:
    """Return where copies of a store's objects lie; None: it is here itself, or this is no home but a pod's."""
    home = store.memory.home if store.memory is not None else None
    return home / FOLDER if home is not None and home.is_dir() and not store.is_local else None


def _read_many(store: Store, keys: Mapping[str, str]) -> dict[str, bytes]:
    """Return name to bytes; ``keys`` are the names with that of the copy, an MD5 or any other; empty: there is none."""
    if (folder := _folder(store)) is None:
        return store.read_many(keys)
    copies = {name: folder / hashlib.sha256(key.encode()).hexdigest() for name, key in keys.items() if key}
    found = {name: data for name, path in copies.items() if (data := _read(path)) is not None}
    asked = store.read_many(name for name in keys if name not in found)
    with suppress(OSError):  # a full disk: the next one asks again
        for name, data in asked.items():
            # It may have been replaced since it was listed.
            if name in copies and (
                not _MD5.fullmatch(keys[name]) or hashlib.md5(data, usedforsecurity=False).hexdigest() == keys[name]
            ):
                replace_file(copies[name], hashlib.sha256(data).digest() + data, mode=0o600)
        for path in _unused(folder) if asked and folder.is_dir() else ():
            path.unlink(missing_ok=True)
    return {**found, **asked}


def _read(path: Path) -> bytes | None:
    """Return a copy's content, and note that it was read; None: there is none, or not as it was written."""
    try:
        data = path.read_bytes()
        if time.time() - path.stat().st_mtime > _READ_AGAIN_S:
            os.utime(path)
    except OSError:
        return None
    digest, content = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    return content if hashlib.sha256(content).digest() == digest else None


def _unused(folder: Path) -> Iterator[Path]:
    oldest = time.time() - KEPT_S
    for entry in os.scandir(folder):
        if entry.stat().st_mtime < oldest:
            yield Path(entry.path)
