"""Starting children that cannot outlive their parent, and ending whole families.

Three nets, because Airflow forks deep and a parent may die without a word:

1. the kernel signals each direct child when the supervisor dies (``PR_SET_PDEATHSIG``);
2. every process of a stack carries ``WINDSOCK_STACK_HOME`` in its environment; the guardian
   (``guardian.py``) then ends all that do;
3. so does the next ``up`` or ``down``, should the guardian have been killed as well.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

log = logging.getLogger(__name__)

MARKER_VARIABLE = "WINDSOCK_STACK_HOME"
"""Names the home whose stack a process belongs to."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# Looked up before any fork: a child between fork and exec must not load libraries.
_prctl: Callable[..., int] | None = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


@dataclass(frozen=True)
class ProcessId:
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    birth: int
    """When it started, in kernel ticks since boot: unlike a wall-clock time it
    does not move when the clock is set."""

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """Return the identity of a running process.

        Raises:
            psutil.NoSuchProcess: It is gone.
        """
        return cls(pid, _birth(pid))

    @property
    def alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        return self.process() is not None

    def process(self) -> psutil.Process | None:
        """Return a handle, or ``None`` if the process has ended."""
        try:
            process = psutil.Process(self.pid)
            if _birth(self.pid) != self.birth:
                return None
            return None if process.status() == psutil.STATUS_ZOMBIE else process
        except psutil.Error:
            return None


def spawn(
    command: list[str],
    *,
    env: Mapping[str, str],
    log_file: Path,
    cwd: Path,
    death_signal: signal.Signals = signal.SIGTERM,
    user: str | None = None,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a child in its own session; call this from the main thread only.

    The kernel sends ``death_signal`` when the *thread* that forked ends, which is
    why a helper thread must not start children. ``env`` is the child's whole environment; never put a
    secret into ``command``, as ``ps`` shows it. Another ``user`` needs root.
    """
    parent = os.getpid()

    def die_with_parent() -> None:
        if _prctl is not None:
            _prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
            if os.getppid() != parent:  # it died before the line above
                os._exit(1)

    # The log is opened here: an unprivileged child might not be allowed to.
    with log_file.open("ab") as output:
        return subprocess.Popen(
            command,
            env=dict(env),
            cwd=cwd,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
            **as_user(user),
        )


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose own parent dies."""
    if _prctl is not None:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans(known: Iterable[int]) -> None:
    """Collect adopted children that have ended; ``known`` pids have other owners."""
    mine = set(known)
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error, ChildProcessError):
            if child.pid not in mine and child.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, os.WNOHANG)


def family(home: Path) -> list[psutil.Process]:
    """Find every living process that carries a home's mark, and whatever descends from one."""
    everything = list(psutil.process_iter(["environ", "ppid"]))
    found = {p.pid for p in everything if (p.info["environ"] or {}).get(MARKER_VARIABLE) == str(home)}
    while more := {p.pid for p in everything if p.info["ppid"] in found} - found:
        found |= more
    return [p for p in everything if p.pid in found and p.pid != os.getpid() and _runs(p)]


def session_members(leader_pid: int) -> list[psutil.Process]:
    """Return the living members of a session, whether or not its leader lives."""
    return [p for p in psutil.process_iter() if _session(p.pid) == leader_pid and _runs(p)]


def end(processes: Iterable[psutil.Process], sig: signal.Signals, *, wait_seconds: float) -> list[psutil.Process]:
    """Signal processes and wait; returns those that still run afterwards."""
    targets = list(processes)
    for process in targets:
        with contextlib.suppress(psutil.Error):
            process.send_signal(sig)
    deadline = time.monotonic() + wait_seconds
    while (alive := [p for p in targets if _runs(p)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return alive


def _birth(pid: int) -> int:
    try:
        # The command's name may hold spaces and brackets: count fields after the last bracket.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return int(fields[19])
    except FileNotFoundError:
        return int(psutil.Process(pid).create_time() * 100)
    except (OSError, IndexError, ValueError) as err:
        raise psutil.NoSuchProcess(pid) from err


def as_user(user: str | None) -> dict[str, Any]:
    """Return the arguments that make :mod:`subprocess` run a child as another user.

    The group goes along: as a member of root's group it would be shut out by the very
    folders that let everybody else pass.
    """
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
