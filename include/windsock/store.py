"""The store: one folder or bucket, reached through fsspec, that holds tables, ledgers and run folders.

Single objects are replaced atomically: a reader sees the old bytes or the new ones.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from windsock.errors import DamagedRecord, SpecError, UpstreamUnavailable, WindsockError
from windsock.faults import fault_behind, file_system, found_below
from windsock.files import create_file, replace_file
from windsock.format_numbers import FIRST, KEY, RESTORING, WROTE, check_marker, new_marker, taken
from windsock.redact import redact, redact_line
from windsock.settings import Settings
from windsock.store_memory import MARK, StoreMemory

MEND = "Put back what lay there from a backup, or run again the step that writes it."
MARKER = "windsock.json"
"""At the root of a store: the format in which it is laid out, and its mark, which no other store has."""

Record = TypeVar("Record")

_opened: set[tuple[str, StoreMemory]] = set()
_marked: set[str] = set()
"""Stores whose marker this process has read, and written or found: one look each, also in a bucket."""
_WITH_BUCKETS = ("s3", "s3a", "gs", "gcs", "az", "abfs")
"""File systems that answer for a bucket that is not there as for an empty one."""


@dataclass(frozen=True)
class Store:
    """Paths and atomic objects in one folder under a root URL."""

    root: str
    memory: StoreMemory | None = field(default=None, compare=False)
    """Of an installation's store, which has a marker: what is remembered of it; None: it is just some folder."""
    prefix: str = ""
    """Folder below the root that it is about; empty: the root itself."""

    @classmethod
    def of(cls, settings: Settings) -> Store:
        """Return the store that the settings name."""
        return cls(settings.store.rstrip("/"), StoreMemory.of(settings))

    @cached_property
    def fs(self) -> Any:
        """The fsspec file system of the root.

        Raises:
            SpecError: The root is no folder or URL, or the store was laid out by a version that this one does not know,
                or it is another one than the installation's.
            UpstreamUnavailable: The store cannot be read, or is gone.
        """
        try:
            fs = file_system(self.root)[0]
        except (ValueError, ImportError) as err:  # another scheme, or one whose library is not here
            raise SpecError(
                f"{redact(self.root)}: cannot be opened: {redact_line(err).rstrip('.')}. "
                "Give a folder, or a URL such as s3://bucket/prefix."
            ) from err
        if self.memory is not None and (self.root, self.memory) not in _opened:
            self._open(self.memory)
        return fs

    def look(self, *, earlier: bool = False) -> None:
        """Look whether the store can be used, and raise as :attr:`fs` does; ``earlier`` takes older layouts, too."""
        if earlier and self.memory is not None:
            self._open(self.memory, earlier=True)
        _ = self.fs

    def _open(self, memory: StoreMemory, *, earlier: bool = False) -> None:
        marker = self.said()
        if RESTORING not in marker:
            memory.compare(marker.get(MARK), self.root)
        check_marker("store", marker and {KEY: "none", **marker}, Store(self.root).url(MARKER), earlier=earlier)
        _opened.add((self.root, memory))
        if MARK in marker:
            _marked.add(self.root)

    def said(self) -> dict[str, Any]:
        """Return what the marker at the root says, which version 0.1 did not write; nothing if here is no store.

        It is the first object of all that are read: errors of libraries become a sentence here.
        """
        root = Store(self.root)
        fs, path = root.fs, root.path()
        try:
            return dict(json.loads(fs.cat_file(f"{path}/{MARKER}")))
        except FileNotFoundError:
            bucket = path.partition("/")[0]
            if fs.protocol[0] in _WITH_BUCKETS and not fs.exists(bucket):
                raise SpecError(
                    f"{redact(self.root)}: there is no bucket {bucket!r}, or it may not be listed. Check "
                    "WINDSOCK_STORE, the address of the object store and the access rights."
                ) from None
            first = any(root.exists(model, "ledger") for model in root.folders())
            return {KEY: 1, WROTE: FIRST} if first else {}
        except Exception as err:  # each kind of store has errors of its own
            if (told := fault_behind(err)) is not None:
                raise type(told)(f"{redact(self.root)}: {told}") from err
            why = f"{type(err).__name__}: {redact_line(err).rstrip('.')}"
            fault = f"The store {redact(self.root)} cannot be read: {why}."
            if isinstance(err, NotADirectoryError):
                step = "Set WINDSOCK_STORE to a folder, or to a URL such as s3://bucket/prefix."
                raise SpecError(f"{fault} {step}") from err
            step = "Check the address in WINDSOCK_STORE, the credentials and the access rights."
            raise UpstreamUnavailable(f"{fault} {step}") from err

    @property
    def is_local(self) -> bool:
        """Whether the root is a folder of this machine."""
        return "://" not in self.root or self.root.startswith("file://")

    def url(self, *parts: str) -> str:
        """Return the full path or URL of something in the folder."""
        return "/".join(filter(None, (self.root.removeprefix("file://"), self.prefix, *parts)))

    def path(self, *parts: str) -> str:
        """Return the path that ``fs`` understands."""
        return str(self.fs._strip_protocol(self.url(*parts)))

    def exists(self, *parts: str) -> bool:
        """Say whether an object or folder exists."""
        return bool(self.fs.exists(self.path(*parts)))

    def read_bytes(self, *parts: str) -> bytes:
        """Return an object's bytes.

        Raises:
            FileNotFoundError: There is no such object.
        """
        return bytes(self.fs.cat_file(self.path(*parts), **self._whole))

    def read_many(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return name to bytes of the objects that are there, asked for all at once in an object store."""
        paths = {name: self.path(name) for name in names}
        found = self.fs.cat(list(paths.values()), on_error="return", **self._whole) if paths else {}
        for answer in found.values():
            if isinstance(answer, Exception) and not isinstance(answer, FileNotFoundError):
                raise answer
        return {name: found[path] for name, path in paths.items() if isinstance(found[path], bytes)}

    @property
    def _whole(self) -> dict[str, int]:
        """What makes s3fs read a whole object by one request, instead of asking for its size first."""
        return {"max_concurrency": 1} if self.fs.protocol[0] == "s3" else {}

    def files(self, *parts: str) -> list[str]:
        """List the files below a folder, in order, by their paths from there; none if there is no folder."""
        folder = self.path(*parts).rstrip("/")
        return sorted(name[len(folder) :].lstrip("/") for name in found_below(self.fs, folder))

    def json_names(self, *parts: str) -> list[str]:
        """List the JSON objects right in a folder, without their ending; none if there is no folder."""
        names = (str(entry["name"]).rsplit("/", 1)[-1] for entry in self._entries(*parts))
        return sorted(n.removesuffix(".json") for n in names if n.endswith(".json") and not n.startswith("."))

    def folders(self, *parts: str) -> list[str]:
        """List the names of the folders right in a folder; none if there is no folder."""
        entries = self._entries(*parts)
        return sorted(str(e["name"]).rstrip("/").rsplit("/", 1)[-1] for e in entries if e["type"] == "directory")

    def _entries(self, *parts: str) -> list[dict[str, Any]]:
        """List what lies right in a folder; nothing if there is no folder."""
        folder = self.path(*parts)
        self.fs.invalidate_cache(folder)
        try:
            return list(self.fs.ls(folder, detail=True))
        except FileNotFoundError:
            return []

    def write_bytes(self, data: bytes, *parts: str) -> None:
        """Put an object in place in one step; a kill leaves the old one or the new one."""
        self._mark()
        target = self.path(*parts)
        if self.is_local:
            replace_file(Path(target), data)
        else:
            self.fs.pipe_file(target, data)  # an object store's PUT is atomic

    def create_bytes(self, data: bytes, *parts: str) -> None:
        """Create an object with its whole content, only if there is none: of several writers exactly one does.

        Raises:
            FileExistsError: There is one.
            UpstreamUnavailable: The object store did not take it.
        """
        target = self.path(*parts)
        if self.is_local:
            try:
                create_file(Path(target), data)
            except FileExistsError:
                raise
            except OSError as err:
                raise fault_behind(err) or WindsockError(
                    f"{target}: could not be put in place ({err.strerror}). It needs hard links, so that only one of "
                    "two writers wins: put WINDSOCK_STORE on a local disk with room, or in an object store."
                ) from err
            return
        try:
            self.fs.pipe_file(target, data, mode="create")  # PUT with If-None-Match: *
        except OSError as err:
            # What did a refused or broken PUT leave: ours (its answer was lost), another's, or nothing?
            try:
                there = self.read_bytes(*parts)
            except FileNotFoundError:
                raise fault_behind(err) or UpstreamUnavailable(
                    f"{self.url(*parts)}: the object store did not take it ({err}). Run the step again."
                ) from err
            if there != data:
                raise FileExistsError(self.url(*parts)) from err

    def _mark(self) -> None:
        """Give an installation's store its marker, before the first object that this process writes."""
        if self.memory is not None and self.root not in _marked:
            self.look()
            root = Store(self.root)
            content = new_marker("store", {MARK: uuid.uuid4().hex})
            with suppress(FileExistsError):
                root.create_bytes(to_json(content), MARKER)
            self.memory.compare(root.read_json(MARKER)[MARK], self.root)
            _marked.add(self.root)

    def remove(self, *parts: str) -> None:
        """Remove an object in one step; that it is gone already is no error."""
        with suppress(FileNotFoundError):
            self.fs.rm_file(self.path(*parts))

    def read_json(self, *parts: str, mend: str = MEND) -> dict[str, Any]:
        """Return the JSON object that a file holds; ``mend`` says what to do if it is damaged.

        Raises:
            FileNotFoundError: There is no such file.
            DamagedRecord: It holds something else.
        """
        return self.as_json(self.read_bytes(*parts), *parts, mend=mend)

    def as_json(self, data: bytes, *parts: str, mend: str = MEND) -> dict[str, Any]:
        """Return the JSON object that a file's bytes are as :meth:`read_json` does."""
        where = self.url(*parts)
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as err:
            raise damaged(where, f"it is no JSON: {err}", mend) from err
        if not isinstance(found, dict):
            raise damaged(where, "it is no JSON object", mend)
        return found

    def read_record(self, kind: str, form: type[Record], *parts: str, mend: str = MEND) -> Record:
        """Return a file with a format number as the dataclass that it was written from; ``mend`` as above.

        Raises:
            FileNotFoundError: There is no such file.
            DamagedRecord: It is no such record, or another than its hash says.
            SpecError: It is of a format that this version does not read.
        """
        return self.as_record(kind, form, self.read_json(*parts, mend=mend), *parts, mend=mend)

    def as_record(self, kind: str, form: type[Record], raw: dict[str, Any], *parts: str, mend: str = MEND) -> Record:
        """Return what a file was found to hold as :meth:`read_record` does."""
        where = self.url(*parts)
        content = taken(kind, raw, where)
        try:
            record: Record = _reader(form).validate_python(content)  # type: ignore[arg-type]  # a class is hashable
        except ValidationError as err:
            faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in err.errors())
            raise damaged(where, f"it is no {kind}: {'; '.join(faults)[:200]}", mend) from err
        if "content_hash" in content and content["content_hash"] != getattr(record, "content_hash", None):
            raise damaged(where, "its content is not what the hash beside it says", mend)
        return record

    def write_json(self, value: Any, *parts: str) -> None:
        """Write a value as JSON in one step, with sorted keys, so that equal values give equal bytes."""
        self.write_bytes(to_json(value), *parts)


def damaged(where: str, fault: str, mend: str = MEND) -> DamagedRecord:
    """Return the error for an object that is damaged: where it lies, what is wrong with it, what to do."""
    return DamagedRecord(f"{where}: is damaged: {fault.rstrip('.')}. {mend}")


@cache
def _reader(form: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(form)


def to_json(value: Any) -> bytes:
    """Return the canonical JSON bytes of a value."""
    return (json.dumps(value, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()
