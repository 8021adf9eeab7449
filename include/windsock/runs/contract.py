"""The contract between Windsock and a trainer: a request in, a candidate out, as files.

A trainer is any program that reads ``request.json`` and leaves a model folder and ``metrics.json`` beside it
(``docs/trainer.md``). Paths in a request are relative to the request, so that a volume may be mounted anywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import posixpath
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from windsock import __version__
from windsock.errors import DataContractError, SpecError, UpstreamUnavailable, WindsockError
from windsock.format_numbers import KEY, check, written
from windsock.redact import redact, redact_line
from windsock.runs.run_folder import METRICS, REQUEST, CheckpointFolder, RunFolder, parquet_rows
from windsock.store import Store

if TYPE_CHECKING:
    import pyarrow as pa


REQUEST_FORMAT = written("trainer request")
CANDIDATE_FORMAT = "windsock-candidate/1"
REQUEST_VARIABLE = "WINDSOCK_REQUEST"
ROLE_VARIABLE = "WINDSOCK_TRAINER_ROLE"
CANDIDATES = "candidates"
"""Folder of a run folder that holds a folder for each estimator."""
CHECKPOINTS = "checkpoints"
TRAIN_CSV = "train.csv.gz"
NATIVE_SCORES = "check.csv.gz"
_LIBRARIES = ("lightgbm", "torch", "optuna", "numpy", "pyarrow", "duckdb", "feast")


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
            UpstreamUnavailable: Its store cannot be read.
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
        except WindsockError:
            raise
        except Exception as err:  # each kind of store has errors of its own
            raise UpstreamUnavailable(
                f"{redact(place)}: cannot be read: {type(err).__name__}: {redact_line(err).rstrip('.')}. "
                "Check the address, the credentials and the access rights."
            ) from err
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
        """Return the training rows, those before the window first if its lengths are to be compared.

        Raises:
            SpecError: They are not the rows that the request names.
        """
        url = self.train_url
        try:
            rows = parquet_rows(self.train_bytes(), url, str(self.raw["train"]["sha256"]))
            if (older := self.raw.get("older")) is None:
                return rows
            url = resolved(self.store.root, str(older["path"]))
            folder, _, name = url.rpartition("/")
            before = parquet_rows(Store(folder).read_bytes(name), url, str(older["sha256"]))
        except FileNotFoundError as err:
            raise SpecError(f"{url}: the training rows are not there. Run the step 'assemble' again.") from err
        import pyarrow as pa

        return pa.concat_tables([before, rows]).combine_chunks()

    def report(self) -> dict[str, Any]:
        """Return what a trainer said of its candidate, whichever request that answers.

        Raises:
            DataContractError: The candidate is incomplete, or what was said is no JSON object.
        """
        place = self.store.url(METRICS)
        try:
            found = self.store.read_json(METRICS, mend="The trainer must write one JSON object (docs/trainer.md).")
        except FileNotFoundError as err:
            raise DataContractError(
                f"{place} is not there: the trainer of {self.name} has ended without finishing. It must write its "
                f"model folder, then {METRICS}. Its log says how far it came; docs/trainer.md says what is expected."
            ) from err
        if found.get("format") != CANDIDATE_FORMAT:
            raise DataContractError(
                f"{place}: must be a JSON object whose format is {CANDIDATE_FORMAT!r}, not {found.get('format')!r}."
            )
        return found

    def metrics(self) -> dict[str, Any]:
        """Return :meth:`report`, if it answers this very request.

        Raises:
            DataContractError: The candidate is incomplete, was made from another request, or is damaged.
        """
        found = self.report()
        if found.get("request_sha256") != self.sha256:
            raise DataContractError(
                f"{self.store.url(METRICS)}: its request_sha256 is {found.get('request_sha256')!r}, but the bytes of "
                f"{REQUEST} have {self.sha256}: it was made from another request. Run the step 'fit' again; a trainer "
                "hashes the file as it lies there, before parsing."
            )
        said, model = found.get("model_sha256"), str(self.raw["output"]["model"])
        if said is not None and said != model_sha256(self.store, model):
            raise DataContractError(
                f"{self.store.url(model)}: its files are not the ones that the trainer left: {METRICS} beside it says "
                "another model_sha256. They were damaged or changed since. Run the step 'fit' again."
            )
        return found

    def finished(self) -> dict[str, Any] | None:
        """Return :meth:`metrics` if the candidate is complete and was made from this very request."""
        with suppress(DataContractError):
            return self.metrics()
        return None

    def write_candidate(self, files: Mapping[str, bytes], metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Write the model folder, then ``metrics.json``: with it, the candidate is complete."""
        for name, data in files.items():
            self.store.write_bytes(data, str(self.raw["output"]["model"]), name)
        model = model_sha256(self.store, str(self.raw["output"]["model"]))
        full = {"format": CANDIDATE_FORMAT, "request_sha256": self.sha256, "model_sha256": model, **metrics}
        self.store.write_json(full, str(self.raw["output"]["metrics"]))
        return full


def model_sha256(store: Store, *folder: str) -> str:
    """Return a SHA-256 over names and bytes of a model folder's files, in order of their names."""
    digest = hashlib.sha256()
    for name in store.files(*folder):
        digest.update(name.encode() + b"\0" + store.read_bytes(*folder, name))
    return digest.hexdigest()


def request_url(folder: RunFolder, estimator: str) -> str:
    """Return where a candidate's request lies."""
    return folder.url(CANDIDATES, estimator, REQUEST)


def read_candidate(folder: RunFolder, estimator: str) -> dict[str, Any]:
    """Return what a trainer said of its candidate; see :meth:`TrainerRequest.metrics`."""
    return TrainerRequest.read(request_url(folder, estimator)).metrics()


def libraries() -> dict[str, str]:
    """Return each library's version here; ``absent`` where it is not installed, as Feast in a trainer's image."""
    # By its own word: in a trainer's image Windsock is a folder on the path, not an installed package.
    found = {"python": platform.python_version(), "windsock": __version__}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def resolved(folder: str, path: str) -> str:
    """Return what a path in a request means, seen from the request's folder (also in an object store)."""
    scheme, separator, below = folder.rpartition("://")
    return f"{scheme}{separator}{posixpath.normpath(posixpath.join(below, path))}"
