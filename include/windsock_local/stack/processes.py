"""Starting children that cannot outlive their parent, and ending whole families.

Airflow forks deep, and a parent may die without a word. So the kernel signals each direct child when the supervisor
dies (``PR_SET_PDEATHSIG``), and every process carries ``WINDSOCK_STACK_HOME`` in its environment: ``guardian`` ends
all that do, and so does the next ``up`` or ``down``, should the guardian have been killed as well.
"""

import contextlib
import ctypes
import os
import pwd
import shlex
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

MARKER_VARIABLE = "WINDSOCK_STACK_HOME"
"""Names the home whose stack a process belongs to."""

_LARGEST_LOG_BYTES = 20 * 1024 * 1024
_LEAST_ROOM_BYTES = 16 * 1024 * 1024
_LOG_TAIL_BYTES = 16 * 1024
_PR_SET_PDEATHSIG = 1
# Looked up before any fork: a child between fork and exec must not load libraries.
_prctl: Any = getattr(ctypes.CDLL(None), "prctl", None)


def spawn(
    command: list[str],
    *,
    env: Mapping[str, str],
    log_file: Path,
    cwd: Path,
    death_signal: signal.Signals | None = signal.SIGTERM,
    user: str | None = None,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a child in its own session, its output in a log file; call this from the main thread only.

    The kernel sends ``death_signal`` when the *thread* that forked ends, not the process; with None the child outlives
    its parent. ``env`` is the child's whole environment; never put a secret into ``command``, as ``ps`` shows it.
    Another ``user`` needs root. A large log is put aside first.
    """
    parent = os.getpid()

    def die_with_parent() -> None:
        _prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    if log_file.exists() and log_file.stat().st_size > _LARGEST_LOG_BYTES:
        log_file.replace(log_file.with_name(f"{log_file.name}.1"))
    # The log is opened here: an unprivileged child might not be allowed to.
    with log_file.open("ab") as output:
        output.write(f"--- {datetime.now(UTC).isoformat(timespec='seconds')} {shlex.join(command)}\n".encode())
        output.flush()
        return subprocess.Popen(
            command,
            env=dict(env),
            cwd=cwd,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=None if death_signal is None else die_with_parent,
            **as_user(user),
        )


def as_user(user: str | None) -> dict[str, Any]:
    """Return the arguments that make :mod:`subprocess` run a child as another user."""
    if user is None:
        return {}
    # As a member of root's group it would be shut out by the very folders that let everybody else pass.
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def birth(pid: int) -> int:
    """Return when a process started, in kernel ticks since boot: unlike wall-clock time they stand when it is set.

    Raises:
        psutil.NoSuchProcess: It is gone.
    """
    try:
        # The command's name may hold spaces and brackets: count fields after the last bracket.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return int(fields[19])
    except (OSError, IndexError, ValueError) as err:
        raise psutil.NoSuchProcess(pid) from err


def family(home: Path) -> list[psutil.Process]:
    """Find every living process that carries a home's mark, and whatever descends from one."""
    everything = list(psutil.process_iter(["environ", "ppid"]))
    found = {p.pid for p in everything if (p.info["environ"] or {}).get(MARKER_VARIABLE) == str(home)}
    while more := {p.pid for p in everything if p.info["ppid"] in found} - found:
        found |= more
    return [p for p in everything if p.pid in found and p.pid != os.getpid() and runs(p)]


def session_members(leader_pid: int) -> list[psutil.Process]:
    """Return the living members of a session, whether or not its leader lives."""
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if os.getsid(process.pid) == leader_pid and runs(process):
                members.append(process)
    return members


def descendants(pid: int) -> list[psutil.Process]:
    """Return the children of a process and theirs; none of one that is gone."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def end(processes: Iterable[psutil.Process], sig: signal.Signals, *, wait_seconds: float) -> list[psutil.Process]:
    """Signal processes and wait; returns those that still run afterwards."""
    targets = list(processes)
    for process in targets:
        with contextlib.suppress(psutil.Error):
            process.send_signal(sig)
            process.resume()  # one that is stopped (SIGSTOP) hears of no other signal
    deadline = time.monotonic() + wait_seconds
    while (alive := [p for p in targets if runs(p)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return alive


def log_tail(path: Path, lines: int = 25) -> str:
    """Return the last lines of a log, indented; a remark if there are none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError as err:
        return f"  (cannot be read: {err.strerror})"
    return "\n".join(f"  {line}" for line in text.splitlines()[-lines:]) or "  (empty)"


def has_room(folder: Path) -> bool:
    """Whether the disk of a folder can be written and has some room."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize >= _LEAST_ROOM_BYTES and not found.f_flag & os.ST_RDONLY


def runs(process: psutil.Process) -> bool:
    """Whether a process lives; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
