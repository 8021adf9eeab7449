"""Loading a model version, and MLflow's aliases of it.

A version is loaded from its run folder; if that is gone, from MLflow's copy.

Of MLflow's two aliases ``champion`` follows the promotion log and ``challenger`` is what was registered last. A kill
between the log entry and the alias leaves an alias that is behind; a hand-set alias differs from the log. Both are put
right whenever a step comes by: the log decides, always.
"""

import hashlib
import logging
import tempfile
from functools import lru_cache
from pathlib import Path

from windsock.errors import DataContractError, SpecError
from windsock.promotions import verified_history
from windsock.registry.client import asking_mlflow, mlflow_client
from windsock.runs.run_folder import MODEL
from windsock.served.model import Model, load
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store
from windsock.version_index import VersionInfo, list_versions, version_info

log = logging.getLogger(__name__)

CHAMPION = "champion"
CHALLENGER = "challenger"
MLFLOW_FOLDER = "windsock_model"
"""Where MLflow's run keeps its copy of the model folder."""


def load_version(settings: Settings, spec: ModelSpec, version: str) -> Model:
    """Load a version's model; within a process the versions loaded last are read once.

    Raises:
        SpecError: There is no such version.
        DataContractError: Its files are not the ones that were registered.
        UpstreamUnavailable: Its run folder is gone and MLflow cannot be reached.
    """
    return _load(settings, version_info(settings, spec, version))


def reconcile(settings: Settings, spec: ModelSpec, *, expected: bool = False) -> bool:
    """Make MLflow's aliases say what the log says, and return whether they did not; ``expected`` if it is just written.

    Raises:
        DamagedRecord: The log is not whole; then it decides nothing.
        UpstreamUnavailable: MLflow cannot be reached.
    """
    entries = verified_history(settings, spec)
    alias = alias_version(settings, spec, CHAMPION)
    wanted = entries[-1].version if entries else None
    repaired = alias != wanted
    if repaired:
        text = "%s: MLflow's alias champion was %s and becomes %s, as the promotion log says"
        log.log(logging.INFO if expected else logging.WARNING, text, spec.name, alias, wanted)
        set_alias(settings, spec, CHAMPION, wanted)
    if wanted is not None and alias_version(settings, spec, CHALLENGER) == wanted:
        set_alias(settings, spec, CHALLENGER, None)
        repaired = True
    return repaired


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


def set_alias(settings: Settings, spec: ModelSpec, alias: str, version: str | None) -> None:
    """Point an MLflow alias to a version, or remove it."""
    client = mlflow_client(settings)
    with asking_mlflow(settings, f"point {spec.name}@{alias} to {version or 'no version'}"):
        if version is None:
            client.delete_registered_model_alias(spec.name, alias)
        else:
            client.set_registered_model_alias(spec.name, alias, version)


def folder_hash(store: Store, *parts: str) -> str:
    """Return a SHA-256 over names and bytes of the files below a folder.

    Raises:
        FileNotFoundError: The folder holds no file.
    """
    files = store.files(*parts)
    if not files:
        raise FileNotFoundError(store.url(*parts))
    digest = hashlib.sha256()
    for name in files:
        digest.update(f"{name}\0".encode() + hashlib.sha256(store.read_bytes(*parts, name)).digest())
    return digest.hexdigest()


@lru_cache(maxsize=4)
def _load(settings: Settings, info: VersionInfo) -> Model:
    store = Store.of(settings)
    try:
        return _checked(store, (info.run_folder, MODEL), info, store.url(info.run_folder, MODEL))
    except FileNotFoundError:
        pass
    log.warning("%s %s: run folder %s is gone; loading MLflow's copy", info.model, info.version, info.run_folder)
    client = mlflow_client(settings)
    with tempfile.TemporaryDirectory(prefix="windsock-model-") as folder:
        with asking_mlflow(settings, f"hand out version {info.version} of {info.model}"):
            path = Path(client.download_artifacts(info.mlflow_run, MLFLOW_FOLDER, folder))
        return _checked(Store(str(path.parent)), (path.name,), info, f"MLflow run {info.mlflow_run}")


def _checked(store: Store, folder: tuple[str, ...], info: VersionInfo, where: str) -> Model:
    """Load a model folder whose files are the ones that were registered."""
    found = folder_hash(store, *folder)
    if found != info.model_hash:
        raise DataContractError(
            f"{where}: its files have hash {found[:12]}, but version {info.version} of {info.model} was registered "
            f"with {info.model_hash[:12]}: somebody changed them. Restore the folder, or train and register again."
        )
    return load(store.url(*folder))
