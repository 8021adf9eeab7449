"""The store's own index of model versions: ``<model>/versions/<version>.json``.

MLflow numbers the versions; this index says which run folder each one is, so that
scoring, gate and promotion find a version without asking a server.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any, Self

from windsock.errors import SpecError
from windsock.format_numbers import numbered, taken
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store

FOLDER = "versions"


@dataclass(frozen=True)
class VersionInfo:
    """One registered version of a model."""

    model: str
    version: str
    run: str
    """Name of its run folder."""
    as_of: date
    """Day that its training knew."""
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    """On its own holdout."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """As set in MLflow when it was registered."""
    model_hash: str = ""
    """SHA-256 over the files of its model folder."""
    mlflow_run: str = ""

    @property
    def run_folder(self) -> str:
        """Path of the run folder, relative to the store's root."""
        return f"runs/{self.model}/{self.run}"

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Rebuild it from its JSON form."""
        return cls(**{**raw, "as_of": date.fromisoformat(raw["as_of"])})

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return numbered("model version", {**asdict(self), "as_of": self.as_of.isoformat()})


def version_info(settings: Settings, spec: ModelSpec, version: str) -> VersionInfo:
    """Return what is known of one version.

    Raises:
        SpecError: There is no such version.
    """
    store = Store.of(settings)
    try:
        return _read(store, spec.name, version)
    except FileNotFoundError as err:
        raise SpecError.unknown(f"version of model {spec.name!r}", str(version), list_versions(settings, spec)) from err


def list_versions(settings: Settings, spec: ModelSpec) -> list[str]:
    """Return the registered versions, oldest first."""
    store = Store.of(settings)
    folder = store.path(spec.name, FOLDER)
    store.fs.invalidate_cache(folder)
    if not store.fs.exists(folder):
        return []
    names = (str(p).rsplit("/", 1)[-1] for p in store.fs.ls(folder, detail=False))
    versions = [n.removesuffix(".json") for n in names if n.endswith(".json") and not n.startswith(".")]
    return sorted(versions, key=lambda v: (len(v), v))


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
    store.write_json(info.to_json(), info.model, FOLDER, f"{info.version}.json")


def _read(store: Store, model: str, version: str) -> VersionInfo:
    parts = (model, FOLDER, f"{version}.json")
    return VersionInfo.from_json(taken("model version", store.read_json(*parts), store.url(*parts)))


def folder_hash(store: Store, *parts: str) -> str:
    """Return a SHA-256 over names and bytes of the files below a folder.

    Raises:
        FileNotFoundError: The folder holds no file.
    """
    root = store.path(*parts)
    files = sorted(str(p) for p in store.fs.find(root))
    if not files:
        raise FileNotFoundError(store.url(*parts))
    digest = hashlib.sha256()
    for path in files:
        name = path[len(root) :].lstrip("/")
        digest.update(f"{name}\0".encode() + hashlib.sha256(store.fs.cat_file(path)).digest())
    return digest.hexdigest()
