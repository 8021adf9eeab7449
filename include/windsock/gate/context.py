"""What the checks look at, read once and only when a check asks for it, and what each of them gives."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from windsock.dataset.feature_join import join_features
from windsock.days import spans
from windsock.errors import DataContractError
from windsock.features.feature_tables import settled_features
from windsock.features.frame import event_frame
from windsock.features.frozen import definitions_of, spec_of_version
from windsock.featurestore.retrieval import point_in_time
from windsock.gate.compare import Comparison, Vector
from windsock.gate.sequential import Look
from windsock.ledger import Ledger
from windsock.registry.versions import load_version
from windsock.row_places import places_of
from windsock.runs.run_folder import HOLDOUT, LINEAGE, MODEL, RunFolder
from windsock.served.metrics import TIME, evaluate
from windsock.served.model import Model, load
from windsock.served.resampling import ClusteredRows, clustered_rows
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store
from windsock.version_index import VersionInfo, judged_twin, version_info


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
        """Who is in force; on rows that it learnt from, :attr:`reference` stands for it."""
        self.store = Store.of(settings)
        self.run = RunFolder.named(self.store, spec.name, self.info.run)
        self.comparison: Comparison | None = None
        """Left here by the comparison with the champion, for the report."""
        self.look: Look | None = None
        """Left here by the comparison of a recovery, for the report."""

    @cached_property
    def holdout(self) -> pa.Table:
        """The frozen rows, in order."""
        return self.run.read_table(HOLDOUT)

    @cached_property
    def lineage(self) -> Mapping[str, Any]:
        """How the challenger was trained."""
        return self.run.read_json(LINEAGE)

    @property
    def recovery(self) -> str | None:
        """First day of the new regime that the challenger is to recover from, if a champion is to be proven worse."""
        return self.lineage.get("recovery") if self.champion is not None else None

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
        """The rows that count, by which the challenger is judged for itself."""
        return self._counted[0]

    @property
    def judged_scores(self) -> Vector:
        """The challenger's scores of the rows that count."""
        return self.scores[self._counted[1]]

    @property
    def fair_rows(self) -> ClusteredRows:
        """Those by which it is compared with the champion: neither of the two has learnt from their days."""
        return self._fair[0]

    @property
    def fair_scores(self) -> Vector:
        """The challenger's scores of the rows that compare."""
        return self.scores[self._fair[1]]

    @cached_property
    def reference(self) -> VersionInfo | None:
        """Whose scores the champion answers for: its own, or its judged twin's if it may have learnt from the rows."""
        if self.champion is None or self._learnt_by(self.champion) is None:
            return self.champion
        return judged_twin(self.settings, self.spec, self.champion)

    @property
    def unfair(self) -> str:
        """Which rows do not compare, why, and from when on all of a holdout do, as a sentence; empty: all do."""
        if (last := self._learnt) is None or self.reference is None or self.champion is None:
            return ""
        days = self._days[self._days > np.datetime64(last)]
        whole = last + timedelta(days=self.spec.label.delay_days + self.spec.training.holdout_days)
        twin = f"Version {self.reference.version}, the judged twin of champion {self.champion.version},"
        return (
            f"{twin if self.champion.refit_of else f'Champion {self.champion.version}'} has learnt from days up to "
            f"{last}, so of those held out {spans(np.unique(days).tolist()) or 'none'} can compare the two. Usual "
            f"trainings as of {whole} or later compare by all."
        )

    @property
    def named_champion(self) -> str:
        """The champion in words, and who stands for it."""
        if self.champion is None or self.reference is None or self.reference == self.champion:
            return f"champion {self.champion.version if self.champion is not None else 'none'}"
        twin = self.reference.version
        return f"version {twin} (the judged twin of champion {self.champion.version}, which learnt from these rows)"

    @cached_property
    def champion_scores(self) -> Vector:
        """The champion's scores of the rows that compare (see :attr:`reference`), by its own definitions of features.

        Raises:
            NotReady: Features by its definitions are missing on some day of the holdout.
            DataContractError: There is no champion, or its features of the rows cannot be had any more.
        """
        if self.reference is None:
            raise DataContractError("There is no champion.")
        champion = load_version(self.settings, self.spec, self.reference.version)
        return champion.predict(self._champion_rows(self.reference.version))[self._fair[1]]

    def _champion_rows(self, version: str) -> pa.Table:
        """Return the holdout with the champion's features, row for row."""
        own = spec_of_version(self.settings, self.spec, version)
        if definitions_of(own) == definitions_of(spec_of_version(self.settings, self.spec, self.info.version)):
            return self.holdout
        times, key = self.holdout[TIME], self.spec.events.key
        first, last = (pc.cast(f(times), pa.date32()).as_py() for f in (pc.min, pc.max))
        ledger = Ledger(self.store, self.spec.name, "ingest")
        pins = self.lineage["pins"]["ingest"]
        records = ledger.pinned({ds: h for ds, h in pins.items() if first.isoformat() <= ds <= last.isoformat()})
        events = event_frame(self.store, own, records.values(), for_champion=True)
        place = places_of([self.holdout[key], times], [events[key], events[TIME]])
        if place.null_count:
            raise DataContractError(f"{place.null_count} rows of the holdout are not among the events of its days.")

        def join(rows: pa.Table, oldest: date) -> pa.Table:
            return point_in_time(self.store, own, rows, settled_features(self.settings, own, oldest, last))

        return join_features(own, events.take(place).combine_chunks(), first, join)

    @cached_property
    def _counted(self) -> tuple[ClusteredRows, NDArray[np.bool_]]:
        return clustered_rows(self.spec, self.holdout)

    @cached_property
    def _fair(self) -> tuple[ClusteredRows, NDArray[np.bool_]]:
        if self._learnt is None:
            return self._counted
        fair = self._days > np.datetime64(self._learnt)
        rows, counted = clustered_rows(self.spec, self.holdout.filter(pa.array(fair)))
        fair[fair] = counted
        return rows, fair

    @cached_property
    def _days(self) -> NDArray[np.datetime64]:
        """Day of each row of the holdout."""
        return np.asarray(self.holdout[TIME].cast(pa.timestamp("us")), "datetime64[D]")

    @cached_property
    def _learnt(self) -> date | None:
        """The last day that :attr:`reference` learnt from, if the holdout reaches back to it."""
        return None if self.reference is None else self._learnt_by(self.reference)

    def _learnt_by(self, version: VersionInfo) -> date | None:
        """Return the last day that a version learnt from, if the holdout reaches back to it.

        Without its lineage, it may have learnt from all days whose labels it knew.
        """
        last = RunFolder.named(self.store, self.spec.name, version.run).last_learnt
        last = last or version.as_of - timedelta(days=self.spec.label.delay_days)
        return last if last >= self._days.min() else None
