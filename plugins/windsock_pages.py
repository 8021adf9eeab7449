"""Airflow UI: the pages that steps made, each model's plan as a tab of its DAGs, alerts, the way to MLflow.

Read ``windsock_airflow.pages``. Every task loads this file: nothing heavy may be imported here.
"""

from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

from windsock.settings import Settings
from windsock_airflow.mlflow_door import link_to
from windsock_airflow.pages import PAGES_PREFIX, lazy_pages


def _views() -> list[dict[str, Any]]:
    plan = {
        "name": "Plan",
        "href": f"{PAGES_PREFIX}/plan/{{DAG_ID}}",
        "destination": "dag",
        "url_route": "windsock_plan",
    }
    alerts = {
        "name": "Alerts",
        "href": f"{PAGES_PREFIX}/alerts",
        "destination": "nav",
        "category": "browse",
        "url_route": "windsock_alerts",
    }
    mlflow = link_to(Settings.from_env(), PAGES_PREFIX)
    if not mlflow:
        return [plan, alerts]
    return [plan, alerts, {"name": "MLflow", "href": mlflow, "destination": "nav", "category": "browse"}]


class WindsockPages(AirflowPlugin):
    """Registers the pages with Airflow."""

    name = "windsock_pages"
    fastapi_apps: ClassVar = [{"app": lazy_pages, "url_prefix": PAGES_PREFIX, "name": "windsock"}]
    external_views: ClassVar = _views()
