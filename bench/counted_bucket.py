"""A bucket in memory that counts what it is asked, as an object store would bill it, and lives in simulated days."""

from __future__ import annotations

import hashlib
import io
import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import fsspec
from fsspec.spec import AbstractFileSystem

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
"""Begin of day 0."""
PAGE = 1000
"""Names that one list request returns."""


class CountedBucket(AbstractFileSystem):
    """Objects by name; all instances are one bucket."""

    protocol = "counted"
    cachable = False
    objects: ClassVar[dict[str, tuple[bytes, int]]] = {}
    """Name to content and the day on which it was written."""
    asked: ClassVar[Counter[str]] = Counter()
    """Requests by kind, and bytes ``put``."""
    today: ClassVar[int] = 0
    """The simulated day."""

    @classmethod
    def empty(cls) -> None:
        """Forget everything."""
        cls.objects.clear()
        cls.asked.clear()
        cls.today = 0

    @classmethod
    def now(cls) -> datetime:
        """Return the simulated time."""
        return EPOCH + timedelta(days=cls.today)

    @classmethod
    def requests(cls) -> int:
        """Count all requests so far."""
        return sum(cls.asked[kind] for kind in ("GET", "HEAD", "LIST", "PUT", "DELETE"))

    @classmethod
    def stored(cls) -> int:
        """Count all bytes that lie in it."""
        return sum(len(data) for data, _ in cls.objects.values())

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        return str(path).removeprefix("counted://").strip("/")

    def _entry(self, name: str) -> dict[str, Any]:
        data, written = self.objects[name]
        tag, at = f'"{hashlib.md5(data).hexdigest()}"', EPOCH + timedelta(days=written)
        return {"name": name, "size": len(data), "type": "file", "LastModified": at, "ETag": tag}

    def _below(self, folder: str) -> list[str]:
        return sorted(name for name in self.objects if name.startswith(f"{folder}/"))

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        name = self._strip_protocol(path)
        self.asked["HEAD"] += 1
        if name in self.objects:
            return self._entry(name)
        self.asked["LIST"] += 1
        if name and not self._below(name):
            raise FileNotFoundError(name)
        return {"name": name, "size": 0, "type": "directory"}

    def ls(self, path: str, detail: bool = True, **_: Any) -> Any:
        folder = self._strip_protocol(path)
        found: dict[str, dict[str, Any]] = {}
        for name in self._below(folder):
            child = f"{folder}/{name[len(folder) + 1 :].partition('/')[0]}"
            found[child] = (
                self._entry(child) if child in self.objects else {"name": child, "size": 0, "type": "directory"}
            )
        self.asked["LIST"] += max(1, math.ceil(len(found) / PAGE))
        if not found:
            raise FileNotFoundError(folder)
        return list(found.values()) if detail else list(found)

    def find(self, path: str, maxdepth: Any = None, withdirs: bool = False, detail: bool = False, **_: Any) -> Any:
        names = self._below(self._strip_protocol(path))
        self.asked["LIST"] += max(1, math.ceil(len(names) / PAGE))
        return {name: self._entry(name) for name in names} if detail else names

    def cat_file(self, path: str, start: Any = None, end: Any = None, **_: Any) -> bytes:
        self.asked["GET"] += 1
        try:
            return self.objects[self._strip_protocol(path)][0][start:end]
        except KeyError:
            raise FileNotFoundError(path) from None

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        name = self._strip_protocol(path)
        self.asked["PUT"] += 1
        if mode == "create" and name in self.objects:
            raise FileExistsError(name)
        self.asked["bytes"] += len(value)
        self.objects[name] = (bytes(value), self.today)

    def rm_file(self, path: str) -> None:
        self.asked["DELETE"] += 1
        if self.objects.pop(self._strip_protocol(path), None) is None:
            raise FileNotFoundError(path)

    def rm(self, path: Any, recursive: bool = False, maxdepth: Any = None) -> None:
        names = [path] if isinstance(path, str) else path
        for name in (self._strip_protocol(name) for name in names):
            for each in [name, *(self._below(name) if recursive else ())]:
                self.objects.pop(each, None)
        self.asked["DELETE"] += max(1, math.ceil(len(names) / PAGE))

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        assert mode == "rb", mode
        return io.BytesIO(self.cat_file(path))

    def modified(self, path: str) -> datetime:
        return self.info(path)["LastModified"]  # type: ignore[no-any-return]


fsspec.register_implementation("counted", CountedBucket, clobber=True)
