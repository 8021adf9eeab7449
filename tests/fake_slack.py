"""A server on loopback that speaks as much of Slack's API as alerts use, good days and bad.

Run it by itself for a stack that should talk to it: ``python tests/fake_slack.py 18099``
prints each message as one JSON line.
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs

TOKEN = "xoxb-1234567890-not-a-real-token"


class FakeSlack:
    """``chat.postMessage`` with a chosen behaviour; use it as a context manager.

    Args:
        behaviour: ``ok``; ``error`` (``invalid_auth``); ``server_error`` (HTTP 500, no JSON);
            ``rate_limited`` (HTTP 429 once, then ok); ``always_rate_limited``; ``hang`` (accepts and says
            nothing); ``drip`` (a byte a second, for ever); ``echo_token`` (an error that repeats the token).
        retry_after: Seconds that a rate limit asks for.
        port: Default: a free one.
        token: The token that is accepted.
    """

    def __init__(self, behaviour: str = "ok", *, retry_after: int = 1, port: int = 0, token: str = TOKEN) -> None:
        self.behaviour = behaviour
        self.retry_after = retry_after
        self.token = token
        self.messages: list[dict[str, Any]] = []
        """Messages that were taken."""
        self.requests = 0
        self.closing = threading.Event()
        self.echo = False
        self.server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/api/"

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

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
        if request.path != "/api/chat.postMessage":
            _reply(request, 200, {"ok": False, "error": "unknown_method"})
            return
        message = _parsed(request.headers.get("Content-Type", ""), body)
        self.messages.append(message)
        if self.echo:
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()
        _reply(request, 200, {"ok": True, "channel": "C1", "ts": f"{len(self.messages)}.0"})

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
