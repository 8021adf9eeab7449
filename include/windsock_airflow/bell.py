"""A bell that wakes the scheduler the moment something has changed, so that it may sleep while nothing happens.

The API server rings a named pipe after each call that writes, which is how people, tasks and asset events reach the
database; the warm executor waits on the pipe between two of the scheduler's looks (docs/adr/0011). A ring that is lost
costs seconds: the scheduler still looks by itself, though seldom.
"""

import contextlib
import os
import stat
from collections.abc import Awaitable, Callable, MutableMapping
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

BELL_VARIABLE = "WINDSOCK_SCHEDULER_BELL"
"""Names the pipe; without it nobody rings and nobody waits."""

_READ_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Bell:
    """The waiting side, held by the scheduler; makes the pipe, for this user only, if it is not there."""

    def __init__(self, path: Path) -> None:
        if not (path.exists() and stat.S_ISFIFO(path.stat().st_mode)):
            path.unlink(missing_ok=True)
            os.mkfifo(path, 0o600)
        # Also open for writing: a pipe whose last writer has gone would be readable for ever.
        self._pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def wait(self, seconds: float, *others: Any) -> bool:
        """Say whether there was a ring, or one of some other connections can be read, within so many seconds."""
        happened = wait([self._pipe, *others], seconds)
        if self._pipe in happened:
            os.read(self._pipe, 65536)  # many rings are one
        return bool(happened)


def ring(path: str) -> None:
    """Wake whoever waits at a bell; nobody there, or a bell that rings already, is fine."""
    with contextlib.suppress(OSError):
        pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.write(pipe, b"!")
        finally:
            os.close(pipe)


class RingAfterChange:
    """ASGI middleware of Airflow's API server: rings once a call that may have changed something is through.

    Of the calls that tasks make, only those that end a try let the scheduler go on.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app
        self._bell = os.environ.get(BELL_VARIABLE, "")

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Pass the call on, then ring: only by then has its transaction been committed."""
        await self._app(scope, receive, send)
        if self._bell and scope["type"] == "http" and _may_wake(scope["method"], scope["path"]):
            ring(self._bell)


def _may_wake(method: str, path: str) -> bool:
    return method not in _READ_METHODS and (path.endswith("/state") or not path.startswith("/execution/"))
