"""A disk of a few megabytes that is this process's own, to be filled up or made read-only.

It is a file system in memory, mounted where only this process and its children see it. Call it in a process that has
one thread and is done afterwards, such as a child of the fork server.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000


class SmallDisk:
    """The mounted disk.

    Raises:
        OSError: This system lets nobody mount one.
    """

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder, self._filler = folder, folder / ".filler"
        user, group = os.geteuid(), os.getegid()
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS | (_CLONE_NEWUSER if user else 0)):
            raise OSError(ctypes.get_errno(), "no file systems of one's own here")
        if user:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {user} 1")
            Path("/proc/self/gid_map").write_text(f"0 {group} 1")
        folder.mkdir(parents=True, exist_ok=True)
        self._mount("--make-rprivate", "/")
        self._mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder))

    def leave(self, free: int | None) -> None:
        """Leave so many bytes free, to the page; None: all that nobody else uses."""
        self._filler.unlink(missing_ok=True)
        found = os.statvfs(self.folder)
        if free is not None and (rest := found.f_bavail * found.f_frsize - free) > 0:
            with self._filler.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, rest)

    def make_read_only(self, read_only: bool) -> None:
        """Let nobody write, or all again."""
        self._mount("-o", f"remount,{'ro' if read_only else 'rw'}", str(self.folder))

    @staticmethod
    def _mount(*arguments: str) -> None:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(done.returncode, done.stderr.strip())
