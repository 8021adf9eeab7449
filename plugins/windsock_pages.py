"""Airflow UI: the pages that steps made (drift reports, gate verdicts), and a way to MLflow.

Pages are served to logged-in users only, and sandboxed: what a report's own script does
cannot reach Airflow.
"""

import re
from typing import Any

from airflow.api_fastapi.core_api.security import get_user
from airflow.plugins_manager import AirflowPlugin
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import Response

from windsock.settings import Settings
from windsock.store import Store
from windsock_airflow.links import PAGES_PREFIX

_NAME = r"[A-Za-z0-9_-][A-Za-z0-9_.~+-]*"
_PAGE = re.compile(rf"(reports|runs)/{_NAME}/{_NAME}/{_NAME}\.(html|json|png)")
_KINDS = {"html": "text/html; charset=utf-8", "json": "application/json", "png": "image/png"}

app = FastAPI(dependencies=[Depends(get_user)], docs_url=None, redoc_url=None, openapi_url=None)


@app.get("/pages/{path:path}")
def page(path: str) -> Response:
    """Return one page from the store."""
    found = _PAGE.fullmatch(path)
    if found is None:
        raise HTTPException(404, "There is no such page.")
    try:
        content = Store.of(Settings.from_env()).read_bytes(path)
    except FileNotFoundError as err:
        raise HTTPException(404, f"{path} is not in the store (any more).") from err
    headers = {"Content-Security-Policy": "sandbox allow-scripts allow-downloads", "X-Content-Type-Options": "nosniff"}
    return Response(content, media_type=_KINDS[found[2]], headers=headers)


def _views() -> list[dict[str, Any]]:
    mlflow = Settings.from_env().mlflow_uri
    if not mlflow.startswith("http"):
        return []
    return [{"name": "MLflow", "href": mlflow, "destination": "nav", "category": "browse"}]


class WindsockPages(AirflowPlugin):
    """Registers the pages with Airflow."""

    name = "windsock_pages"
    fastapi_apps = [{"app": app, "url_prefix": PAGES_PREFIX, "name": "windsock"}]  # noqa: RUF012
    external_views = _views()
