"""The two MLflow aliases: ``champion`` follows the promotion log, ``challenger`` is what was registered last.

A kill between the log entry and the alias leaves an alias that is behind; a hand-set alias differs from the log. Both
are put right whenever a step comes by: the log decides, always.
"""

import logging

from windsock.errors import SpecError
from windsock.promotions import current
from windsock.registry.client import asking_mlflow, mlflow_client
from windsock.registry.versions import list_versions
from windsock.settings import Settings
from windsock.spec import ModelSpec

log = logging.getLogger(__name__)

CHAMPION = "champion"
CHALLENGER = "challenger"


def reconcile(settings: Settings, spec: ModelSpec, *, expected: bool = False) -> bool:
    """Make MLflow's aliases say what the promotion log says; ``expected`` if that has just been written.

    Returns:
        Whether anything had to be repaired.

    Raises:
        UpstreamUnavailable: MLflow cannot be reached.
    """
    entry = current(settings, spec)
    alias = alias_version(settings, spec, CHAMPION)
    wanted = entry.version if entry is not None else None
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
