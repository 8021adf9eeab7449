"""A server on loopback that speaks as much of Slack's API as alerts use, good days and bad.

Run it by itself for a stack that should talk to it: ``python tests/fake_slack.py 18099``
prints each message as one JSON line.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs

TOKEN = "xoxb-1234567890-not-a-real-token"


class FakeSlack:
    """``chat.postMessage`` and ``chat.update`` with a chosen behaviour; use it as a context manager.

    It refuses what Slack refuses: blocks beyond its limits, threads and heads that are not there.

    Args:
        behaviour: ``ok``; ``error`` (``invalid_auth``); ``server_error`` (HTTP 500, no JSON);
            ``rate_limited`` (HTTP 429 once, then ok); ``always_rate_limited``; ``hang`` (accepts and says
            nothing); ``slow`` (answers after two seconds); ``no_blocks``
            (refuses blocks); ``drip`` (a byte a second, for ever); ``echo_token`` (an error that repeats the token).
        retry_after: Seconds that a rate limit asks for.
        port: Default: a free one.
        token: The token that is accepted.
    """

    def __init__(self, behaviour: str = "ok", *, retry_after: int = 1, port: int = 0, token: str = TOKEN) -> None:
        self.behaviour = behaviour
        self.retry_after = retry_after
        self.token = token
        self.messages: list[dict[str, Any]] = []
        """Messages that were taken, as they stand now, replies among them."""
        self.channels_away: set[str] = set()
        self.refuse: Callable[[str, dict[str, Any]], str | None] = lambda method, message: None
        """Returns the error that a call of a method is refused with, or None."""
        self.requests = 0
        self.closing = threading.Event()
        self.echo = False
        self._listen(port)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/api/"

    def _listen(self, port: int) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self.server.daemon_threads = True

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._hang_up()

    def _hang_up(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Refuse every connection until the block ends."""
        self._hang_up()
        try:
            yield
        finally:
            self._listen(self.server.server_address[1])
            self.__enter__()

    @property
    def env(self) -> dict[str, str]:
        """Settings that send alerts here."""
        return {
            "WINDSOCK_SLACK_API_URL": self.url,
            "WINDSOCK_SLACK_TOKEN": self.token,
            "WINDSOCK_SLACK_CHANNEL": "#alerts",
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        slack = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                slack.requests += 1
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                slack._answer(self, body)

            def log_message(self, *_: object) -> None:
                """Stay silent."""

        return Handler

    def _answer(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        if self.behaviour == "hang":
            self.closing.wait(30)
            return
        if self.behaviour == "drip":
            self._drip(request)
            return
        if self.behaviour == "server_error":
            _reply(request, 500, b"upstream is away", kind="text/plain")
            return
        if self.behaviour == "always_rate_limited" or (self.behaviour == "rate_limited" and self.requests == 1):
            _reply(request, 429, {"ok": False, "error": "ratelimited"}, {"Retry-After": str(self.retry_after)})
            return
        if self.behaviour == "echo_token":
            _reply(request, 200, {"ok": False, "error": f"bad header {request.headers['Authorization']}"})
            return
        if self.behaviour == "error" or request.headers["Authorization"] != f"Bearer {self.token}":
            _reply(request, 200, {"ok": False, "error": "invalid_auth"})
            return
        if self.behaviour == "slow":
            self.closing.wait(2)
        message = _parsed(request.headers.get("Content-Type", ""), body)
        if (error := self._fault(request.path, message)) is not None:
            _reply(request, 200, {"ok": False, "error": error})
            return
        if request.path == "/api/chat.update":
            self.messages[self._place(message["ts"])].update(message)
            _reply(request, 200, {"ok": True, "channel": message["channel"], "ts": message["ts"]})
            return
        self.messages.append(message)
        if self.echo:
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()
        _reply(request, 200, {"ok": True, "channel": f"C{_name(message)}", "ts": f"{len(self.messages)}.0"})

    def _fault(self, path: str, message: dict[str, Any]) -> str | None:
        """Return Slack's name of what is wrong with a call, or None."""
        if path not in ("/api/chat.postMessage", "/api/chat.update"):
            return "unknown_method"
        if (error := self.refuse(path.removeprefix("/api/"), message)) is not None:
            return error
        if f"#{_name(message)}" in self.channels_away:
            return "channel_not_found"
        place = message.get("ts" if path.endswith("update") else "thread_ts")
        if place is not None and not 0 <= self._place(place) < len(self.messages):
            return "message_not_found"
        if not message.get("text"):
            return "no_text"
        if path.endswith("update") and len(message["text"]) > 4000:
            return "msg_too_long"
        if "blocks" in message and (self.behaviour == "no_blocks" or faults_of(message["blocks"])):
            return "invalid_blocks"
        return None

    @staticmethod
    def _place(ts: str) -> int:
        return int(float(ts)) - 1

    @property
    def heads(self) -> list[dict[str, Any]]:
        """The messages that stand in a channel, without replies."""
        return [message for message in self.messages if "thread_ts" not in message]

    def _drip(self, request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000000")
        request.end_headers()
        try:
            while not self.closing.wait(1):
                request.wfile.write(b" ")
                request.wfile.flush()
        except OSError:
            return


def faults_of(blocks: list[dict[str, Any]]) -> list[str]:
    """List what Slack would not take of a message's blocks, by the limits of its reference."""
    faults = ["there are 1 to 50 blocks"] if not 1 <= len(blocks) <= 50 else []
    for block in blocks:
        kind = block["type"]
        texts = [block["text"]] if "text" in block else []
        limits = {"header": 150, "section": 3000}
        faults += [f"{kind}: 1 to {limits[kind]}" for text in texts if not 1 <= len(text["text"]) <= limits[kind]]
        fields = block.get("fields", [])
        if len(fields) > 10 or any(not 1 <= len(text["text"]) <= 2000 for text in fields):
            faults.append("section: ten fields of 1 to 2000")
        elements = block.get("elements", [])
        if kind == "context" and (not 1 <= len(elements) <= 10 or any(not e["text"] for e in elements)):
            faults.append("context: 1 to 10 elements")
        if kind == "section" and not texts and not fields:
            faults.append("section: a text or fields")
        if kind == "header" and block["text"]["type"] != "plain_text":
            faults.append("header: plain text")
    return faults


def _name(message: dict[str, Any]) -> str:
    """Return the name of the channel that a call names by it (``#name``) or by its id (``Cname``)."""
    return str(message["channel"])[1:]


def _parsed(kind: str, body: bytes) -> dict[str, Any]:
    if kind.startswith("application/json"):
        return dict(json.loads(body))
    return {name: values[0] for name, values in parse_qs(body.decode()).items()}


def _reply(
    request: BaseHTTPRequestHandler,
    status: int,
    content: dict[str, Any] | bytes,
    headers: dict[str, str] | None = None,
    kind: str = "application/json",
) -> None:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    request.send_response(status)
    for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(data)


if __name__ == "__main__":
    with FakeSlack(port=int(sys.argv[1]) if len(sys.argv) > 1 else 18099) as server:
        server.echo = True
        while True:
            time.sleep(3600)
