"""A clock that can be moved under a running stack: libfaketime around every part, database and task.

Airflow compares its own clock with the database's, so all must be on the same one; who moves it keeps the machine's.
Monotonic time goes on as it is, and so do the times of files.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from windsock.settings import REPO_ROOT

_LOOK_S = 1
"""How long a process goes on by the clock that it has seen."""
_NAMES = (
    "LD_PRELOAD",
    "FAKETIME_TIMESTAMP_FILE",
    "FAKETIME_CACHE_DURATION",
    "FAKETIME_DONT_FAKE_MONOTONIC",
    "FAKETIME_FORCE_MONOTONIC_FIX",
)
# Debian's 0.9.10 takes the end of an absolute monotonic sleep, as CPython's is, for a time of the moved clock.
_IN_EACH_PROCESS = f"""
import os, subprocess, threading, time

def _sleep(seconds):
    lock = threading.Lock()
    lock.acquire()
    lock.acquire(timeout=max(float(seconds), 0.0))

time.sleep = _sleep

_ours = {{name: os.environ[name] for name in {_NAMES!r} if name in os.environ}}
_init = subprocess.Popen.__init__

def _on_the_clock(self, *arguments, env=None, **more):
    _init(self, *arguments, env=env if env is None else {{**env, **_ours}}, **more)

subprocess.Popen.__init__ = _on_the_clock  # also where a child gets an environment of its own
"""


def library() -> Path | None:
    """Return where libfaketime lies (Debian's package ``faketime``), or None."""
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


@dataclass
class MovedClock:
    """What the processes that are given its :meth:`variables` take for the time."""

    folder: Path
    offset: timedelta = field(default=timedelta(), init=False)
    """By how much it is ahead of the machine's clock."""

    def variables(self, now: datetime) -> dict[str, str]:
        """Set it, and return the variables that put a process on it."""
        self.folder.mkdir(exist_ok=True)
        self.folder.chmod(0o755)  # the database runs as another user
        (self.folder / "sitecustomize.py").write_text(_IN_EACH_PROCESS, encoding="utf-8")
        self._set(now - self.now())
        # Without the last, waiting for the interpreter's lock ends at once, and processes spin: a sixth of the speed.
        values = (str(library()), str(self._file), str(_LOOK_S), "1", "0")
        clock = {**dict(zip(_NAMES, values, strict=True)), "PYTHONPATH": str(self.folder)}
        return {**clock, "WINDSOCK_DAGS_FOLDER": str(self._dags())}

    def _dags(self) -> Path:
        """Return a copy of the DAGs that is older than any time on the clock: else Airflow parses them without end."""
        folder = self.folder / "dags"
        folder.mkdir(exist_ok=True)
        for file in (REPO_ROOT / "dags").glob("*.py"):
            os.utime(shutil.copy(file, folder), (0, 0))
        return folder

    @property
    def _file(self) -> Path:
        return self.folder / "offset"

    def now(self) -> datetime:
        """Return the time on it."""
        return datetime.now(UTC) + self.offset

    def move(self, by: timedelta) -> None:
        """Put it forward, and wait until every process has seen that: what one of them signs is refused by others."""
        self._set(by)
        time.sleep(_LOOK_S + 1)

    def _set(self, by: timedelta) -> None:
        self.offset += by
        new = self.folder / "offset.new"
        new.write_text(f"{self.offset.total_seconds():+.0f}\n", encoding="utf-8")
        new.chmod(0o644)
        new.replace(self._file)
