"""Ending all that is left of a stack, whoever asks: guardian, ``down`` or the next ``up``."""

from __future__ import annotations

import logging
import signal
from pathlib import Path

import psutil

from windsock_local.stack.layout import Home
from windsock_local.stack.parts import POSTGRES
from windsock_local.stack.processes import ProcessId, end, family
from windsock_local.stack.state import GUARDIAN, SUPERVISOR, StackInfo, read_recorded

log = logging.getLogger(__name__)

_TERM_SECONDS = 3.0
_KILL_SECONDS = 3.0
_DATABASE_SECONDS = 6.0


def end_family(home: Home, info: StackInfo | None, *, term_seconds: float = _TERM_SECONDS) -> int:
    """End every process of a home's stack but its supervisor and its guardian.

    The database goes last and is asked to write everything out.

    Args:
        home: Whose processes.
        info: The recorded stack, if there is a record.
        term_seconds: Patience between SIGTERM and SIGKILL.

    Returns:
        How many processes were found.
    """
    leaders: list[ProcessId] = []
    if info is not None:
        keep = {SUPERVISOR, GUARDIAN, POSTGRES}
        leaders = [part.process_id for name, part in info.parts.items() if name not in keep]
    database = database_processes(home)
    spared = {p.pid for p in database} | _watchers(info)

    def others() -> list[psutil.Process]:
        return [p for p in family(leaders, home.root) if p.pid not in spared]

    found = others()
    end(found, signal.SIGTERM, wait_seconds=term_seconds)
    # Collected again: what was being forked meanwhile must not slip through.
    for _ in range(3):
        if not (left := others()):
            break
        end(left, signal.SIGKILL, wait_seconds=_KILL_SECONDS)
    end_database(home)
    return len(found) + len(database)


def end_leftovers(home: Home) -> int:
    """End what a dead supervisor left behind, its guardian included, and its record.

    Call it only while holding the home's lock: then nothing found can be in use.

    Returns:
        How many processes were ended.
    """
    info = read_recorded(home)
    ended = 0
    if info is not None and (guardian := info.parts.get(GUARDIAN)) and (process := guardian.process_id.process()):
        end([process], signal.SIGKILL, wait_seconds=_KILL_SECONDS)
        ended += 1
    ended += end_family(home, info)
    home.state_file.unlink(missing_ok=True)
    home.scheduler_ready_file.unlink(missing_ok=True)
    return ended


def database_processes(home: Home) -> list[psutil.Process]:
    """Return the database server of a home, first, and its children; empty if it is down."""
    try:
        pid = int((home.postgres / "postmaster.pid").read_text(encoding="utf-8").split()[0])
        server = psutil.Process(pid)
        # The number may have been given to another process: a server stands in its data folder.
        if "postgres" not in server.name() or Path(server.cwd()).resolve() != home.postgres.resolve():
            return []
        if server.status() == psutil.STATUS_ZOMBIE:
            return []
        return [server, *server.children(recursive=True)]
    except (OSError, ValueError, IndexError, psutil.Error):
        return []


def end_database(home: Home) -> None:
    """Stop a home's database server: fast shutdown, then immediate, then by force."""
    for sig in (signal.SIGINT, signal.SIGQUIT):
        processes = database_processes(home)
        if not processes or not end(processes[:1], sig, wait_seconds=_DATABASE_SECONDS):
            return
        log.warning("PostgreSQL in %s did not stop on %s.", home.postgres, sig.name)
    end(database_processes(home), signal.SIGKILL, wait_seconds=_KILL_SECONDS)


def _watchers(info: StackInfo | None) -> set[int]:
    return {info.parts[name].pid for name in (SUPERVISOR, GUARDIAN) if info and name in info.parts}
