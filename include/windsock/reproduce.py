"""Making a model again from its lineage, and comparing byte by byte.

Everything comes from the run folder and the pinned days: the spec and SQL as they were,
the windows, the versions of every day. The present model folder is not looked at.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windsock.dataset.assemble import TrainingSet, assemble
from windsock.dataset.lineage import code_commit
from windsock.dataset.requests import trainer_request
from windsock.dataset.step import request_of
from windsock.dataset.time_split import Windows
from windsock.errors import SpecError
from windsock.ledger import Ledger
from windsock.runs.libraries import libraries
from windsock.runs.run_folder import HOLDOUT, LINEAGE, METRICS, MODEL, REQUEST, TRAIN, RunFolder, parquet_bytes
from windsock.search.search import Choosing
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.spec.estimators import CustomSpec
from windsock.store import Store
from windsock.trainers.learn import learn, search_of, spec_of, train_chosen

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Compared:
    """One file, as it was and as it came out again."""

    name: str
    recorded_sha256: str
    rebuilt_sha256: str

    @property
    def equal(self) -> bool:
        """Whether the bytes are the same."""
        return self.recorded_sha256 == self.rebuilt_sha256


@dataclass(frozen=True)
class Reproduction:
    """What came out when a training was done again."""

    model: str
    run: str
    files: tuple[Compared, ...]
    differing: Mapping[str, tuple[str, str]]
    """Libraries and code that are not what they were: name to (then, now)."""

    @property
    def equal(self) -> bool:
        """Whether training set and model folder are the same, byte for byte."""
        return all(f.equal for f in self.files)


def reproduce(settings: Settings, model: str, run: str) -> Reproduction:
    """Assemble and train a run again, without changing anything that is stored.

    Raises:
        SpecError: The run folder is incomplete, or a pinned day is gone from the store.
    """
    from windsock.featurestore.retrieval import point_in_time

    store = Store.of(settings)
    folder = RunFolder.named(store, model, run)
    lineage, metrics = folder.read_json(LINEAGE), folder.read_json(METRICS)
    windows = _windows(lineage)
    with _spec_then(lineage) as spec:
        features = Ledger.of(settings, model, "features").pinned(lineage["pins"]["features"])

        def join(rows: pa.Table, pins: Mapping[str, str]) -> pa.Table:
            return point_in_time(store, spec, rows, {day: r for day, r in features.items() if day.isoformat() in pins})

        made = assemble(settings, spec, windows, lineage["pins"], join)
        hashes = {name: _sha256(parquet_bytes(t)) for name, t in ((TRAIN, made.train), (HOLDOUT, made.holdout))}
        files = _trained_again(spec, request_of(spec, windows, made, hashes), made, metrics["chosen"], run)
    rebuilt = {**hashes, **{f"{MODEL}/{name}": _sha256(data) for name, data in files.items()}}
    recorded = dict(lineage["files"])
    for name in files:
        recorded[f"{MODEL}/{name}"] = _sha256(store.read_bytes(*folder.parts(MODEL, name)))
    then = {**metrics["trainer"], "commit": str(lineage["commit"])}
    now = {**libraries(), "commit": str(code_commit())}
    return Reproduction(
        model,
        run,
        tuple(Compared(name, recorded[name], rebuilt[name]) for name in recorded),
        {name: (then[name], now.get(name, "absent")) for name in then if then[name] != now.get(name, "absent")},
    )


def _trained_again(
    spec: ModelSpec, request: Mapping[str, Any], made: TrainingSet, chosen: Mapping[str, Any], run: str
) -> dict[str, bytes]:
    """Return the model folder as it comes out now."""
    name = chosen.get("estimator") or spec.training.estimators[0].name
    estimator = spec.training.estimator(name)
    if isinstance(estimator, CustomSpec):
        raise SpecError(
            f"{spec.name}: run {run} was trained by the user's own trainer {name!r}, which Windsock cannot make again. "
            f"Start that trainer on a copy of the run's candidates/{name}/{REQUEST}, and compare the model folders."
        )
    rows = {"path": TRAIN, "sha256": "", "rows": made.train.num_rows, "format": "parquet"}
    search = search_of(trainer_request(request, run, estimator, rows), made.train)
    if estimator.budget.parallel == 1 and not estimator.budget.by_the_clock:
        return dict(learn(search).files)
    # The order in which parallel trials end, or a budget in time, is not repeatable: take what the search found.
    found = Choosing(dict(chosen["params"]), int(chosen["rounds"]), int(chosen["trial"]))
    return dict(train_chosen(search, found).files)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _windows(lineage: Mapping[str, Any]) -> Windows:
    days = {name: tuple(date.fromisoformat(d) for d in ds) for name, ds in lineage["windows"].items()}
    return Windows(date.fromisoformat(lineage["as_of"]), **days)


@contextmanager
def _spec_then(lineage: Mapping[str, Any]) -> Iterator[ModelSpec]:
    """Give the spec as it was, in a folder with its SQL files and networks as they were."""
    spec = spec_of(lineage)
    with tempfile.TemporaryDirectory(prefix="windsock-reproduce-") as folder:
        for name, text in {**lineage["sql"], **lineage.get("modules", {})}.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        object.__setattr__(spec, "_folder", Path(folder))
        yield spec
