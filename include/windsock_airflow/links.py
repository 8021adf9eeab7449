"""Buttons on a task that lead to what it made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

from windsock.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator


class MlflowVersionLink(BaseOperatorLink):
    """From a task whose result names a model version to that version in MLflow."""

    name = "Model version in MLflow"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Return the address the operator found while it ran, or nothing."""
        return str(getattr(operator, "mlflow_url", ""))


def mlflow_version_url(model: str, version: object) -> str:
    """Return the page of a model version, or nothing without a version or an MLflow server."""
    server = Settings.from_env().mlflow_uri
    if version is None or not server.startswith("http"):
        return ""
    return f"{server.rstrip('/')}/#/models/{model}/versions/{version}"
