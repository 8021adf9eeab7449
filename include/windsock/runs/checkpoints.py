"""Where a trainer keeps its progress: small files beside the candidate, each replaced in one step.

A folder (also one mounted into a pod) or any object store. A reader finds the old bytes
or the new ones, never a mixture, wherever the writer was killed.
"""

from __future__ import annotations

from dataclasses import dataclass

from windsock.store import Store


@dataclass(frozen=True)
class CheckpointFolder:
    """One folder of checkpoints."""

    url: str

    def sub(self, name: str) -> CheckpointFolder:
        """Return a folder inside this one."""
        return CheckpointFolder(f"{self.url.rstrip('/')}/{name}")

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, or None if it was never written."""
        try:
            return self._store.read_bytes(name)
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Put a file in place in one step."""
        self._store.write_bytes(data, name)

    def clear(self) -> None:
        """Remove the folder and everything in it, if it is there."""
        if self._store.fs.exists(self._store.path()):
            self._store.fs.rm(self._store.path(), recursive=True)

    @property
    def _store(self) -> Store:
        return Store(self.url.rstrip("/"))
