"""Making a model again from its lineage, and comparing byte by byte.

Everything comes from the run folder and the pinned days; the present model folder is not looked at.
"""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa

from windsock.completeness import FEATURES
from windsock.dataset.assemble import Pins, assemble
from windsock.dataset.requests import code_commit, run_request, trainer_request
from windsock.dataset.time_split import Windows
from windsock.errors import SpecError
from windsock.features.carry_over import record_of_view
from windsock.features.feature_tables import feature_tables
from windsock.ledger import DayRecord, Ledger
from windsock.runs.contract import libraries
from windsock.runs.run_folder import HOLDOUT, LINEAGE, METRICS, MODEL, REQUEST, TRAIN, RunFolder, parquet_bytes
from windsock.search.search import Choosing
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.spec.estimators import CustomSpec
from windsock.store import Store
from windsock.trainers.learn import learn, search_of, spec_of


@dataclass(frozen=True)
class Reproduction:
    """What came out when a training was done again; every value is a pair, (then, now)."""

    files: Mapping[str, tuple[str, str]]
    """SHA-256 of the training set and of each file of the model folder."""
    differing: Mapping[str, tuple[str, str]]
    """Libraries and code that are not what they were."""

    @property
    def equal(self) -> bool:
        """Whether training set and model folder are the same, byte for byte."""
        return all(then == now for then, now in self.files.values())


def reproduce(settings: Settings, model: str, run: str) -> Reproduction:
    """Assemble and train a run again, without changing anything that is stored.

    Raises:
        SpecError: The run folder is incomplete, or a pinned day is gone from the store.
    """
    from windsock.featurestore.retrieval import point_in_time

    store = Store.of(settings)
    folder = RunFolder.named(store, model, run)
    lineage, metrics = folder.read_json(LINEAGE), folder.read_json(METRICS)
    days = {name: tuple(date.fromisoformat(d) for d in ds) for name, ds in lineage["windows"].items()}
    windows = Windows(date.fromisoformat(lineage["as_of"]), **days)
    with _spec_then(lineage) as spec:
        pins = dict(lineage["pins"])
        records = _pinned_features(settings, spec, pins)

        def join(rows: pa.Table, chosen: Pins) -> pa.Table:
            used = {t: {d: r for d, r in records[t].items() if str(d) in days} for t, days in chosen.items()}
            return point_in_time(store, spec, rows, used)

        made = assemble(settings, spec, windows, pins, join)
        request = run_request(spec, made.features, windows.train)
        trained = _trained_again(spec, request, made.train, metrics["chosen"], run)
    now = {name: _sha256(parquet_bytes(rows)) for name, rows in ((TRAIN, made.train), (HOLDOUT, made.holdout))}
    then = dict(lineage["files"])
    for name, data in trained.items():
        then[f"{MODEL}/{name}"] = _sha256(folder.read_bytes(MODEL, name))
        now[f"{MODEL}/{name}"] = _sha256(data)
    code_then = {**metrics["trainer"], "commit": str(lineage["commit"])}
    code_now = {**dict.fromkeys(code_then, "absent"), **libraries(), "commit": str(code_commit())}
    return Reproduction(
        {name: (then[name], now[name]) for name in then},
        {name: (was, code_now[name]) for name, was in code_then.items() if was != code_now[name]},
    )


def _pinned_features(settings: Settings, spec: ModelSpec, pins: dict[str, Any]) -> dict[str, dict[date, DayRecord]]:
    """Return the pinned records of each view's table; pins of version 0.1, one for all views, become pins of each."""
    tables = feature_tables(spec)
    if (old := pins.pop(FEATURES, None)) is None:
        return {t.name: Ledger.of(settings, spec.name, t.name).pinned(pins[t.name]) for t in tables}
    records = Ledger.of(settings, spec.name, FEATURES).pinned(old)
    pins |= {table.name: old for table in tables}
    return {t.name: {day: record_of_view(r, t.view, t.name) for day, r in records.items()} for t in tables}


def _trained_again(
    spec: ModelSpec, request: Mapping[str, Any], train: pa.Table, chosen: Mapping[str, Any], run: str
) -> Mapping[str, bytes]:
    """Return the model folder as it comes out now."""
    name = chosen.get("estimator") or spec.training.estimators[0].name
    estimator = spec.training.estimator(name)
    if isinstance(estimator, CustomSpec):
        raise SpecError(
            f"{spec.name}: run {run} was trained by the user's own trainer {name!r}, which Windsock cannot make again. "
            f"Start that trainer on a copy of the run's candidates/{name}/{REQUEST}, and compare the model folders."
        )
    rows = {"path": TRAIN, "sha256": "", "rows": train.num_rows, "format": "parquet"}
    search = search_of(trainer_request(request, run, estimator, rows), train)
    budget = estimator.budget
    if budget.parallel == 1 and budget.minutes is None and budget.gpu_hours is None:
        return learn(search).files
    # The order in which parallel trials end, or a budget in time, is not repeatable: take what the search found.
    return learn(search, Choosing(dict(chosen["params"]), int(chosen["rounds"]), int(chosen["trial"]))).files


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextmanager
def _spec_then(lineage: Mapping[str, Any]) -> Iterator[ModelSpec]:
    """Give the spec as it was, with its SQL, in a folder with its networks as they were."""
    spec = spec_of(lineage).frozen(lineage["sql"], {})
    with tempfile.TemporaryDirectory(prefix="windsock-reproduce-") as folder:
        for name, text in lineage.get("modules", {}).items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        object.__setattr__(spec, "_folder", Path(folder))
        yield spec
