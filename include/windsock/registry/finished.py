"""A finished run folder as the registry sees it: what to show in MLflow, by name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

from windsock.days import parse_day
from windsock.errors import SpecError
from windsock.registry.versions import folder_hash
from windsock.runs.run_folder import (
    HOLDOUT,
    HOLDOUT_SCORES,
    LINEAGE,
    METRICS,
    MODEL,
    REQUEST,
    TRAIN,
    RunFolder,
)
from windsock.spec import ModelSpec
from windsock.store import Store

RUN_TAG = "windsock.run"
"""MLflow tag by which a run folder's MLflow run and version are found again."""

_REQUIRED = (REQUEST, METRICS, LINEAGE, TRAIN, HOLDOUT, HOLDOUT_SCORES, MODEL)
_LINEAGE_TAGS = ("commit", "spec_hash", "seed", "origin", "summary")


@dataclass(frozen=True)
class FinishedRun:
    """A run folder whose training is complete."""

    store: Store
    model: str
    run: str
    request: Mapping[str, Any]
    judged: Mapping[str, Any]
    """Content of ``metrics.json``."""
    lineage: Mapping[str, Any]

    @classmethod
    def open(cls, store: Store, spec: ModelSpec, run: object) -> FinishedRun:
        """Read a run folder's descriptions.

        Raises:
            SpecError: The folder is not there or not finished.
        """
        folder = RunFolder.named(store, spec.name, run)
        missing = [name for name in _REQUIRED if not folder.exists(name)]
        if missing:
            raise SpecError(
                f"{spec.name}: run folder {store.url(*folder.parts())} lacks {', '.join(missing)}: the training did "
                f"not finish. Run {spec.name}_train again, or name another run."
            )
        request, judged, lineage = (folder.read_json(name) for name in (REQUEST, METRICS, LINEAGE))
        return cls(store, spec.name, folder.run, request, judged, lineage)

    @property
    def path(self) -> str:
        """The folder, relative to the store's root."""
        return f"runs/{self.model}/{self.run}"

    @property
    def as_of(self) -> date:
        """Day that the training knew."""
        return parse_day(self.request.get("as_of"), what=f"as_of of run {self.run}")

    @cached_property
    def model_hash(self) -> str:
        """SHA-256 over the model folder."""
        return folder_hash(self.store, self.path, MODEL)

    @property
    def holdout_metrics(self) -> dict[str, float]:
        """Metrics on the holdout; those that could not be computed are left out."""
        return {k: float(v) for k, v in self.judged["metrics"].items() if v is not None}

    def file_hash(self, name: str) -> str:
        """SHA-256 of one of its files."""
        return hashlib.sha256(self.store.read_bytes(self.path, name)).hexdigest()

    def tags(self, spec: ModelSpec) -> dict[str, str]:
        """Return what a person filters runs and versions by, lineage included."""
        known = {
            RUN_TAG: self.run,
            "windsock.model": self.model,
            "windsock.owner": spec.owner,
            "windsock.as_of": self.as_of.isoformat(),
            "windsock.model_hash": self.model_hash,
            "windsock.folder": self.path,
        }
        lineage = {f"lineage.{k}": str(self.lineage[k]) for k in _LINEAGE_TAGS if self.lineage.get(k) is not None}
        libraries = {f"library.{k}": str(v) for k, v in self.lineage.get("libraries", {}).items()}
        return {**lineage, **libraries, **known}

    def params(self) -> dict[str, str]:
        """Return what the model was made with."""
        chosen = self.judged.get("chosen", {})
        own = dict(chosen.get("params") or {})
        return {
            **{k: str(v) for k, v in sorted(own.items())},
            "rounds": str(chosen.get("rounds", "")),
            "trial": str(chosen.get("trial", "")),
            "estimator": str(chosen.get("estimator") or ""),
            "kind": str(chosen.get("kind") or ""),
            "metric": str(self.judged.get("metric", "")),
            "as_of": self.as_of.isoformat(),
            "features": str(len(self.request.get("features", ()))),
        }

    def numbers(self) -> dict[str, float]:
        """Return every single number worth a place in MLflow's list of metrics."""
        counts = {
            f"{part}_{name}": float(value)
            for part in ("train", "holdout")
            for name, value in self.judged.get(part, {}).items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        return {**counts, **self.holdout_metrics}
