"""The run folder: everything of one training under one name, ``runs/<model>/<run>/``.

Its name follows from the run that asked and from what goes in, so a retry finds its own
folder, writes the same bytes, and never touches what another training left.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from windsock.errors import SpecError
from windsock.format_numbers import KEY, check
from windsock.store import Store, to_json

if TYPE_CHECKING:
    import pyarrow as pa

REQUEST = "request.json"
"""Written last by ``assemble``: with it, the training set is complete."""
METRICS = "metrics.json"
"""Written last by ``fit``: with it, the training is complete."""
LINEAGE = "lineage.json"
TRAIN = "train.parquet"
HOLDOUT = "holdout.parquet"
HOLDOUT_SCORES = "holdout_scores.parquet"
REFERENCE = "reference.parquet"
MODEL = "model"
CANDIDATE_TAG = "windsock.candidate"
"""MLflow tag of a candidate's own run: ``<run folder>/<estimator>``."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
_LONGEST_ORIGIN = 48


def run_id(as_of: date, origin: str, content: Mapping[str, Any]) -> str:
    """Name a run folder: day known, run that asked, and eight digits of what goes in."""
    slug = re.sub(r"[^A-Za-z0-9]+", "-", origin).strip("-")[:_LONGEST_ORIGIN].rstrip("-") or "run"
    return f"{as_of}-{slug}-{hashlib.sha256(to_json(dict(content))).hexdigest()[:8]}"


@dataclass(frozen=True)
class RunFolder:
    """One run folder in the store."""

    store: Store
    model: str
    run: str

    @classmethod
    def named(cls, store: Store, model: str, run: object) -> RunFolder:
        """Return a run folder by the name that an earlier step gave.

        Raises:
            SpecError: No name was given, or one that is no folder name.
        """
        if not isinstance(run, str) or not _NAME.fullmatch(run):
            raise SpecError(
                f"{model}: {run!r} is no run. Give the option 'run' with the name that the step 'assemble' returned."
            )
        return cls(store, model, run)

    def parts(self, *names: str) -> tuple[str, ...]:
        """Return the path below the store's root."""
        return ("runs", self.model, self.run, *names)

    def exists(self, *names: str) -> bool:
        """Say whether a file is there."""
        return self.store.exists(*self.parts(*names))

    def read_json(self, name: str) -> dict[str, Any]:
        """Return a JSON file's content.

        Raises:
            SpecError: The file is not there, so an earlier step has not finished.
        """
        try:
            content: dict[str, Any] = self.store.read_json(*self.parts(name))
        except FileNotFoundError as err:
            earlier = "assemble" if name in (REQUEST, LINEAGE) else "fit"
            raise SpecError(
                f"{self.model}: run {self.run} has no {name} in {self.store.url(*self.parts())}: "
                f"the step '{earlier}' has not finished for it. Run that step first, or check the run's name."
            ) from err
        if name == REQUEST:
            check("training request", content.get(KEY), self.store.url(*self.parts(name)))
        return content

    def write_json(self, value: Any, name: str) -> None:
        """Write a JSON file in one step."""
        self.store.write_json(value, *self.parts(name))

    def read_table(self, name: str, sha256: str | None = None) -> pa.Table:
        """Return a Parquet file's rows; with ``sha256``, only if its bytes are those."""
        return parquet_rows(self.store.read_bytes(*self.parts(name)), self.store.url(*self.parts(name)), sha256)

    def write_table(self, rows: pa.Table, name: str) -> str:
        """Write a Parquet file in one step.

        Returns:
            SHA-256 of its bytes.
        """
        data = parquet_bytes(rows)
        self.store.write_bytes(data, *self.parts(name))
        return hashlib.sha256(data).hexdigest()

    def write_files(self, files: Mapping[str, bytes], folder: str) -> None:
        """Write files into a folder below."""
        for name, data in files.items():
            self.store.write_bytes(data, *self.parts(folder, name))


def parquet_rows(data: bytes, url: str, sha256: str | None = None) -> pa.Table:
    """Return the rows of a Parquet file.

    Raises:
        SpecError: A hash is given, and the bytes have another.
    """
    import pyarrow.parquet as pq

    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise SpecError(
            f"{url} is not the file that its request names (SHA-256 {sha256[:12]}): "
            "it was changed or half replaced. Run the step 'assemble' again."
        )
    return pq.read_table(io.BytesIO(data))


def parquet_bytes(rows: pa.Table) -> bytes:
    """Return rows as Parquet; equal rows, equal bytes."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    plain = rows.replace_schema_metadata(None).combine_chunks()
    pq.write_table(plain, buffer, compression="zstd", row_group_size=1 << 20)
    return buffer.getvalue()
