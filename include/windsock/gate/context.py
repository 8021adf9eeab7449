"""Everything the checks look at, read once and only when a check asks for it."""

from __future__ import annotations

import hashlib
import io
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from windsock import tables
from windsock.errors import DataContractError
from windsock.gate.compare import Comparison
from windsock.ledger import Ledger
from windsock.registry.models import load_version
from windsock.registry.versions import VersionInfo, folder_hash, version_info
from windsock.runs.run_folder import HOLDOUT, HOLDOUT_SCORES, MODEL, REQUEST
from windsock.served.metrics import SCORE, TIME, evaluate
from windsock.served.model import Model, load
from windsock.served.resampling import ClusteredRows, clustered_rows
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

Vector = NDArray[np.float64]


class GateContext:
    """One challenger, the champion it is held against (or none) and the frozen rows of both."""

    def __init__(self, settings: Settings, spec: ModelSpec, version: str, champion: str | None) -> None:
        self.settings = settings
        self.spec = spec
        self.store = Store.of(settings)
        self.info: VersionInfo = version_info(settings, spec, version)
        self.champion: VersionInfo | None = version_info(settings, spec, champion) if champion is not None else None
        self.comparison: Comparison | None = None
        """Left here by the comparison with the champion, for the report."""

    def model_files(self) -> list[str]:
        """List the files of the challenger's model folder."""
        root = self.store.path(self.info.run_folder, MODEL)
        return sorted(str(p)[len(root) :].lstrip("/") for p in self.store.fs.find(root))

    def model_hash(self) -> str:
        """Hash the challenger's model folder as it lies there now."""
        return folder_hash(self.store, self.info.run_folder, MODEL)

    def frozen_hashes(self) -> tuple[str, str | None]:
        """Return the SHA-256 of the holdout file as it is now, and as it was when it was frozen."""
        now = hashlib.sha256(self.store.read_bytes(self.info.run_folder, HOLDOUT)).hexdigest()
        return now, self.store.read_json(self.info.run_folder, REQUEST).get("files", {}).get(HOLDOUT)

    def recorded_scores(self) -> Vector:
        """Return the scores of the holdout that training recorded, shape ``(rows,)``."""
        return np.asarray(self._parquet(HOLDOUT_SCORES).column(SCORE).to_numpy(), dtype=np.float64)

    @cached_property
    def holdout(self) -> pa.Table:
        """The frozen rows, in order."""
        return self._parquet(HOLDOUT)

    @cached_property
    def holdout_hash(self) -> str:
        """SHA-256 of the frozen rows, their order and types included."""
        return tables.content_hash(self.holdout)

    @cached_property
    def model(self) -> Model:
        """The challenger, loaded afresh."""
        return load(self.store.url(self.info.run_folder, MODEL))

    @cached_property
    def scores(self) -> Vector:
        """The challenger's scores of every holdout row."""
        return self.model.predict(self.holdout)

    @cached_property
    def metrics(self) -> dict[str, float | None]:
        """The challenger's metrics by the model's evaluation protocol, computed anew; None: cannot be computed."""
        return dict(evaluate(self.spec, self.holdout, self.scores)["metrics"])

    @cached_property
    def rows(self) -> ClusteredRows:
        """The rows that count."""
        return self._counted[0]

    @cached_property
    def judged_scores(self) -> Vector:
        """The challenger's scores of the rows that count."""
        return self.scores[self._counted[1]]

    @cached_property
    def champion_scores(self) -> Vector:
        """The champion's scores of the rows that count.

        Raises:
            DataContractError: It needs features that the rows lack, and has not scored them in production either.
        """
        if self.champion is None:
            raise DataContractError("There is no champion.")
        champion = load_version(self.settings, self.spec, self.champion.version)
        missing = [n for n in champion.feature_names if n not in self.holdout.column_names]
        scores = self._production_scores(self.champion.version, missing) if missing else champion.predict(self.holdout)
        return scores[self._counted[1]]

    @cached_property
    def _counted(self) -> tuple[ClusteredRows, NDArray[np.bool_]]:
        return clustered_rows(self.spec, self.holdout)

    def _parquet(self, name: str) -> pa.Table:
        import pyarrow.parquet as pq

        return pq.read_table(io.BytesIO(self.store.read_bytes(self.info.run_folder, name)))

    def _production_scores(self, champion: str, missing: list[str]) -> Vector:
        """Return the champion's predictions of these rows in production, where it cannot score them now."""
        import pyarrow as pa
        import pyarrow.compute as pc

        key = self.spec.events.key
        times = self.holdout.column(TIME)
        first, last = (pc.cast(f(times), pa.date32()).as_py() for f in (pc.min, pc.max))
        records = Ledger(self.store, self.spec.name, "score").between(first, last)
        predictions = tables.read(self.store, records.values(), "predictions")
        if predictions is not None:
            predictions = predictions.filter(pc.equal(predictions["model_version"], champion))
            found = pc.index_in(self.holdout.column(key), value_set=predictions.column(key).combine_chunks())
            if found.null_count == 0:
                return np.asarray(predictions.column(SCORE).take(found).to_numpy(), dtype=np.float64)
        raise DataContractError(
            f"Champion {champion} needs {', '.join(missing)}, which the challenger's holdout lacks, and it has not "
            f"scored all days of {first}..{last} in production either, so the two cannot be compared on the same rows. "
            "Keep the old features in the spec for one more training; remove them after it has been promoted."
        )
