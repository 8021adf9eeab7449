"""Ending all that is left of a stack: by the supervisor, by ``down`` or the next ``up``, and by the guardian.

The guardian is this module run as a program. It holds one end of a pipe, into which the supervisor writes ``done``
before it leaves in good order; an end without that word means that it was killed, and then the guardian ends the whole
family. It ignores every polite signal, as a Ctrl-C or a logout goes to all of them at once.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from windsock_local.stack.home import GUARDIAN, Home
from windsock_local.stack.processes import end, family, spawn

log = logging.getLogger("windsock_local.stack.guardian")

_DONE = b"done\n"
_TERM_SECONDS = 2.0
_KILL_SECONDS = 3.0
_DATABASE_SECONDS = 6.0


def end_family(home: Home, *, term_seconds: float = _TERM_SECONDS) -> int:
    """End every process of a home's stack but supervisor and guardian, which carry no mark; return how many there were.

    The database goes last and is asked to write everything out. ``term_seconds`` lie between SIGTERM and SIGKILL.
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
    """End what a dead supervisor left behind, its guardian included, and its record; return how many processes ended.

    Call it only while holding the home's lock: then nothing found can be in use.
    """
    info = home.recorded()
    guardian = info.process(GUARDIAN) if info is not None else None
    if guardian is not None:
        end([guardian], signal.SIGKILL, wait_seconds=_KILL_SECONDS)
    ended = end_family(home) + (guardian is not None)
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
        if not end(processes[:1], sig, wait_seconds=_DATABASE_SECONDS):
            return
        log.warning("PostgreSQL in %s did not stop on %s.", home.postgres, sig.name)
    end(database_processes(home), signal.SIGKILL, wait_seconds=_KILL_SECONDS)


def start_guardian(home: Home) -> subprocess.Popen[bytes]:
    """Start a guardian for the calling process; its ``stdin`` is the life line."""
    command, log_file = [sys.executable, "-P", "-m", __name__, str(home.root)], home.supervisor_log
    pipe = subprocess.PIPE
    return spawn(command, env=os.environ, log_file=log_file, cwd=home.root, death_signal=None, stdin=pipe)


def release_guardian(guardian: subprocess.Popen[bytes]) -> None:
    """Tell a guardian that all is done, and wait for it to leave."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        guardian.communicate(_DONE, timeout=5)
    guardian.kill()
    guardian.wait(5)


def main() -> None:
    """Wait for the pipe to end; clean up if it ended without a word."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, signal.SIG_IGN)
    home = Home(Path(sys.argv[1]))
    if sys.stdin.buffer.read().endswith(_DONE):
        return
    log.warning("The supervisor was killed. Ending its processes.")
    ended = end_family(home)
    home.forget_run()
    log.warning("Ended %d processes.", ended)


if __name__ == "__main__":
    main()
