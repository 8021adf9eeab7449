"""Ending all that is left of a stack, whoever asks: guardian, ``down`` or the next ``up``."""

import logging
import signal
from pathlib import Path

import psutil

from windsock_local.stack.layout import Home
from windsock_local.stack.processes import end, family
from windsock_local.stack.state import GUARDIAN, read_recorded

log = logging.getLogger(__name__)

_TERM_SECONDS = 3.0
_KILL_SECONDS = 3.0
_DATABASE_SECONDS = 6.0


def end_family(home: Home, *, term_seconds: float = _TERM_SECONDS) -> int:
    """End every process of a home's stack but its supervisor and its guardian, which carry no mark.

    The database goes last and is asked to write everything out. ``term_seconds`` lie between SIGTERM and SIGKILL.

    Returns:
        How many processes were found.
    """
    database = database_processes(home)
    spared = {p.pid for p in database}

    def others() -> list[psutil.Process]:
        return [p for p in family(home.root) if p.pid not in spared]

    found = others()
    end(found, signal.SIGTERM, wait_seconds=term_seconds)
    # Collected again: what was being forked meanwhile must not slip through.
    for _ in range(3):
        if not (left := others()):
            break
        end(left, signal.SIGKILL, wait_seconds=_KILL_SECONDS)
    _end_database(home)
    return len(found) + len(database)


def end_leftovers(home: Home) -> int:
    """End what a dead supervisor left behind, its guardian included, and its record.

    Call it only while holding the home's lock: then nothing found can be in use.

    Returns:
        How many processes were ended.
    """
    ended = 0
    info = read_recorded(home)
    if info is not None and (guardian := info.parts.get(GUARDIAN)) and (process := guardian.process_id.process()):
        end([process], signal.SIGKILL, wait_seconds=_KILL_SECONDS)
        ended += 1
    ended += end_family(home)
    home.forget_run()
    return ended


def database_processes(home: Home) -> list[psutil.Process]:
    """Return the database server of a home, first, and its children; empty if it is down."""
    try:
        pid = int((home.postgres / "postmaster.pid").read_text(encoding="utf-8").split()[0])
        server = psutil.Process(pid)
        # The number may have been given to another process: a server stands in its data folder.
        if "postgres" not in server.name() or Path(server.cwd()).resolve() != home.postgres.resolve():
            return []
        return [] if server.status() == psutil.STATUS_ZOMBIE else [server, *server.children(recursive=True)]
    except (OSError, ValueError, IndexError, psutil.Error):
        return []


def _end_database(home: Home) -> None:
    """Stop a home's database server: fast shutdown, then immediate, then by force."""
    for sig in (signal.SIGINT, signal.SIGQUIT):
        processes = database_processes(home)
        if not processes or not end(processes[:1], sig, wait_seconds=_DATABASE_SECONDS):
            return
        log.warning("PostgreSQL in %s did not stop on %s.", home.postgres, sig.name)
    end(database_processes(home), signal.SIGKILL, wait_seconds=_KILL_SECONDS)
