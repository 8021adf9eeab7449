"""Where a trainer keeps its progress: small files beside the candidate, each replaced in one step."""

from __future__ import annotations

from windsock.store import Store


class CheckpointFolder(Store):
    """A folder of checkpoints, also in an object store or on a volume that is mounted into a pod."""

    def sub(self, name: str) -> CheckpointFolder:
        """Return a folder inside this one."""
        return CheckpointFolder(self.url(name))

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, or None if it was never written."""
        try:
            return self.read_bytes(name)
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Put a file in place in one step."""
        self.write_bytes(data, name)

    def clear(self) -> None:
        """Remove the folder and everything in it, if it is there."""
        if self.fs.exists(self.path()):
            self.fs.rm(self.path(), recursive=True)
