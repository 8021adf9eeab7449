"""The way from Airflow to MLflow: who is logged in here comes in there, as a viewer or as an op.

Airflow signs a ticket for the user, good once and for a minute, and the browser hands it over in a form: an address
would end up in logs. Read ``windsock_mlflow.door``.
"""

from __future__ import annotations

import html
import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from windsock import mlflow_keys
from windsock.mlflow_keys import Caller, Kind, Role
from windsock.settings import Settings

if TYPE_CHECKING:
    from fastapi import Response

ROUTE = "/mlflow"
"""Below the prefix of the pages."""
_PAGE = """<!doctype html><meta charset="utf-8"><title>MLflow</title>
<form method="post" action="{address}/windsock/ticket">
<input type="hidden" name="ticket" value="{ticket}"><input type="hidden" name="to" value="{to}">
<button>Go on to MLflow</button></form><script nonce="{nonce}">document.forms[0].submit()</script>
"""


def browser_address(settings: Settings) -> str:
    """Return MLflow's address for people's browsers; empty if it has none."""
    address = settings.mlflow_url or settings.mlflow_uri
    return address.rstrip("/") if address.startswith("http") else ""


def link_to(settings: Settings, prefix: str, page: str = "") -> str:
    """Return where a button or a menu leads to reach a page of MLflow; empty if there is none."""
    address = browser_address(settings)
    if not address or not settings.mlflow_secret:
        return f"{address}/#{page}" if address and page else address
    return f"{settings.ui_url}{prefix}{ROUTE}{f'?to={quote(page)}' if page else ''}"


def role_of(user: Any) -> Role | None:
    """Return what somebody may do in MLflow; None: nothing. Airflow's auth manager decides, whichever it is."""
    from airflow.api_fastapi.app import get_auth_manager

    manager = get_auth_manager()
    if manager.is_authorized_variable(method="PUT", user=user):
        return "op"
    return "viewer" if manager.is_authorized_dag(method="GET", user=user) else None


def ticket_page(user: Any, to: str) -> Response:
    """Return the page that hands a fresh ticket of this user over to MLflow."""
    from fastapi import HTTPException
    from fastapi.responses import HTMLResponse

    settings, role = Settings.from_env(), role_of(user)
    address = browser_address(settings)
    if not address or not settings.mlflow_secret:
        raise HTTPException(404, "This installation has no MLflow of its own.")
    if role is None:
        raise HTTPException(403, "You may not see DAGs, so you may not see MLflow either.")
    caller = Caller(str(user.get_name()), role)
    ticket = mlflow_keys.sign(settings.mlflow_secret, Kind.TICKET, caller, mlflow_keys.TICKET_SECONDS)
    nonce, url = secrets.token_urlsafe(16), urlsplit(address)
    page = _PAGE.format(address=html.escape(address), ticket=ticket, to=html.escape(to), nonce=nonce)
    policy = f"default-src 'none'; script-src 'nonce-{nonce}'; form-action {url.scheme}://{url.netloc}"
    # The browser must name this origin to MLflow, and may keep nothing.
    return HTMLResponse(
        page,
        headers={
            "Content-Security-Policy": f"{policy}; frame-ancestors 'none'",
            "Referrer-Policy": "strict-origin",
            "Cache-Control": "no-store",
        },
    )
