"""The process that cleans up when the supervisor is killed without a chance to do so.

It holds one end of a pipe. The supervisor writes ``done`` before it leaves in good order;
an end of the pipe without that word means that it was killed, and then this process ends
the whole family within seconds. It ignores every polite signal, as a Ctrl-C or a logout
goes to all of them at once.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import subprocess
import sys

from windsock.settings import Settings
from windsock_local.stack.ending import end_family
from windsock_local.stack.layout import Home
from windsock_local.stack.state import read_recorded

log = logging.getLogger("windsock_local.stack.guardian")

DONE = b"done\n"
_TERM_SECONDS = 2.0


def start(home: Home, env: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a guardian for the calling process; its ``stdin`` is the life line."""
    with home.log("supervisor").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            env=env,
            cwd=home.root,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def release(guardian: subprocess.Popen[bytes]) -> None:
    """Tell a guardian that all is done, and wait for it to leave."""
    if guardian.stdin is not None:
        with contextlib.suppress(OSError):
            guardian.stdin.write(DONE)
            guardian.stdin.flush()
            guardian.stdin.close()
    try:
        guardian.wait(5)
    except subprocess.TimeoutExpired:
        guardian.kill()
        guardian.wait(5)


def main() -> None:
    """Wait for the pipe to end; clean up if it ended without a word."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, signal.SIG_IGN)
    home = Home.of(Settings.from_env())
    if sys.stdin.buffer.read().endswith(DONE):
        return
    log.warning("The supervisor was killed. Ending its processes.")
    ended = end_family(home, read_recorded(home), term_seconds=_TERM_SECONDS)
    home.state_file.unlink(missing_ok=True)
    log.warning("Ended %d processes.", ended)


if __name__ == "__main__":
    main()
