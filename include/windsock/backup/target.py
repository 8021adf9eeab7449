"""Where backups lie, in a folder or a bucket: each content once, and of each backup a manifest, written last.

``files/<2 digits>/<sha256>`` are the contents, ``<time>.json`` are the manifests: name to hash. So backups share what
did not change between them, nothing that an earlier one needs is ever written over, and one that was cut off has no
manifest: nobody takes it for a backup, and the next one finds what it had brought.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from windsock import __version__
from windsock.days import utc_now
from windsock.errors import DamagedRecord, SpecError
from windsock.files import replace_file
from windsock.format_numbers import numbered
from windsock.listing import listed
from windsock.redact import redact
from windsock.store import Store, to_json

FILES = "files"
_WHOLE_BYTES = 32 << 20
"""Larger files go in parts of this size."""


@dataclass(frozen=True)
class Entry:
    """One file of a backup."""

    sha256: str
    size: int
    stamp: str = ""
    """What told that the file had not changed, where it lay."""


@dataclass(frozen=True)
class Manifest:
    """One whole backup."""

    made_at: str
    """UTC; also its name."""
    store: str
    """Address of the store, without secrets."""
    home: str
    mark: str
    """The store's mark."""
    files: Mapping[str, Entry]
    """``store/<path>``, ``home/<path>`` and ``databases/<name>`` to what lay there."""
    windsock: str = __version__
    """Version that made it; from before an upgrade, the one that goes on with it."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Packages whose tables the databases hold, and their versions."""
    at_rest: bool = False
    """Whether nothing ran meanwhile: then online features are part of it."""

    def part(self, name: str) -> dict[str, Entry]:
        """Return the files below a folder, by their paths from there."""
        return {path[len(name) + 1 :]: entry for path, entry in self.files.items() if path.startswith(f"{name}/")}

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files.values())


class Target:
    """A place that keeps backups."""

    def __init__(self, url: str) -> None:
        self.store = Store(url.rstrip("/") if "://" in url else str(Path(url).expanduser().absolute()))
        self._there: set[str] | None = None
        self.brought = 0
        """Bytes that were not there yet."""

    def __str__(self) -> str:
        return redact(self.store.root)

    def names(self) -> list[str]:
        """List the backups that are whole, the oldest first."""
        return self.store.json_names()

    def manifest(self, name: str | None = None) -> Manifest:
        """Return a backup, by default the newest.

        Raises:
            SpecError: There is none, none of that name, or only one that was cut off.
        """
        names = self.names()
        if name is None and not names:
            if listed(self.store, FILES):
                raise SpecError(
                    f"{self}: this backup is unfinished, as it has no manifest: it was cut off, or is being made. "
                    "Run `windsock backup` again, which goes on with it; nothing can be restored from it."
                )
            raise SpecError(f"{self}: here is no backup. Give the folder or URL that `windsock backup` was given.")
        if name is not None and name not in names:
            raise SpecError.unknown("backup", name, names, str(self))
        return self.store.read_record("backup", Manifest, f"{name or names[-1]}.json", mend="Restore an earlier one.")

    def keep(self, data: bytes, stamp: str = "") -> Entry:
        """Keep a content, unless it is there."""
        entry = Entry(hashlib.sha256(data).hexdigest(), len(data), stamp)
        self._put(entry, [data])
        return entry

    def keep_file(self, fs: Any, path: str, size: int, stamp: str = "") -> Entry:
        """Keep the content of a file; of a large one only a part is in memory.

        Raises:
            FileNotFoundError: It is gone.
        """
        if size <= _WHOLE_BYTES:
            return self.keep(bytes(fs.cat_file(path)), stamp)
        digest, read = hashlib.sha256(), 0
        for data in _chunks(fs, path):
            digest.update(data)
            read += len(data)
        entry = Entry(digest.hexdigest(), read, stamp)
        self._put(entry, _checked(_chunks(fs, path), entry, path))
        return entry

    def has(self, entry: Entry) -> bool:
        """Say whether a content is there already."""
        if self._there is None:
            self._there = {f"{file.name} {file.size}" for file in listed(self.store, FILES)}
        return f"{'/'.join(_place(entry))} {entry.size}" in self._there

    def _put(self, entry: Entry, data: Iterable[bytes]) -> None:
        if self.has(entry):
            return
        write(self.store, "/".join(_place(entry)), entry.size, data, mode=0o600)
        assert self._there is not None
        self._there.add(f"{'/'.join(_place(entry))} {entry.size}")
        self.brought += entry.size

    def parts(self, entry: Entry, name: str) -> Iterator[bytes]:
        """Yield the content of a file in parts.

        Raises:
            DamagedRecord: It is not, or no longer, what was backed up.
        """
        path = self.store.path(*_place(entry))
        try:
            yield from _checked(_chunks(self.store.fs, path), entry, name)
        except FileNotFoundError as err:
            raise DamagedRecord(
                f"{self}: the content of {name} ({entry.sha256[:12]}) is missing in this backup. Name an earlier one."
            ) from err

    def finish(self, manifest: Manifest) -> str:
        """Make a backup whole by its manifest, and return its name."""
        name = manifest.made_at
        self.store.create_bytes(to_json(numbered("backup", to_jsonable_python(manifest))), f"{name}.json")
        return name


def time_name() -> str:
    """Return a name for a backup that is begun now; in order of names is in order of times."""
    return utc_now().strftime("%Y-%m-%dT%H-%M-%S.%fZ")


def write(store: Store, name: str, size: int, data: Iterable[bytes], *, mode: int = 0o666) -> None:
    """Put a file in place in one step, from its content in parts; an error in these leaves nothing there."""
    if store.is_local:
        replace_file(Path(store.path(name)), data, mode=mode)
    elif size <= _WHOLE_BYTES:
        store.write_bytes(b"".join(data), name)
    else:
        try:
            with store.fs.open(store.path(name), "wb") as file:
                file.writelines(data)
        except BaseException:
            store.remove(name)
            raise


def holds(store: Store, name: str, entry: Entry) -> bool:
    """Say whether a file of a store has a content."""
    digest = hashlib.sha256()
    for data in _chunks(store.fs, store.path(name)):
        digest.update(data)
    return digest.hexdigest() == entry.sha256


def _place(entry: Entry) -> tuple[str, str, str]:
    return FILES, entry.sha256[:2], entry.sha256


def _chunks(fs: Any, path: str) -> Iterator[bytes]:
    with fs.open(path, "rb") as file:
        while data := file.read(_WHOLE_BYTES):
            yield data


def _checked(chunks: Iterator[bytes], entry: Entry, name: str) -> Iterator[bytes]:
    """Pass a content on, and fail at its end if it is another one: then whoever writes it has not put it in place."""
    digest = hashlib.sha256()
    for data in chunks:
        digest.update(data)
        yield data
    if digest.hexdigest() != entry.sha256:
        raise DamagedRecord(
            f"{name}: its content has hash {digest.hexdigest()[:12]}, not {entry.sha256[:12]}: it was damaged, or "
            "changed while it was read. Run it again; if it stays so, name an earlier backup."
        )
