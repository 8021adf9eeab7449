"""Buttons on a task that lead to what it made.

Airflow asks for a link in the task's process, right after the task has ended; so the
operator finds the addresses while it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink

from windsock.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

PAGES_PREFIX = "/windsock"
"""Where ``plugins/windsock_pages.py`` serves the store's pages."""


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
    if result.get("version") is not None and settings.mlflow_uri.startswith("http"):
        links["mlflow"] = f"{settings.mlflow_uri.rstrip('/')}/#/models/{quote(model)}/versions/{result['version']}"
    if result.get("report"):
        links["report"] = f"{settings.ui_url}{PAGES_PREFIX}/pages/{quote(str(result['report']))}"
    return links
