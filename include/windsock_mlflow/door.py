"""The door: an ASGI application around MLflow's that lets in who has a key, to what the table of routes serves.

Strangers get ``/health`` and nothing else. Programs send a key (``Authorization: Bearer``); a browser comes from
Airflow with a ticket, which is changed once for a cookie. MLflow itself never sees a key.
"""

import html
import json
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio.to_thread
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from windsock import mlflow_keys
from windsock.mlflow_keys import Caller, KeyRefused, Kind
from windsock_mlflow.named import NotAllowed, Owners, read_named, refuse_foreign_locations
from windsock_mlflow.named import refuse_what_is_not_the_tasks_own as refuse_others
from windsock_mlflow.routes import Route, find

log = logging.getLogger(__name__)

TICKET_PATH = "/windsock/ticket"
_MOST_BODY_BYTES = 16 * 1024 * 1024
_MOST_TICKET_BYTES = 8 * 1024
_PAGE_IN_MLFLOW = re.compile(r"/[\w./~-]*")
_CODES = {
    400: "INVALID_PARAMETER_VALUE",
    401: "UNAUTHENTICATED",
    404: "ENDPOINT_NOT_FOUND",
    413: "INVALID_PARAMETER_VALUE",
}
_NEITHER = frozenset({b"authorization", b"cookie", b"content-length", b"transfer-encoding", b"content-encoding"})


class Refused(NotAllowed):
    """A request that does not get through, with its HTTP status."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True)
class Doorplate:
    """What the door knows of its house."""

    secret: str
    hosts: frozenset[str]
    """Values of the header ``Host`` that it answers to, exactly."""
    origins: frozenset[str]
    """Its own origins, as browsers name them."""
    airflow_url: str
    """Where people come from."""

    @property
    def airflow_origins(self) -> frozenset[str]:
        """Origins from which a ticket may come; loopback has two names."""
        url = urlsplit(self.airflow_url)
        origin = f"{url.scheme}://{url.netloc}"
        return frozenset({origin, re.sub(r"//127\.0\.0\.1(?=:|$)", "//localhost", origin)})


class Door:
    """Stands before MLflow's application."""

    def __init__(self, app: ASGIApp, plate: Doorplate, owners: Owners) -> None:
        self._app, self._plate, self._owners = app, plate, owners
        self._used: dict[str, float] = {}
        """Tickets that were changed already, and when that may be forgotten."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif (scope["method"], scope["path"]) == ("GET", "/health"):
            await self._app({**scope, "headers": [], "query_string": b""}, _no_body, send)
        else:
            try:
                await self._admit(Request(scope, receive), send)
            except NotAllowed as err:
                status = err.status if isinstance(err, Refused) else 403
                await self._refusal(Headers(scope=scope), status, str(err))(scope, receive, send)

    async def _admit(self, request: Request, send: Send) -> None:
        scope, headers = request.scope, request.headers
        if headers.getlist("host")[:2] != [headers.get("host")] or headers["host"] not in self._plate.hosts:
            raise Refused(403, "MLflow does not answer to this host name. See MLFLOW_SERVER_ALLOWED_HOSTS.")
        is_ticket = (request.method, scope["path"]) == ("POST", TICKET_PATH)
        self._check_origin(headers, is_ticket)
        if is_ticket:
            response = await self._change_ticket(request)
            await response(scope, request.receive, send)
            return
        caller = self._caller(request)
        route = find(request.method, scope["path"])
        if route is None:
            raise Refused(404, f"{request.method} {scope['path'][:200]} is not served here.")
        if caller.role == "viewer" and route.access == "write":
            raise Refused(403, f"{caller.name} may look and not change. Airflow's roles decide: ask for Op.")
        body = {} if route.streams else await _read_json(request)
        refuse_foreign_locations(body, scope["path"])
        if caller.role == "task":
            named = read_named(scope["query_string"], body, route)
            await anyio.to_thread.run_sync(refuse_others, route, named, caller.model, self._owners)
        await self._hand_on(request, route, body, send)

    def _check_origin(self, headers: Headers, is_ticket: bool) -> None:
        """Refuse what another site's page had a browser send."""
        origin = headers.get("origin")
        allowed = self._plate.airflow_origins if is_ticket else self._plate.origins
        if origin is not None and origin not in allowed:
            raise Refused(403, "MLflow takes no calls from pages of another origin.")

    def _caller(self, request: Request) -> Caller:
        """Return who asks.

        Raises:
            Refused: A stranger, or a page of another origin with somebody's cookie.
        """
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        try:
            if scheme:
                return mlflow_keys.read(self._plate.secret, Kind.KEY, key if scheme.lower() == "bearer" else "")
            caller = mlflow_keys.read(
                self._plate.secret, Kind.SESSION, request.cookies.get(_cookie(request.headers), "")
            )
        except KeyRefused as err:
            raise Refused(
                401, f"{err} Programs need a key ({mlflow_keys.VARIABLE}), people come from Airflow."
            ) from err
        if request.method != "GET" and request.headers.get("origin") is None:
            raise Refused(403, "A call with a cookie must say its origin, as browsers do.")
        mode, site = (request.headers.get(f"sec-fetch-{name}", "") for name in ("mode", "site"))
        if site not in {"", "none", "same-origin"} and mode != "navigate":
            raise Refused(403, "MLflow takes no calls from pages of another origin.")
        return caller

    async def _change_ticket(self, request: Request) -> Response:
        """Change a ticket that has not been used yet for a cookie, and go on to the page that was asked for."""
        form = {
            name: values[0]
            for name, values in parse_qs((await _read(request, _MOST_TICKET_BYTES)).decode("latin-1")).items()
        }
        try:
            caller = mlflow_keys.read(self._plate.secret, Kind.TICKET, form.get("ticket", ""))
        except KeyRefused as err:
            raise Refused(401, f"{err} Open MLflow from Airflow's menu again.") from err
        now = time.monotonic()
        self._used = {ticket: until for ticket, until in self._used.items() if until > now}
        if caller.key_id in self._used:
            raise Refused(401, "This ticket has been used. Open MLflow from Airflow's menu again.")
        self._used[caller.key_id] = now + 2 * mlflow_keys.TICKET_SECONDS
        to, host = form.get("to", "/"), request.headers["host"]
        response = RedirectResponse(f"/#{to}" if _PAGE_IN_MLFLOW.fullmatch(to) else "/", 303)
        response.set_cookie(
            _cookie(request.headers),
            mlflow_keys.sign(self._plate.secret, Kind.SESSION, caller, mlflow_keys.SESSION_SECONDS),
            max_age=mlflow_keys.SESSION_SECONDS,
            httponly=True,
            samesite="lax",
            secure=f"https://{host}" in self._plate.origins,
        )
        log.info("%s came in from Airflow as %s.", caller.name, caller.role)
        return response

    async def _hand_on(self, request: Request, route: Route, body: Mapping[str, Any], send: Send) -> None:
        """Let MLflow answer; what it reads is what was checked, written anew."""
        kept = [pair for pair in request.scope["headers"] if pair[0] not in _NEITHER]
        if route.streams:
            kept += [pair for pair in request.scope["headers"] if pair[0] in {b"content-length", b"transfer-encoding"}]
            await self._app({**request.scope, "headers": kept}, request.receive, send)
            return
        content = json.dumps(body).encode() if body else b""
        kept.append((b"content-length", str(len(content)).encode()))
        sent = False

        async def receive() -> Message:
            nonlocal sent
            if sent:
                return await request.receive()
            sent = True
            return {"type": "http.request", "body": content, "more_body": False}

        await self._app({**request.scope, "headers": kept}, receive, send)

    def _refusal(self, headers: Headers, status: int, why: str) -> Response:
        log.info("Refused: %r", why)  # a path may hold a line break
        if status == 401 and headers.get("sec-fetch-mode") == "navigate":
            url = html.escape(f"{self._plate.airflow_url}/windsock/mlflow")
            return HTMLResponse(f'<p>MLflow opens from Airflow: <a href="{url}">sign in there</a>.</p>', 401)
        return JSONResponse({"error_code": _CODES.get(status, "PERMISSION_DENIED"), "message": why}, status)


async def _read_json(request: Request) -> dict[str, Any]:
    """Return the JSON object in a request's body; without a body, an empty one. MLflow reads that of a GET, too."""
    content = await _read(request, _MOST_BODY_BYTES)
    if not content:
        return {}
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as err:
        raise Refused(400, f"The body of {request.method} {request.scope['path'][:200]} is no JSON.") from err
    if not isinstance(body, dict):
        raise Refused(400, "The body must be a JSON object.")
    return body


async def _read(request: Request, most_bytes: int) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most_bytes:
            raise Refused(413, f"The body is larger than {most_bytes} bytes.")
        chunks.append(chunk)
    return b"".join(chunks)


async def _no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def _cookie(headers: Headers) -> str:
    """Return the cookie's name: browsers keep one jar for all ports of a host, so the port is part of it."""
    return f"windsock_mlflow_{headers['host'].rpartition(':')[2] if ':' in headers['host'] else 'session'}"
