"""A Redis of the benches' own, and a relay before it that drops some calls."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.stack import free_ports

_HOST = "127.0.0.1"


@contextmanager
def redis_server(folder: Path) -> Iterator[int]:
    """Run an empty server until the block ends; yield its port.

    Raises:
        FileNotFoundError: There is no ``redis-server`` (Debian's package of that name).
    """
    program = shutil.which("redis-server")
    if program is None:
        raise FileNotFoundError("redis-server is not here (apt-get install redis-server)")
    (port,) = free_ports(1)
    folder.mkdir(parents=True, exist_ok=True)
    own = ["--bind", _HOST, "--port", str(port), "--dir", str(folder), "--save", "", "--logfile", "redis.log"]
    process = subprocess.Popen([program, *own])
    try:
        while process.poll() is None:
            with suppress(OSError), socket.create_connection((_HOST, port)):
                break
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait()


class FaultyLine:
    """Passes bytes on, and instead of some calls ends the connection that they came by."""

    def __init__(self, target: int, dice: random.Random) -> None:
        self._target, self._dice = target, dice
        self.share = 0.0
        """Of the calls that do not arrive."""
        self.calls = self.failed = 0
        self._server = socket.create_server((_HOST, 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Take no connection any more."""
        self._server.close()

    def _serve(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._server.accept()
                server = socket.create_connection((_HOST, self._target))
                for ends, calls in (((client, server), True), ((server, client), False)):
                    threading.Thread(target=self._pass_on, args=(*ends, calls), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, calls: bool) -> None:
        with suppress(OSError), source, target:
            while data := source.recv(1 << 16):
                call = calls and b"SETINFO" not in data  # a client that connects introduces itself
                self.calls += call
                if call and self._dice.random() < self.share:
                    self.failed += 1
                    return
                target.sendall(data)
