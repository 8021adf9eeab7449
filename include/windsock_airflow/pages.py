"""The pages that steps made (drift reports, gate verdicts), served inside the Airflow UI.

To logged-in users only, and sandboxed: what a report's own script does cannot reach
Airflow. Every task's process loads Airflow's plugins, so the web framework is imported
at the first request and not before.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from windsock.settings import Settings
from windsock.store import Store

if TYPE_CHECKING:
    from fastapi import FastAPI

_NAME = r"[A-Za-z0-9_-][A-Za-z0-9_.~+-]*"
_PAGE = re.compile(rf"(?:reports|runs)/{_NAME}/{_NAME}/{_NAME}\.(html|json|png)")
_KINDS = {"html": "text/html; charset=utf-8", "json": "application/json", "png": "image/png"}
_HEADERS = {"Content-Security-Policy": "sandbox allow-scripts allow-downloads", "X-Content-Type-Options": "nosniff"}


class LazyPages:
    """An ASGI application that makes itself at the first request."""

    def __init__(self) -> None:
        self._app: FastAPI | None = None

    async def __call__(
        self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        """Answer one request."""
        if self._app is None:
            self._app = make_app()
        await self._app(scope, receive, send)


def make_app() -> FastAPI:
    """Return the application; every route asks who is there."""
    from airflow.api_fastapi.core_api.security import get_user
    from fastapi import Depends, FastAPI, HTTPException
    from fastapi.responses import Response

    app = FastAPI(dependencies=[Depends(get_user)], docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/pages/{path:path}")
    def page(path: str) -> Response:
        found = read_page(path)
        if found is None:
            raise HTTPException(404, f"{path} is no page, or not in the store (any more).")
        content, kind = found
        return Response(content, media_type=kind, headers=_HEADERS)

    return app


def read_page(path: str) -> tuple[bytes, str] | None:
    """Return a page's bytes and media type; None for whatever is not a page in the store."""
    matched = _PAGE.fullmatch(path)
    if matched is None:
        return None
    try:
        return Store.of(Settings.from_env()).read_bytes(path), _KINDS[matched[1]]
    except FileNotFoundError:
        return None
