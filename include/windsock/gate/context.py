"""What the checks look at, read once and only when a check asks for it, and what each of them gives."""

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from windsock.errors import DataContractError
from windsock.gate.compare import Comparison, Vector
from windsock.ledger import Ledger
from windsock.registry.versions import load_version, version_info
from windsock.runs.run_folder import HOLDOUT, MODEL, RunFolder
from windsock.served.metrics import TIME, evaluate, scores_of_version
from windsock.served.model import Model, load
from windsock.served.resampling import ClusteredRows, clustered_rows
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store


@dataclass(frozen=True)
class Check:
    """One finding of the gate."""

    name: str
    passed: bool
    value: float | str | None
    threshold: float | str | None
    why: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types, without NaN."""
        value = self.value
        if isinstance(value, float) and not math.isfinite(value):
            value = str(value)
        return {**asdict(self), "passed": bool(self.passed), "value": value}


class GateContext:
    """One challenger, the champion it is held against (or none) and the frozen rows of both."""

    def __init__(self, settings: Settings, spec: ModelSpec, version: str, champion: str | None) -> None:
        self.settings, self.spec = settings, spec
        self.info = version_info(settings, spec, version)
        self.champion = version_info(settings, spec, champion) if champion is not None else None
        self.store = Store.of(settings)
        self.run = RunFolder.named(self.store, spec.name, self.info.run)
        self.comparison: Comparison | None = None
        """Left here by the comparison with the champion, for the report."""

    @cached_property
    def holdout(self) -> pa.Table:
        """The frozen rows, in order."""
        return self.run.read_table(HOLDOUT)

    @cached_property
    def model(self) -> Model:
        """The challenger, loaded afresh."""
        return load(self.run.url(MODEL))

    @cached_property
    def scores(self) -> Vector:
        """The challenger's scores of every holdout row."""
        return self.model.predict(self.holdout)

    @cached_property
    def metrics(self) -> dict[str, float | None]:
        """The challenger's metrics by the model's evaluation protocol, computed anew; None: cannot be computed."""
        return dict(evaluate(self.spec, self.holdout, self.scores)["metrics"])

    @property
    def rows(self) -> ClusteredRows:
        """The rows that count."""
        return self._counted[0]

    @property
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

    def _production_scores(self, champion: str, missing: list[str]) -> Vector:
        """Return the champion's predictions of these rows in production, where it cannot score them now."""
        times, key = self.holdout.column(TIME), self.spec.events.key
        first, last = (pc.cast(f(times), pa.date32()).as_py() for f in (pc.min, pc.max))
        records = Ledger(self.store, self.spec.name, "score").between(first, last)
        scores = scores_of_version(self.store, records.values(), champion, key, self.holdout.column(key))
        if scores is not None and scores.null_count == 0:
            return np.asarray(scores.to_numpy(), dtype=np.float64)
        raise DataContractError(
            f"Champion {champion} needs {', '.join(missing)}, which the challenger's holdout lacks, and it has not "
            f"scored all days of {first}..{last} in production either, so the two cannot be compared on the same rows. "
            "Keep the old features in the spec for one more training; remove them after it has been promoted."
        )
