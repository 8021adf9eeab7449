"""The store's own index of model versions, ``<model>/versions/<version>.json``.

MLflow numbers the versions; the index says which run folder each one is, so that features, scoring, gate and promotion
find a version without asking a server.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from pydantic_core import to_jsonable_python

from windsock.errors import SpecError
from windsock.format_numbers import numbered
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store, damaged

FOLDER = "versions"
_MEND = "Put the file back from a backup, or remove it and train and promote another version."


@dataclass(frozen=True)
class VersionInfo:
    """One registered version of a model."""

    model: str
    version: str
    run: str
    """Name of its run folder."""
    as_of: date
    """Day that its training knew."""
    metrics: Mapping[str, float | None] = field(default_factory=dict, hash=False)
    """On its own holdout."""
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    """As set in MLflow when it was registered."""
    model_hash: str = ""
    """SHA-256 over the files of its model folder."""
    mlflow_run: str = ""
    definitions: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What its features are computed by (``definitions.json`` of its run folder); none in those of version 0.1."""

    refit_of: str = ""
    """Version of its judged twin, by whose recipe it was trained again; empty: it was judged itself."""

    @property
    def run_folder(self) -> str:
        """Path of the run folder, relative to the store's root."""
        return f"runs/{self.model}/{self.run}"


def version_info(settings: Settings, spec: ModelSpec, version: str) -> VersionInfo:
    """Return what is known of one version.

    Raises:
        SpecError: There is no such version.
    """
    try:
        return _read(Store.of(settings), spec.name, version)
    except FileNotFoundError as err:
        raise SpecError.unknown(f"version of model {spec.name!r}", str(version), list_versions(settings, spec)) from err


def judged_twin(settings: Settings, spec: ModelSpec, info: VersionInfo) -> VersionInfo:
    """Return the version that was judged: of a refit its twin, of any other itself."""
    return version_info(settings, spec, info.refit_of) if info.refit_of else info


def list_versions(settings: Settings, spec: ModelSpec) -> list[str]:
    """Return the registered versions, oldest first."""
    return sorted(Store.of(settings).json_names(spec.name, FOLDER), key=lambda v: (len(v), v))


def record_version(settings: Settings, info: VersionInfo) -> None:
    """Put a version into the index.

    Raises:
        SpecError: The version is another run's already: MLflow counts from the beginning again.
    """
    store = Store.of(settings)
    try:
        before = _read(store, info.model, info.version)
    except FileNotFoundError:
        before = info
    if before.run != info.run:
        raise SpecError(
            f"{info.model}: MLflow calls run {info.run} version {info.version}, but that version is run {before.run} "
            "here. MLflow's database has been emptied or exchanged while the store was kept. Restore the database, or "
            "point MLFLOW_TRACKING_URI to the right server; to begin anew, remove both (windsock down --wipe)."
        )
    content = numbered("model version", to_jsonable_python(info))
    store.write_json(content, info.model, FOLDER, f"{info.version}.json")


def _read(store: Store, model: str, version: str) -> VersionInfo:
    parts = (model, FOLDER, f"{version}.json")
    info = store.read_record("model version", VersionInfo, *parts, mend=_MEND)
    if (info.model, info.version) != (model, version):
        raise damaged(store.url(*parts), f"it holds version {info.version} of {info.model}", _MEND)
    return info
