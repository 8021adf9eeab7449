"""The process that cleans up when the supervisor is killed without a chance to do so.

It holds one end of a pipe. The supervisor writes ``done`` before it leaves in good order;
an end of the pipe without that word means that it was killed, and then this process ends
the whole family within seconds. It ignores every polite signal, as a Ctrl-C or a logout
goes to all of them at once.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

from windsock_local.stack.ending import end_family
from windsock_local.stack.layout import Home
from windsock_local.stack.state import SUPERVISOR

log = logging.getLogger("windsock_local.stack.guardian")

_DONE = b"done\n"
_TERM_SECONDS = 2.0


def start(home: Home) -> subprocess.Popen[bytes]:
    """Start a guardian for the calling process; its ``stdin`` is the life line."""
    with home.log(SUPERVISOR).open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(home.root)],
            env=dict(os.environ),
            cwd=home.root,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def release(guardian: subprocess.Popen[bytes]) -> None:
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
    ended = end_family(home, term_seconds=_TERM_SECONDS)
    home.forget_run()
    log.warning("Ended %d processes.", ended)


if __name__ == "__main__":
    main()
