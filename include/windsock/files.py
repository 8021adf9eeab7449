"""Single files of this machine: replaced whole, created at most once, locked between processes.

A reader sees the old bytes or the new ones, also after a kill or a power cut. What a kill leaves beside
its target is named ``.<name>.<random>.tmp``; maintenance removes it.
"""

import fcntl
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_TRIES = 10


def replace_file(path: Path, data: bytes | Iterable[bytes], *, mode: int = 0o666) -> None:
    """Put a file in place in one step, in a folder that is made if need be.

    Args:
        path: The file.
        data: All of its content, whole or in parts.
        mode: Permissions it is born with, less the process's umask (``0o600``: for its owner alone).
    """
    with _written_beside(path, data, mode) as temporary:
        os.replace(temporary, path)


def create_file(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Put a file in place in one step, only if there is none.

    Raises:
        FileExistsError: There is one.
        OSError: The file system has no hard links, by which one of two writers wins.
    """
    with _written_beside(path, data, mode) as temporary:
        os.link(temporary, path)


@contextmanager
def _written_beside(path: Path, data: bytes | Iterable[bytes], mode: int) -> Iterator[Path]:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(_new_file(temporary, mode), "wb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    except OSError as err:
        # A write that fails does not say of which file.
        raise err if err.filename else OSError(err.errno, err.strerror, str(path)) from err
    finally:
        temporary.unlink(missing_ok=True)


def _new_file(path: Path, mode: int) -> int:
    """Open a file that is not there yet, in a folder that is made if need be."""
    for tries_left in reversed(range(_TRIES)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except FileNotFoundError:  # maintenance removed the folder, as it was empty
            if not tries_left:
                raise
    raise AssertionError


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a file's lock (``flock``) for the block; a process that ends, however it ends, lets go of it.

    Without ``wait`` it yields False at once where somebody else holds it; else True.

    Yields:
        Whether the lock is held; False only without waiting.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
