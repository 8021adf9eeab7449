"""A finished run folder, and what registration writes of it to MLflow, each part safe to be done again after a kill.

A run is found by its tag; parameters and metrics carry the training day as their time, so that writing them twice
changes nothing; a model that was only half uploaded is removed. What goes up needs no pickle to load.
"""

import hashlib
import logging
import sys
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date
from functools import cached_property
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any

import numpy as np

from windsock.days import parse_day, start_of
from windsock.errors import SpecError
from windsock.registry.versions import MLFLOW_FOLDER, folder_hash
from windsock.runs import run_folder
from windsock.runs.run_folder import DEFINITIONS, HOLDOUT, LINEAGE, METRICS, MODEL, REFIT_OF, REQUEST, TRAIN, RunFolder
from windsock.served.model import Model, load
from windsock.spec import ModelSpec
from windsock.store import Store

log = logging.getLogger(__name__)

RUN_TAG = "windsock.run"
"""MLflow tag by which a run folder's MLflow run and version are found again."""

MODEL_NAME = "model"
_REQUIRED = (REQUEST, METRICS, LINEAGE, TRAIN, HOLDOUT, run_folder.HOLDOUT_SCORES, MODEL)
_LONGEST_TAG = 4000
"""Characters; MLflow refuses a tag of more than 5,000."""
_LINEAGE_TAGS = (
    "commit",
    "definitions_commit",
    "spec_hash",
    "seed",
    "origin",
    "summary",
    "window",
    "trigger",
    "reason",
    "request",
    "recovery",
)


@dataclass(frozen=True)
class FinishedRun:
    """A run folder whose training is complete, with the content of its descriptions."""

    folder: RunFolder
    request: Mapping[str, Any]
    metrics: Mapping[str, Any]
    lineage: Mapping[str, Any]

    @classmethod
    def open(cls, store: Store, spec: ModelSpec, run: object) -> "FinishedRun":
        """Read a run folder's descriptions.

        Raises:
            SpecError: The folder is not there or not finished.
        """
        folder = RunFolder.named(store, spec.name, run)
        missing = [name for name in _REQUIRED if not folder.exists(name)]
        if missing:
            raise SpecError(
                f"{spec.name}: run folder {folder.url()} lacks {', '.join(missing)}: the training did "
                f"not finish. Run {spec.name}_train again, or name another run."
            )
        return cls(folder, *(folder.read_json(name) for name in (REQUEST, METRICS, LINEAGE)))

    @property
    def definitions(self) -> Mapping[str, Any]:
        """By what the features are computed; nothing in a run of version 0.1."""
        return self.folder.read_json(DEFINITIONS) if self.folder.exists(DEFINITIONS) else {}

    @property
    def as_of(self) -> date:
        """Day that the training knew."""
        return parse_day(self.request.get("as_of"), what=f"as_of of run {self.folder.run}")

    @property
    def refit_of(self) -> str:
        """Version of its judged twin; empty: it was judged itself."""
        return str((self.lineage.get(REFIT_OF) or {}).get("version", ""))

    @cached_property
    def model_hash(self) -> str:
        """SHA-256 over the model folder."""
        return folder_hash(self.folder, MODEL)

    @property
    def holdout_metrics(self) -> dict[str, float]:
        """Metrics on the holdout; those that could not be computed are left out."""
        return {k: float(v) for k, v in self.metrics["metrics"].items() if v is not None}

    def tags(self, spec: ModelSpec) -> dict[str, str]:
        """Return what a person filters runs and versions by, lineage included."""
        there = (k for k in _LINEAGE_TAGS if self.lineage.get(k) is not None)
        lineage = {f"lineage.{k}": str(self.lineage[k])[:_LONGEST_TAG] for k in there}
        libraries = {f"library.{k}": str(v) for k, v in self.lineage.get("libraries", {}).items()}
        return {
            **lineage,
            **libraries,
            RUN_TAG: self.folder.run,
            "windsock.model": spec.name,
            "windsock.owner": spec.owner,
            "windsock.as_of": self.as_of.isoformat(),
            "windsock.model_hash": self.model_hash,
            "windsock.folder": self.folder.prefix,
            **({"windsock.refit_of": self.refit_of} if self.refit_of else {}),
        }


def run_of(client: Any, experiment: str, finished: FinishedRun, tags: dict[str, str]) -> str:
    """Return the id of the MLflow run of a run folder, made if absent."""
    run = finished.folder.run
    found = client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{run}'", max_results=1)
    return str((found[0] if found else client.create_run(experiment, run_name=run, tags=tags)).info.run_id)


def group_candidates(client: Any, experiment: str, finished: FinishedRun, run_id: str) -> None:
    """Put the runs in which the candidates were watched below the version's own run."""
    for name in finished.metrics.get("candidates", {}):
        for suffix in ("", "/search"):
            tag = f"{finished.folder.run}/{name}{suffix}"
            for found in client.search_runs([experiment], f"tags.`{run_folder.CANDIDATE_TAG}` = '{tag}'"):
                client.set_tag(found.info.run_id, "mlflow.parentRunId", run_id)
                client.set_terminated(found.info.run_id)


def version_of(client: Any, finished: FinishedRun) -> str | None:
    """Return the registered version of a run folder, if there is one."""
    folder = finished.folder
    found = client.search_model_versions(f"name = '{folder.model}' and tags.`{RUN_TAG}` = '{folder.run}'")
    # Of several (nothing makes them, but nothing forbids them either) the first stays the one.
    return min((str(v.version) for v in found), key=int, default=None)


def log_run(client: Any, run_id: str, finished: FinishedRun) -> None:
    """Write parameters, metrics, data sets, lineage and the model folder to a run."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

    folder = finished.folder
    judged, own = finished.metrics, finished.metrics.get("metric")
    chosen = judged.get("chosen", {})
    params = {
        **{name: str(value) for name, value in sorted((chosen.get("params") or {}).items())},
        **{name: str(chosen.get(name, "")) for name in ("rounds", "trial")},
        **{name: str(chosen.get(name) or "") for name in ("estimator", "kind")},
        **({"window_days": str(chosen["window_days"])} if chosen.get("window_days") else {}),
        "metric": str(own or ""),
        "as_of": finished.as_of.isoformat(),
        "features": str(len(finished.request.get("features", ()))),
    }
    counts = {
        f"{part}_{name}": float(value)
        for part in ("train", "holdout")
        for name, value in judged.get(part, {}).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    numbers = {**counts, **finished.holdout_metrics}
    metrics = [Metric(name, value, _millis(finished.as_of), 0) for name, value in numbers.items()]
    for step, day in enumerate(judged.get("per_day", ())):
        if day.get(own) is not None:
            metrics.append(Metric(f"daily_{own}", float(day[own]), _millis(date.fromisoformat(day["ds"])), step))
    client.log_batch(run_id, metrics=metrics, params=[Param(*item) for item in params.items()])
    client.log_inputs(
        run_id,
        datasets=[
            DatasetInput(
                Dataset(
                    name=f"{folder.model}_{context}",
                    digest=hashlib.sha256(folder.read_bytes(name)).hexdigest()[:32],
                    source_type="local" if folder.is_local else folder.root.partition("://")[0],
                    source=f'{{"uri": "{folder.url(name)}"}}',
                ),
                tags=[InputTag("mlflow.data.context", context)],
            )
            for name, context in ((TRAIN, "training"), (HOLDOUT, "holdout"))
        ],
    )
    for name in (REQUEST, METRICS, LINEAGE, DEFINITIONS):
        if folder.exists(name):
            client.log_text(run_id, folder.read_bytes(name).decode(), name)


def log_model(client: Any, run_id: str, finished: FinishedRun) -> str:
    """Upload the model once, as a LoggedModel of the run, and return its id."""
    from mlflow.entities import LoggedModelOutput

    folder, experiment = finished.folder, client.get_run(run_id).info.experiment_id
    for found in client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'"):
        if found.status == "READY":
            return str(found.model_id)
        log.info("%s: model %s was only half uploaded; removed", folder.run, found.model_id)
        client.delete_logged_model(found.model_id)
    tags = {RUN_TAG: folder.run}
    logged = client.create_logged_model(experiment, MODEL_NAME, run_id, tags=tags, model_type=folder.model)
    model_id = str(logged.model_id)
    with tempfile.TemporaryDirectory(prefix="windsock-register-") as temporary:
        # In MLflow's flavour for its kind: the same model, for ``mlflow.pyfunc`` and the UI, and no pickle.
        flavour, own = Path(temporary, "mlflow_model"), Path(temporary, MLFLOW_FOLDER)
        save_flavour(load(folder.url(MODEL)), str(flavour), run_id, model_id)
        client.log_model_artifacts(model_id, str(flavour))
        folder.fs.get(folder.path(MODEL), str(own), recursive=True)
        client.log_artifacts(run_id, str(own), MLFLOW_FOLDER)
    client.finalize_logged_model(model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model_id=model_id, step=0)])
    return model_id


def save_flavour(model: Model, target: str, run_id: str, model_id: str) -> None:
    """Write a model as an MLflow model of a run into a folder that does not exist yet; ``model_id`` is MLflow's.

    LightGBM's trees and PyTorch modules have flavours of their own. For the other formats MLflow has none that does
    without pickle, code or a package that is not in the lock (ONNX): their folder goes up as it is, under ``windsock``.
    """
    from mlflow.models import Model as MlflowModel
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    about = MlflowModel(run_id=run_id, model_id=model_id, artifact_path=MODEL_NAME)
    inputs: list[ColSpec | TensorSpec] = [ColSpec("double", name, required=False) for name in model.feature_names]
    about.signature = ModelSignature(Schema(inputs), Schema([ColSpec("double")]))
    lightgbm, torch = sys.modules.get("lightgbm"), sys.modules.get("torch")
    if lightgbm is not None and isinstance(model.engine, lightgbm.Booster):
        import mlflow.lightgbm

        # Needs named outright: otherwise MLflow starts a process that imports everything to find out.
        needs = [f"lightgbm=={library_version('lightgbm')}"]
        mlflow.lightgbm.save_model(
            model.engine, target, mlflow_model=about, signature=about.signature, pip_requirements=needs
        )
    elif torch is not None and isinstance(model.engine, torch.nn.Module):
        import mlflow.pytorch

        width = len(model.features)
        rows_in, scores_out = (TensorSpec(np.dtype("float64"), shape) for shape in ((-1, width), (-1,)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            # MLflow traces the program once more and stores the sample rows with it in PyTorch's format for tensors,
            # which its loader insists on; with ``MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false`` it checks that they are
            # tensors alone. Of one row alone, the program would take one row alone.
            mlflow.pytorch.save_model(
                model.engine, target, mlflow_model=about, serialization_format="pt2",
                input_example=np.zeros((2, width)),
                signature=ModelSignature(Schema([rows_in]), Schema([scores_out])),
                pip_requirements=[f"torch=={library_version('torch').partition('+')[0]}"],
            )  # fmt: skip
    else:
        folder = Path(target) / "data"
        folder.mkdir(parents=True)
        for name, content in model.content.items():
            (folder / name).write_bytes(content)
        about.add_flavor("windsock", data="data")
        about.save(str(Path(target) / "MLmodel"))


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


def _millis(day: date) -> int:
    return int(start_of(day).replace(tzinfo=UTC).timestamp() * 1000)
