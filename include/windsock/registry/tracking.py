"""What registration writes to MLflow, each part safe to be done again after a kill.

A run is found by its tag; parameters and metrics carry the training day as their time, so
that writing them twice changes nothing; a model that was only half uploaded is removed.
What goes up needs no pickle to load.
"""

import logging
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from windsock.days import start_of
from windsock.registry.finished import RUN_TAG, FinishedRun
from windsock.registry.flavours import MODEL_NAME, save_flavour
from windsock.registry.models import MLFLOW_FOLDER
from windsock.runs.run_folder import CANDIDATE_TAG, HOLDOUT, LINEAGE, METRICS, MODEL, REQUEST, TRAIN
from windsock.served.model import load

log = logging.getLogger(__name__)


def run_of(client: Any, experiment: str, folder: FinishedRun, tags: dict[str, str]) -> str:
    """Return the id of the MLflow run of a run folder, made if absent."""
    found = client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{folder.run}'", max_results=1)
    if found:
        return str(found[0].info.run_id)
    return str(client.create_run(experiment, run_name=folder.run, tags=tags).info.run_id)


def group_candidates(client: Any, experiment: str, folder: FinishedRun, run_id: str) -> None:
    """Put the runs in which the candidates were watched below the version's own run."""
    for name in folder.judged.get("candidates", {}):
        for suffix in ("", "/search"):
            watched = client.search_runs([experiment], f"tags.`{CANDIDATE_TAG}` = '{folder.run}/{name}{suffix}'")
            for found in watched:
                client.set_tag(found.info.run_id, "mlflow.parentRunId", run_id)
                client.set_terminated(found.info.run_id)


def version_of(client: Any, model: str, run: str) -> str | None:
    """Return the registered version of a run folder, if there is one."""
    found = client.search_model_versions(f"name = '{model}' and tags.`{RUN_TAG}` = '{run}'")
    # Of several (nothing makes them, but nothing forbids them either) the first stays the one.
    return min((str(v.version) for v in found), key=int, default=None)


def log_run(client: Any, run_id: str, folder: FinishedRun) -> None:
    """Write parameters, metrics, data sets, lineage and the model folder to a run."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

    time_ms = int(start_of(folder.as_of).replace(tzinfo=UTC).timestamp() * 1000)
    metrics = [Metric(name, value, time_ms, 0) for name, value in folder.numbers().items()]
    own = folder.judged.get("metric")
    for step, day in enumerate(folder.judged.get("per_day", ())):
        if day.get(own) is not None:
            at = int(datetime.fromisoformat(day["ds"]).replace(tzinfo=UTC).timestamp() * 1000)
            metrics.append(Metric(f"daily_{own}", float(day[own]), at, step))
    params = [Param(name, value) for name, value in folder.params().items()]
    client.log_batch(run_id, metrics=metrics, params=params)
    client.log_inputs(
        run_id,
        datasets=[
            DatasetInput(
                Dataset(
                    name=f"{folder.model}_{context}",
                    digest=folder.file_hash(name)[:32],
                    source_type="local" if folder.store.is_local else folder.store.root.partition("://")[0],
                    source=f'{{"uri": "{folder.store.url(folder.path, name)}"}}',
                ),
                tags=[InputTag("mlflow.data.context", context)],
            )
            for name, context in ((TRAIN, "training"), (HOLDOUT, "holdout"))
        ],
    )
    for name in (REQUEST, METRICS, LINEAGE):
        client.log_text(run_id, folder.store.read_bytes(folder.path, name).decode(), name)


def log_model(client: Any, run_id: str, folder: FinishedRun) -> str:
    """Upload the model once, as a LoggedModel of the run, and return its id."""
    from mlflow.entities import LoggedModelOutput

    experiment = client.get_run(run_id).info.experiment_id
    for found in client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'"):
        if found.status == "READY":
            return str(found.model_id)
        log.info("%s: model %s was only half uploaded; removed", folder.run, found.model_id)
        client.delete_logged_model(found.model_id)
    tags = {RUN_TAG: folder.run}
    model_id = str(
        client.create_logged_model(experiment, MODEL_NAME, run_id, tags=tags, model_type=folder.model).model_id
    )
    with tempfile.TemporaryDirectory(prefix="windsock-register-") as temporary:
        # In MLflow's flavour for its kind: the same model, for ``mlflow.pyfunc`` and the UI.
        flavour, own = Path(temporary, "mlflow_model"), Path(temporary, MLFLOW_FOLDER)
        save_flavour(load(folder.store.url(folder.path, MODEL)), str(flavour), run_id, model_id)
        client.log_model_artifacts(model_id, str(flavour))
        folder.store.fs.get(folder.store.path(folder.path, MODEL), str(own), recursive=True)
        client.log_artifacts(run_id, str(own), MLFLOW_FOLDER)
    client.finalize_logged_model(model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model_id=model_id, step=0)])
    return model_id


def create_version(client: Any, model: str, model_id: str, run_id: str, tags: dict[str, str]) -> str:
    """Register a logged model as the next version."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(model)
    except MlflowException as err:
        if err.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    made = client.create_model_version(
        model, f"models:/{model_id}", run_id=run_id, tags=tags, model_id=model_id, await_creation_for=30
    )
    return str(made.version)
