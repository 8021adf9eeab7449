"""The run folder: everything of one training under one name, ``runs/<model>/<run>/``.

Its name follows from the run that asked and from what goes in, so a retry finds its own and writes the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

from windsock.errors import SpecError
from windsock.format_numbers import KEY, check
from windsock.store import MEND, Store, to_json

if TYPE_CHECKING:
    import pyarrow as pa

REQUEST = "request.json"
"""Written last by ``assemble``: with it, the training set is complete."""
METRICS = "metrics.json"
"""Written last by ``fit``: with it, the training is complete."""
LINEAGE = "lineage.json"
DEFINITIONS = "definitions.json"
"""By what the features are computed (see ``features.frozen``)."""
TRAIN = "train.parquet"
OLDER = "older.parquet"
"""Rows before the window, on which alone its lengths are compared; only where the spec has several."""
HOLDOUT = "holdout.parquet"
HOLDOUT_SCORES = "holdout_scores.parquet"
REFERENCE = "reference.parquet"
CLUSTER = "__cluster"
"""Column of the reference: number of the row's entity, which says only which rows belong together."""
MODEL = "model"
REFIT_OF = "refit_of"
"""Field of a refit's request and lineage: ``run`` and ``version`` of its judged twin."""
REFIT = "refit.json"
"""In a judged run: what came of training it again."""
CANDIDATE_TAG = "windsock.candidate"
"""MLflow tag of a candidate's own run: ``<run folder>/<estimator>``."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
_LONGEST_ORIGIN = 48


def run_id(as_of: date, origin: str, content: Mapping[str, Any]) -> str:
    """Name a run folder: day known, run that asked, and eight digits of what goes in."""
    slug = re.sub(r"[^A-Za-z0-9]+", "-", origin).strip("-")[:_LONGEST_ORIGIN].rstrip("-") or "run"
    return f"{as_of}-{slug}-{hashlib.sha256(to_json(dict(content))).hexdigest()[:8]}"


class RunFolder(Store):
    """One run folder in the store."""

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
        return cls(store.root, store.memory, f"runs/{model}/{run}")

    @property
    def model(self) -> str:
        """The model's name."""
        return self.prefix.split("/")[1]

    @property
    def run(self) -> str:
        """The run's name."""
        return self.prefix.split("/")[2]

    @property
    def judged(self) -> RunFolder:
        """The run that was judged: of a refit its twin's, of any other this one."""
        twin = self.read_json(LINEAGE).get(REFIT_OF) if self.exists(LINEAGE) else None
        return self if twin is None else RunFolder.named(self, self.model, twin["run"])

    @property
    def last_learnt(self) -> date | None:
        """The last day that the run's model learnt from; None: its lineage is gone."""
        windows = self.read_json(LINEAGE).get("windows") if self.exists(LINEAGE) else None
        return date.fromisoformat(windows["train"][-1]) if windows else None

    def read_json(self, *parts: str, mend: str = MEND) -> dict[str, Any]:
        """Return a JSON file's content.

        Raises:
            DamagedRecord: The file is damaged.
            SpecError: The file is not there, so an earlier step has not finished.
        """
        try:
            content = super().read_json(*parts, mend=mend)
        except FileNotFoundError as err:
            earlier = "assemble" if parts[-1] in (REQUEST, LINEAGE) else "fit"
            raise SpecError(
                f"{self.model}: run {self.run} has no {'/'.join(parts)} in {self.url()}: "
                f"the step '{earlier}' has not finished for it. Run that step first, or check the run's name."
            ) from err
        if parts == (REQUEST,):
            check("training request", content.get(KEY), self.url(REQUEST))
        return content

    def read_table(self, name: str, sha256: str | None = None) -> pa.Table:
        """Return a Parquet file's rows; with ``sha256``, only if its bytes are those."""
        return parquet_rows(self.read_bytes(name), self.url(name), sha256)

    def write_table(self, rows: pa.Table, name: str) -> str:
        """Write a Parquet file in one step.

        Returns:
            SHA-256 of its bytes.
        """
        data = parquet_bytes(rows)
        self.write_bytes(data, name)
        return hashlib.sha256(data).hexdigest()


class CheckpointFolder(Store):
    """Where a trainer keeps its progress: small files beside the candidate, each replaced in one step."""

    def sub(self, name: str) -> CheckpointFolder:
        """Return a folder inside this one."""
        return CheckpointFolder(self.url(name))

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, or None if it was never written."""
        try:
            return self.read_bytes(name)
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Put a file in place in one step."""
        self.write_bytes(data, name)

    def clear(self) -> None:
        """Remove the folder and everything in it, if it is there."""
        if self.fs.exists(self.path()):
            self.fs.rm(self.path(), recursive=True)


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
