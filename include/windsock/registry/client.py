"""One way to talk to MLflow: bounded in time, no pickle, an MLflow that is away told from one that refuses."""

import importlib
import importlib.util
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from windsock.errors import UpstreamUnavailable, WindsockError
from windsock.redact import redact, redact_line
from windsock.settings import Settings
from windsock.store import Store

_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "25",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""A task says within a minute that its server hangs, and is tried again; MLflow's own limits (120 s, seven times) would
hold it for a quarter of an hour."""

_RETRIABLE = frozenset({"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "INTERNAL_ERROR", "ABORTED"})


def mlflow_client(settings: Settings) -> Any:
    """Return an ``MlflowClient`` for the settings' tracking server, which also holds the registry."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    _register_headers_without_feast()
    import mlflow

    # It warns on every model that it cannot tell pip's version; nothing here is installed by pip from that file.
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)
    if mlflow.get_tracking_uri() != settings.mlflow_uri:
        mlflow.set_tracking_uri(settings.mlflow_uri)
    return mlflow.MlflowClient(tracking_uri=settings.mlflow_uri, registry_uri=settings.mlflow_uri)


def _register_headers_without_feast() -> None:
    """Let MLflow look for what else may add headers to its calls, and not find Feast.

    It would import Feast (and that torch) at the first call, ten seconds of CPU, for headers that only an MLflow
    behind Feast's own login needs.
    """
    name = "mlflow.tracking.request_header.registry"
    if "feast" in sys.modules or name in sys.modules or importlib.util.find_spec("feast") is None:
        return
    sys.modules["feast"] = None  # type: ignore[assignment]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is not there
            importlib.import_module(name)
    finally:
        del sys.modules["feast"]


@contextmanager
def asking_mlflow(settings: Settings, what: str) -> Iterator[None]:
    """Turn MLflow's exceptions within the block into ours.

    Raises:
        UpstreamUnavailable: It is away, overloaded or locked: a retry may help.
        WindsockError: It refused.
    """
    from mlflow.exceptions import MlflowException

    where = f"MLflow at {redact(settings.mlflow_uri)}"
    try:
        yield
    except MlflowException as err:
        text = redact_line(err)
        if getattr(err, "error_code", "INTERNAL_ERROR") in _RETRIABLE:
            raise UpstreamUnavailable(
                f"{where} could not {what}: {text} Check that it is up; this step is retried."
            ) from err
        raise WindsockError(f"{where} refused to {what}: {text}") from err
    except OSError as err:
        raise UpstreamUnavailable(f"{where} could not {what}: {redact_line(err)}. This step is retried.") from err


def experiment_id(settings: Settings, client: Any, model: str) -> str:
    """Return the id of a model's experiment, made if absent.

    Raises:
        WindsockError: Somebody deleted the experiment in MLflow.
    """
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(model)
    if experiment is None:
        artifacts = None  # an MLflow server decides where they go
        if not settings.mlflow_uri.startswith(("http://", "https://")):
            store = Store.of(settings)
            artifacts = f"{'file://' if store.is_local else ''}{store.url('mlflow-artifacts', model)}"
        try:
            return str(client.create_experiment(model, artifact_location=artifacts))
        except MlflowException as err:
            if err.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(model)
    if experiment.lifecycle_stage != "active":
        raise WindsockError(
            f"MLflow's experiment {model!r} has been deleted. Restore it in the MLflow UI, or with "
            f"'mlflow experiments restore --experiment-id {experiment.experiment_id}'."
        )
    return str(experiment.experiment_id)
