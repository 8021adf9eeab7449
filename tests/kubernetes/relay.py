"""A door for pods to a service of this machine that listens where pods cannot reach it.

It listens on this machine's address on the pods' network alone, so that nobody else gets in.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Self

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Target = Callable[[], Awaitable[Streams]]

_BLOCK = 1 << 16


class Relay:
    """Hands every connection on to ``target``.

    Args:
        address: Where to listen; the port is the system's choice.
        target: Opens the connection to the service; ``unix`` and ``tcp`` make one. Until it is set,
            connections are closed at once, as by a service that is away.
        host: For a web server that looks at the header ``Host``: what it expects there.
        parties: The first ones wait until so many pods have knocked, so that all begin together.
    """

    def __init__(self, address: str, target: Target | None = None, *, host: str = "", parties: int = 1) -> None:
        self.address, self.target, self.host, self.parties = address, target, host, parties
        self.port = 0
        self.peers: set[str] = set()
        """Addresses of those who have knocked."""
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def start(self) -> Self:
        """Open the door."""
        self._thread.start()
        assert self._ready.wait(10), f"nothing can listen on {self.address}"
        return self

    def close(self) -> None:
        """Close the door."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, self.address, 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peers.add(writer.get_extra_info("peername")[0])
        try:
            while len(self.peers) < self.parties:
                await asyncio.sleep(0.02)
            if self.target is None:
                return
            there_reader, there_writer = await self.target()
            try:
                to_there = asyncio.create_task(self._pump(reader, there_writer, as_host=self.host))
                await self._pump(there_reader, writer)
                to_there.cancel()
            finally:
                there_writer.close()
        except OSError:
            pass  # one side is gone; the other one notices by its closed connection
        finally:
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, as_host: str = "") -> None:
        own = f"Host: {self.address}:{self.port}\r\n".encode()
        while data := await reader.read(_BLOCK):
            writer.write(data.replace(own, f"Host: {as_host}\r\n".encode()) if as_host else data)
            await writer.drain()


def unix(path: str) -> Target:
    """Return a target that is a Unix socket."""

    async def connect() -> Any:
        return await asyncio.open_unix_connection(path)

    return connect


def tcp(host: str, port: int) -> Target:
    """Return a target that is a TCP port."""

    async def connect() -> Any:
        return await asyncio.open_connection(host, port)

    return connect
