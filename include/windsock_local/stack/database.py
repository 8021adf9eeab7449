"""The database of a home in which no stack runs: started for a while, by backups, restoring and upgrades."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from windsock.errors import UpstreamUnavailable
from windsock.files import locked
from windsock_local.stack.environment import plain_env
from windsock_local.stack.guardian import end_leftovers
from windsock_local.stack.home import Home
from windsock_local.stack.postgres import Postgres
from windsock_local.stack.processes import log_tail, spawn

_START_SECONDS = 120.0
_STOP_SECONDS = 180.0


@contextmanager
def home_at_rest(home: Home) -> Iterator[None]:
    """Keep a stack from starting in a home for the block.

    Raises:
        UpstreamUnavailable: One runs or starts, or another such block holds it.
    """
    with locked(home.lock_file, wait=False) as free:
        if not free:
            raise UpstreamUnavailable(
                f"A stack runs in {home.root}, or another backup, restoring or upgrade is under way there. Stop the "
                "stack with `windsock down`, or wait for the other command, and run this again."
            )
        end_leftovers(home)
        yield


@contextmanager
def database_alone(home: Home) -> Iterator[Postgres]:
    """Run a home's PostgreSQL for the block, without the rest of the stack; hold :func:`home_at_rest` meanwhile.

    Raises:
        UpstreamUnavailable: It did not start.
    """
    server = Postgres(home)
    server.prepare()
    log_file = home.log("postgres")
    log_file.parent.mkdir(parents=True, exist_ok=True)
    process = spawn(server.command, env=plain_env(), log_file=log_file, cwd=home.postgres, user=server.user)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not server.answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise UpstreamUnavailable(f"PostgreSQL did not start. The end of {log_file}:\n{log_tail(log_file)}")
            time.sleep(0.1)
        server.create_databases()
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(_STOP_SECONDS)  # a last checkpoint on a busy disk
