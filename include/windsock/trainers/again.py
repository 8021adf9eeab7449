"""The rows of a training that was made before, from its lineage and the pinned days alone.

``reproduce`` makes the same training again with them, ``refit`` another one by the same recipe.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa

from windsock.completeness import FEATURES
from windsock.dataset.assemble import Pins, TrainingSet, assemble
from windsock.dataset.time_split import Windows
from windsock.features.carry_over import record_of_view
from windsock.features.feature_tables import feature_tables
from windsock.ledger import DayRecord, Ledger
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store
from windsock.trainers.learn import spec_of


def windows_then(lineage: Mapping[str, Any]) -> Windows:
    """Return the days of a training."""
    days = {name: tuple(date.fromisoformat(d) for d in ds) for name, ds in lineage["windows"].items()}
    return Windows(date.fromisoformat(lineage["as_of"]), **days, recovery="recovery" in lineage)


def assembled_again(settings: Settings, spec: ModelSpec, windows: Windows, pins: Mapping[str, Any]) -> TrainingSet:
    """Assemble rows of days from what a training pinned.

    Raises:
        SpecError: A pinned day is gone from the store.
    """
    from windsock.featurestore.retrieval import point_in_time

    store, known = Store.of(settings), dict(pins)
    records = _pinned_features(settings, spec, known)

    def join(rows: pa.Table, chosen: Pins) -> pa.Table:
        used = {t: {d: r for d, r in records[t].items() if str(d) in days} for t, days in chosen.items()}
        return point_in_time(store, spec, rows, used)

    return assemble(settings, spec, windows, known, join)


@contextmanager
def spec_then(lineage: Mapping[str, Any]) -> Iterator[ModelSpec]:
    """Give the spec as it was, with its SQL, in a folder with its networks as they were."""
    spec = spec_of(lineage).frozen(lineage["sql"], {})
    with tempfile.TemporaryDirectory(prefix="windsock-again-") as folder:
        for name, text in lineage.get("modules", {}).items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        object.__setattr__(spec, "_folder", Path(folder))
        yield spec


def _pinned_features(settings: Settings, spec: ModelSpec, pins: dict[str, Any]) -> dict[str, dict[date, DayRecord]]:
    """Return the pinned records of each view's table; pins of version 0.1, one for all views, become pins of each."""
    tables = feature_tables(spec)
    if (old := pins.pop(FEATURES, None)) is None:
        return {t.name: Ledger.of(settings, spec.name, t.name).pinned(pins[t.name]) for t in tables}
    records = Ledger.of(settings, spec.name, FEATURES).pinned(old)
    pins |= {table.name: old for table in tables}
    return {t.name: {day: record_of_view(r, t.view, t.name) for day, r in records.items()} for t in tables}
