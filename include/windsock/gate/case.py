"""Everything the checks look at, read once and only when a check asks for it."""

from __future__ import annotations

import hashlib
import io
from functools import cached_property
from typing import TYPE_CHECKING, Any

from windsock.errors import DataContractError
from windsock.gate.rows import judged_rows
from windsock.ledger import Ledger
from windsock.registry.models import VersionInfo, load_version, version_info
from windsock.registry.versions import folder_hash
from windsock.runs.run_folder import HOLDOUT, HOLDOUT_SCORES, MODEL, REQUEST
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from windsock.gate.compare import Comparison
    from windsock.gate.weighted import JudgedRows
    from windsock.served.model import Model

    Vector = NDArray[np.float64]


class Case:
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

    def recorded_scores(self) -> Vector:
        """Return the scores of the holdout that training recorded, shape ``(rows,)``."""
        import numpy as np

        return np.asarray(self._parquet(HOLDOUT_SCORES).column("score").to_numpy(), dtype=np.float64)

    @cached_property
    def holdout(self) -> pa.Table:
        """The frozen rows, in order."""
        return self._parquet(HOLDOUT)

    @cached_property
    def holdout_hash(self) -> str:
        """SHA-256 of the frozen rows, their order and types included."""
        from windsock.tables import content_hash

        return content_hash(self.holdout)

    def frozen_hashes(self) -> tuple[str, str | None]:
        """Return the SHA-256 of the holdout file as it is now, and as it was when it was frozen."""
        now = hashlib.sha256(self.store.read_bytes(self.info.run_folder, HOLDOUT)).hexdigest()
        return now, self.store.read_json(self.info.run_folder, REQUEST).get("files", {}).get(HOLDOUT)

    @cached_property
    def model(self) -> Model:
        """The challenger, loaded afresh."""
        from windsock.served.model import load

        return load(self.store.url(self.info.run_folder, MODEL))

    @cached_property
    def scores(self) -> Vector:
        """The challenger's scores of every holdout row."""
        return self.model.predict(self.holdout)

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
        scores = self._production_scores(missing) if missing else champion.predict(self.holdout)
        return scores[self._counted]

    @cached_property
    def rows(self) -> JudgedRows:
        """The rows that count."""
        return self._judged[0]

    @cached_property
    def judged_scores(self) -> Vector:
        """The challenger's scores of the rows that count."""
        return self.scores[self._counted]

    @cached_property
    def metrics(self) -> dict[str, float | None]:
        """The challenger's metrics by the model's evaluation protocol, computed anew."""
        from windsock.served.metrics import evaluate

        return dict(evaluate(self.spec, self.holdout, self.scores)["metrics"])

    def metric(self, name: str) -> float | None:
        """Return one metric, or None if these rows do not allow it."""
        return self.metrics.get(name)

    @cached_property
    def _judged(self) -> tuple[JudgedRows, NDArray[np.bool_]]:
        return judged_rows(self.spec, self.holdout)

    @property
    def _counted(self) -> NDArray[np.bool_]:
        return self._judged[1]

    def _parquet(self, name: str) -> pa.Table:
        import pyarrow.parquet as pq

        return pq.read_table(io.BytesIO(self.store.read_bytes(self.info.run_folder, name)))

    def _production_scores(self, missing: list[str]) -> Any:
        """Return what the champion said of these rows when it scored them, where it cannot score them now."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        from windsock import tables

        champion = self.champion.version if self.champion is not None else "?"
        key = self.spec.events.key
        times = self.holdout.column("event_timestamp")
        first, last = (pc.cast(f(times), pa.date32()).as_py() for f in (pc.min, pc.max))
        records = Ledger(self.store, self.spec.name, "score").between(first, last)
        predictions = tables.read(self.store, records.values(), "predictions")
        if predictions is not None:
            predictions = predictions.filter(pc.equal(predictions["model_version"], champion))
            place = pc.index_in(self.holdout.column(key), value_set=predictions.column(key).combine_chunks())
            if place.null_count == 0:
                return np.asarray(predictions.column("score").take(place).to_numpy(), dtype=np.float64)
        raise DataContractError(
            f"Champion {champion} needs {', '.join(missing)}, which the challenger's holdout lacks, and it has not "
            f"scored all days of {first}..{last} in production either, so the two cannot be compared on the same rows. "
            "Keep the old features in the spec for one more training; remove them after it has been promoted."
        )
