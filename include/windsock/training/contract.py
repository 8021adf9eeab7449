"""The contract between Windsock and a trainer: a request in, a candidate out, as files.

A trainer is any program that reads ``request.json`` and leaves a model folder and
``metrics.json`` beside it; ``docs/trainer.md`` is the same for people. All paths in a
request are relative to the request itself, so that a volume may be mounted anywhere.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from windsock.errors import DataContractError, SpecError
from windsock.format_numbers import KEY, check, numbered, written
from windsock.spec.estimators import Estimator
from windsock.spec.modelling import jsonable
from windsock.store import Store, to_json
from windsock.training.checkpoints import CheckpointFolder
from windsock.training.folds import time_folds
from windsock.training.run_folder import METRICS, MODEL, REQUEST, TRAIN, RunFolder

if TYPE_CHECKING:
    import pyarrow as pa

    from windsock.spec import ModelSpec

REQUEST_FORMAT = written("trainer request")
CANDIDATE_FORMAT = "windsock-candidate/1"
REQUEST_VARIABLE = "WINDSOCK_REQUEST"
ROLE_VARIABLE = "WINDSOCK_TRAINER_ROLE"
CHECKPOINTS = "checkpoints"
TRAIN_CSV = "train.csv.gz"

_TO_TRAINERS = ("model", "task", "label", "key", "features", "categorical", "metric", "seed", "gap_days")


def run_request(spec: ModelSpec, features: Iterable[str], train_days: Iterable[date]) -> dict[str, Any]:
    """Return what a run's ``request.json`` says for its trainers.

    Args:
        spec: The model, with the values of this one training.
        features: Columns of the training set that models may take, in order.
        train_days: Days of the window.
    """
    return {
        "model": spec.name,
        "task": spec.label.task,
        "label": spec.label.column,
        "key": spec.events.key,
        "features": list(features),
        "categorical": list(spec.training.categorical),
        "metric": spec.training.metric,
        "seed": spec.training.seed,
        "gap_days": spec.gap_days,
        "train_days": [day.isoformat() for day in train_days],
        "spec": numbered("definition", jsonable(spec)),
    }


def trainer_request(request: Mapping[str, Any], run: str, estimator: Estimator, train: Mapping[str, Any]) -> Any:
    """Return the content of a candidate's ``request.json``.

    Args:
        request: Content of the run's own ``request.json``.
        run: Name of the run folder.
        estimator: What to train.
        train: ``path``, ``sha256``, ``rows`` and ``format`` of the training rows; ``columns`` (kinds) if it is CSV.
    """
    days = [date.fromisoformat(d) for d in request["train_days"]]
    folds = time_folds(days, folds=int(request["spec"]["training"]["folds"]), gap_days=int(request["gap_days"]))
    return {
        "format": REQUEST_FORMAT,
        "run": run,
        **{name: request[name] for name in _TO_TRAINERS},
        "time": "event_timestamp",
        "estimator": jsonable(estimator),
        "train": dict(train),
        "days": request["train_days"],
        "folds": [
            {
                "learn": [d.isoformat() for d in fold.learn],
                "judge": [d.isoformat() for d in fold.judge],
                "gap_days": fold.gap_days,
            }
            for fold in folds
        ],
        "output": {"model": MODEL, "metrics": METRICS, "checkpoints": CHECKPOINTS},
        "spec": request["spec"],
    }


@dataclass(frozen=True)
class TrainerRequest:
    """A candidate's request, and the folder that it lies in."""

    store: Store
    """Rooted at the candidate's folder."""
    raw: Mapping[str, Any]
    sha256: str

    @classmethod
    def read(cls, url: str | None = None) -> TrainerRequest:
        """Read a request by its path or URL; default: the one that ``WINDSOCK_REQUEST`` names.

        Raises:
            SpecError: There is no request there, or it is of another format.
        """
        place = url or os.environ.get(REQUEST_VARIABLE, "")
        folder, _, name = place.rpartition("/")
        if name != REQUEST or not folder:
            raise SpecError(
                f"{REQUEST_VARIABLE} must be the path or URL of a candidate's {REQUEST}, such as "
                f"/store/runs/fraud/<run>/candidates/lightgbm/{REQUEST}; it is {place!r}."
            )
        store = Store(folder)
        try:
            data = store.read_bytes(name)
            raw = json.loads(data)
            form = raw.get(KEY, "none")
        except FileNotFoundError as err:
            raise SpecError(
                f"{place}: there is no request. Run the step 'assemble' first, and check that this store is mounted."
            ) from err
        except (ValueError, AttributeError) as err:
            raise SpecError(f"{place}: is no request: {err}. Run the step 'assemble' again.") from err
        check("trainer request", form, place)
        return cls(store, raw, hashlib.sha256(data).hexdigest())

    @property
    def name(self) -> str:
        """The estimator's name."""
        return str(self.raw["estimator"]["name"])

    @property
    def train_url(self) -> str:
        """Path or URL of the training rows."""
        return resolved(self.store.root, str(self.raw["train"]["path"]))

    @cached_property
    def checkpoints(self) -> CheckpointFolder:
        """Where the trainer keeps its progress."""
        return CheckpointFolder(self.store.url(str(self.raw["output"]["checkpoints"])))

    def train_bytes(self) -> bytes:
        """Return the file of training rows as it lies there, Parquet or CSV.

        Raises:
            FileNotFoundError: It is not there.
        """
        folder, _, name = self.train_url.rpartition("/")
        return Store(folder).read_bytes(name)

    def train_table(self) -> pa.Table:
        """Return the training rows.

        Raises:
            SpecError: They are not the rows that the request names.
        """
        import pyarrow.parquet as pq

        place, named = self.train_url, str(self.raw["train"]["sha256"])
        try:
            data = self.train_bytes()
        except FileNotFoundError as err:
            raise SpecError(f"{place}: the training rows are not there. Run the step 'assemble' again.") from err
        if hashlib.sha256(data).hexdigest() != named:
            raise SpecError(
                f"{place} is not the file that its request names (SHA-256 {named[:12]}): "
                "it was changed or half replaced. Run the step 'assemble' again."
            )
        return pq.read_table(io.BytesIO(data))

    def finished(self) -> dict[str, Any] | None:
        """Return the candidate's metrics if it is complete and was made from this very request."""
        try:
            found = self.store.read_json(str(self.raw["output"]["metrics"]))
        except (FileNotFoundError, ValueError):
            return None
        return found if isinstance(found, dict) and found.get("request_sha256") == self.sha256 else None

    def write_candidate(self, files: Mapping[str, bytes], metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Write the model folder, then ``metrics.json``: with it, the candidate is complete."""
        for name, data in files.items():
            self.store.write_bytes(data, str(self.raw["output"]["model"]), name)
        full = {"format": CANDIDATE_FORMAT, "request_sha256": self.sha256, **metrics}
        self.store.write_json(full, str(self.raw["output"]["metrics"]))
        return full


def candidate_parts(estimator: str, *names: str) -> tuple[str, ...]:
    """Return a candidate's path below its run folder."""
    return ("candidates", estimator, *names)


def request_url(folder: RunFolder, estimator: str) -> str:
    """Return where a candidate's request lies."""
    return folder.store.url(*folder.parts(*candidate_parts(estimator, REQUEST)))


def read_candidate(folder: RunFolder, estimator: str) -> dict[str, Any]:
    """Return what a trainer said of its candidate.

    Raises:
        DataContractError: The candidate is incomplete or was made from another request.
    """
    request = TrainerRequest.read(request_url(folder, estimator))
    place = request.store.url(METRICS)
    if not request.store.exists(METRICS):
        raise DataContractError(
            f"{place} is not there: the trainer of {estimator} has ended without finishing. It must write its model "
            f"folder, then {METRICS}. Its log says how far it came; docs/trainer.md says what is expected."
        )
    try:
        found = request.store.read_json(METRICS)
    except ValueError as err:
        raise DataContractError(f"{place}: is no JSON: {err}.") from err
    if not isinstance(found, dict) or found.get("format") != CANDIDATE_FORMAT:
        raise DataContractError(f"{place}: must be a JSON object whose format is {CANDIDATE_FORMAT!r}.")
    if found.get("request_sha256") != request.sha256:
        raise DataContractError(
            f"{place}: its request_sha256 is {found.get('request_sha256')!r}, but {REQUEST} has {request.sha256}: the "
            "candidate was made from another request. Run the step 'fit' again."
        )
    return found


def write_requests(folder: RunFolder, request: Mapping[str, Any], train: pa.Table, hashes: Mapping[str, str]) -> None:
    """Write the request of every estimator's candidate, with training rows as CSV for those that ask for it."""
    for raw in request["spec"]["training"]["estimators"]:
        estimator = TypeAdapter[Estimator](Estimator).validate_python(raw)
        rows = {"path": f"../../{TRAIN}", "sha256": hashes[TRAIN], "rows": train.num_rows, "format": "parquet"}
        if getattr(estimator, "data", None) == "csv":
            from windsock.training.csv_export import csv_bytes, csv_columns

            data = csv_bytes(train)
            folder.store.write_bytes(data, *folder.parts(*candidate_parts(estimator.name, TRAIN_CSV)))
            rows |= {"path": TRAIN_CSV, "sha256": hashlib.sha256(data).hexdigest(), "format": "csv"}
            rows["columns"] = csv_columns(train)
        content = trainer_request(request, folder.run, estimator, rows)
        folder.store.write_bytes(to_json(content), *folder.parts(*candidate_parts(estimator.name, REQUEST)))


def resolved(folder: str, path: str) -> str:
    """Return what a path in a request means, seen from the request's folder (also in an object store)."""
    scheme, separator, below = folder.rpartition("://")
    return f"{scheme}{separator}{posixpath.normpath(posixpath.join(below, path))}"
