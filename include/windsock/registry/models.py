"""Versions as loaded models, and the two aliases that MLflow shows.

A version is loaded from its run folder; if that is gone, from MLflow's copy of the same
files. Either way the files must be the ones that were registered, by hash.
"""

import logging
import tempfile
from collections import OrderedDict
from pathlib import Path

from windsock.errors import DataContractError, SpecError
from windsock.registry.client import asking_mlflow, mlflow_client
from windsock.registry.versions import VersionInfo, folder_hash, list_versions, version_info
from windsock.runs.run_folder import MODEL
from windsock.served.model import Model, load
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store

log = logging.getLogger(__name__)

CHAMPION = "champion"
CHALLENGER = "challenger"
MLFLOW_FOLDER = "windsock_model"
"""Where MLflow's run keeps its copy of the model folder."""

_MOST_LOADED = 4
_loaded: OrderedDict[tuple[str, str, str], Model] = OrderedDict()


def load_version(settings: Settings, spec: ModelSpec, version: str) -> Model:
    """Load a version's model; within a process the same version is read once.

    Raises:
        SpecError: There is no such version.
        DataContractError: Its files are not the ones that were registered.
        UpstreamUnavailable: Its run folder is gone and MLflow cannot be reached.
    """
    info = version_info(settings, spec, version)
    key = (settings.store, info.run_folder, info.model_hash)
    if key in _loaded:
        _loaded.move_to_end(key)
        return _loaded[key]
    model = _from_run_folder(settings, info) or _from_mlflow(settings, info)
    _loaded[key] = model
    while len(_loaded) > _MOST_LOADED:
        _loaded.popitem(last=False)
    return model


def challenger_version(settings: Settings, spec: ModelSpec) -> str:
    """Return the version that waits to be judged.

    Raises:
        SpecError: There is none.
    """
    version = alias_version(settings, spec, CHALLENGER)
    if version is None:
        known = ", ".join(list_versions(settings, spec)) or "there are none"
        raise SpecError(
            f"Model {spec.name!r} has no challenger: nothing has been trained since the last promotion. "
            f"Run {spec.name}_train, or name a version ({known})."
        )
    return version


def alias_version(settings: Settings, spec: ModelSpec, alias: str) -> str | None:
    """Return the version that an MLflow alias points to, or None.

    Raises:
        UpstreamUnavailable: MLflow cannot be reached.
    """
    from mlflow.exceptions import MlflowException

    client = mlflow_client(settings)
    with asking_mlflow(settings, f"look up {spec.name}@{alias}"):
        try:
            version = dict(client.get_registered_model(spec.name).aliases).get(alias)
        except MlflowException as err:
            if err.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
    return str(version) if version is not None else None  # a number with some of MLflow's stores


def set_alias(settings: Settings, spec: ModelSpec, alias: str, version: str) -> None:
    """Point an MLflow alias to a version."""
    client = mlflow_client(settings)
    with asking_mlflow(settings, f"point {spec.name}@{alias} to version {version}"):
        client.set_registered_model_alias(spec.name, alias, version)


def drop_alias(settings: Settings, spec: ModelSpec, alias: str) -> None:
    """Remove an MLflow alias."""
    client = mlflow_client(settings)
    with asking_mlflow(settings, f"remove {spec.name}@{alias}"):
        client.delete_registered_model_alias(spec.name, alias)


def _from_run_folder(settings: Settings, info: VersionInfo) -> Model | None:
    store = Store.of(settings)
    folder = store.url(info.run_folder, MODEL)
    try:
        found = folder_hash(store, info.run_folder, MODEL)
    except FileNotFoundError:
        return None
    _must_match(found, info, folder)
    return load(folder)


def _from_mlflow(settings: Settings, info: VersionInfo) -> Model:
    log.warning("%s %s: run folder %s is gone; loading MLflow's copy", info.model, info.version, info.run_folder)
    client = mlflow_client(settings)
    with tempfile.TemporaryDirectory(prefix="windsock-model-") as folder:
        with asking_mlflow(settings, f"hand out version {info.version} of {info.model}"):
            path = client.download_artifacts(info.mlflow_run, MLFLOW_FOLDER, folder)
        _must_match(folder_hash(Store(str(Path(path).parent)), Path(path).name), info, f"MLflow run {info.mlflow_run}")
        return load(path)


def _must_match(found: str, info: VersionInfo, where: str) -> None:
    if found != info.model_hash:
        raise DataContractError(
            f"{where}: its files have hash {found[:12]}, but version {info.version} of {info.model} was registered "
            f"with {info.model_hash[:12]}: somebody changed them. Restore the folder, or train and register again."
        )
