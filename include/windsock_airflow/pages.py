"""The pages that steps made (reports, verdicts, Data Docs) and models' plans, served in the Airflow UI, with buttons.

Pages go to logged-in users only, and sandboxed: what a report's own script does cannot reach Airflow. Every task's
process loads Airflow's plugins, so the web framework is imported at the first request and not before. Airflow asks for
a button's address in the task's process, right after the task has ended; so the operator finds it while it runs.
"""

from __future__ import annotations

import hmac
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk import BaseOperator, BaseOperatorLink

from windsock import __version__
from windsock.errors import WindsockError
from windsock.settings import Settings
from windsock.spec import find_specs
from windsock_airflow.mlflow_door import ROUTE, link_to, ticket_page
from windsock_airflow.page_files import open_page

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi.responses import Response

PAGES_PREFIX = "/windsock"
"""Where ``plugins/windsock_pages.py`` serves the store's pages."""

_PLAN_TIMEOUT_S = 60
_HEADERS = {
    "Content-Security-Policy": "sandbox allow-scripts allow-downloads",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


async def lazy_pages(scope: Any, receive: Any, send: Any) -> None:
    """Answer a request as the ASGI application that is made at the first one."""
    await make_app()(scope, receive, send)


@cache
def make_app() -> FastAPI:
    """Return the application; every route asks who is there, that of Prometheus for its token."""
    from airflow.api_fastapi.core_api.security import get_user
    from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException
    from fastapi.responses import JSONResponse, Response, StreamingResponse

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    pages = APIRouter(dependencies=[Depends(get_user)])

    @app.exception_handler(401)
    def to_login(request: Any, err: Any) -> Response:
        if "text/html" not in request.headers.get("accept", ""):  # no browser of a person
            return Response(str(err.detail), 401)
        page = quote(f"{request.url.path}{f'?{request.url.query}' if request.url.query else ''}", safe="")
        return Response(
            status_code=303, headers={"Location": f"{Settings.from_env().ui_url}/api/v2/auth/login?next={page}"}
        )

    @app.exception_handler(WindsockError)
    def away(request: Any, err: Any) -> Response:
        return JSONResponse({"detail": str(err)}, 503)

    @pages.get("/pages/{path:path}")
    def page(path: str) -> Response:
        found = open_page(path)
        if found is None:
            raise HTTPException(404, "This is no page, or it is not there (any more).")
        return StreamingResponse(found.parts(), media_type=found.media_type, headers=_HEADERS)

    @pages.get("/version")
    def version() -> dict[str, str]:
        return {"version": __version__}

    @pages.get("/plan/{dag_id}")
    def plan(dag_id: str) -> Response:
        if (model := model_of(dag_id)) is None:
            raise HTTPException(404, f"{dag_id} is no DAG of a model.")
        return Response(read_plan(model), media_type="text/plain; charset=utf-8", headers=_HEADERS)

    @pages.get("/alerts")
    def alerts() -> Response:
        from windsock_airflow.alerts_page import POLICY, alerts_page

        page = alerts_page(Settings.from_env())
        return Response(page, media_type="text/html", headers={**_HEADERS, "Content-Security-Policy": POLICY})

    somebody = Depends(get_user)

    @pages.get(ROUTE)
    def mlflow(to: str = "/", user: Any = somebody) -> Response:
        return ticket_page(user, to)

    shown = Header(default="")

    @app.get("/metrics")
    def metrics(authorization: str = shown) -> Response:
        return metrics_answer(authorization)

    app.include_router(pages)
    return app


def metrics_answer(authorization: str) -> Response:
    """Return the numbers of all models for who shows the token, which is all that Prometheus has."""
    from fastapi import HTTPException
    from fastapi.responses import Response

    settings = Settings.from_env()
    if not settings.metrics_token.strip():
        raise HTTPException(404, "There are no metrics: WINDSOCK_METRICS_TOKEN is not set.")
    wanted = f"Bearer {settings.metrics_token.strip()}"
    if not hmac.compare_digest(authorization.encode(), wanted.encode()):
        raise HTTPException(401, "Prometheus has to show the token of WINDSOCK_METRICS_TOKEN as a bearer token.")
    from prometheus_client import CONTENT_TYPE_LATEST

    from windsock.exporter import exposition

    return Response(exposition(settings), media_type=CONTENT_TYPE_LATEST, headers=_HEADERS)


def model_of(dag_id: str) -> str | None:
    """Return the model that a DAG belongs to, ``<model>_<stage>``; None: it is none of ours."""
    model = dag_id.rpartition("_")[0]
    return model if model in find_specs(Settings.from_env().models) else None


def read_plan(model: str) -> str:
    """Return what the next training wants otherwise than the champion, as ``windsock plan`` says it.

    A process of its own does it: it brings libraries that the API server shall not hold.
    """
    command = [sys.executable, "-m", "windsock.cli", "plan", model, "--against", "champion"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PLAN_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"windsock plan {model} did not answer within {_PLAN_TIMEOUT_S} s. Run it in a shell."
    return done.stdout or done.stderr


class MlflowVersionLink(BaseOperatorLink):
    """From a task whose result names a model version to that version in MLflow."""

    name = "Model version in MLflow"
    key = "mlflow"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Return the address, or nothing."""
        return str(getattr(operator, "links", {}).get(self.key, ""))


class ReportLink(MlflowVersionLink):
    """From a task that wrote a report to that report."""

    name = "Report"
    key = "report"


RESULT_LINKS = (MlflowVersionLink(), ReportLink())
"""The buttons of every task that runs a step."""


def links_of(model: str, result: Mapping[str, Any]) -> dict[str, str]:
    """Return the addresses of a result's ``version`` in MLflow and of its ``report`` in the store."""
    settings, links = Settings.from_env(), {}
    page = f"/models/{quote(model)}/versions/{result.get('version')}"
    if result.get("version") is not None and (link := link_to(settings, PAGES_PREFIX, page)):
        links["mlflow"] = link
    if result.get("report"):
        links["report"] = f"{settings.ui_url}{PAGES_PREFIX}/pages/{quote(str(result['report']))}"
    return links
