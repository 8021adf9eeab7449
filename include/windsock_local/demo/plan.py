"""Which days the demo runs, what goes wrong on purpose, and the model copy that says so."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import yaml

from windsock.dataset.recovery import first_recovery
from windsock.errors import SpecError
from windsock.settings import REPO_ROOT
from windsock.spec import ModelSpec, load_spec
from windsock.spec.load import SPEC_FILE

_SHIPPED = REPO_ROOT / "include" / "models" / "fraud"
_FIRST_DAY = date(2026, 3, 1)
_QUIET_DAYS = 3
"""Live days before the drift sets in, so that a monitor can show that it stays quiet."""
_DAYS_TO_BE_SURE = 7
"""Live days that the monitor may need to be sure of the drift, and the gate of what recovers from it."""
_AFTER_DAYS = 3
"""Live days after the second promotion."""
_LIVE_DAYS_OF_A_FILE = 14


@dataclass(frozen=True)
class DemoPlan:
    """The demo's calendar."""

    spec: ModelSpec
    backfill_last: date
    """Last day of the history that is backfilled; the first model is trained as of this day."""
    last_day: date
    """No day after this one is run."""
    drift_from: date | None
    """First day of the simulated drift; None on a person's own file."""
    planted: Mapping[date, str] = field(default_factory=dict)
    """Days that the simulator delivers broken."""


def simulated_plan(home: Path) -> DemoPlan:
    """Plan the demo on simulated payments: two bad days, a drift, and days enough to retrain for it."""
    base = load_spec(_SHIPPED / SPEC_FILE)
    backfill_last = _last_day_for_training(base, _FIRST_DAY)
    drift_from = backfill_last + timedelta(days=1 + _QUIET_DAYS)
    # There is something to learn from once labels of the new regime are known; then the gate needs some days to be
    # sure, and a few more show the new champion at work.
    last_day = first_recovery(base, drift_from) + timedelta(days=_DAYS_TO_BE_SURE + _AFTER_DAYS)
    planted = {_FIRST_DAY + timedelta(days=20): "missing_column", _FIRST_DAY + timedelta(days=33): "negative_amounts"}
    source = {
        "kind": "simulator",
        "seed": 0,
        "drift": [{"kind": "amounts", "from_day": drift_from.isoformat(), "size": 2.0}],
        "dirt": [{"day": day.isoformat(), "kind": kind} for day, kind in planted.items()],
    }
    spec = _write_model(home, {"first_day": _FIRST_DAY, "last_day": last_day, "source": source})
    return DemoPlan(spec, backfill_last, last_day, drift_from, planted)


def file_plan(home: Path, data: Path, first: date | None, last: date | None) -> DemoPlan:
    """Plan the demo on a person's own file of the fraud model's columns.

    Raises:
        SpecError: The file lacks the columns, or holds too few days.
    """
    base = load_spec(_SHIPPED / SPEC_FILE)
    found_first, found_last = _days_in(data, base.events.time)
    first, last = first or found_first, last or found_last
    backfill_last = _last_day_for_training(base, first)
    if backfill_last >= last:
        raise SpecError(
            f"{data} from {first} to {last} is too short: training needs {(backfill_last - first).days + 1} days "
            f"(features look back {base.features.lookback_days}, then {base.training.shortest_window} to train on, "
            f"{base.gap_days} gap, {base.training.holdout_days} held out, {base.label.delay_days} until labels are "
            f"known) and at least one day to go on with. Choose --from and --to between {found_first} and {found_last}."
        )
    backfill_last = max(backfill_last, last - timedelta(days=_LIVE_DAYS_OF_A_FILE))
    source = {"kind": "files", "url": str(data.absolute())}
    spec = _write_model(home, {"first_day": first, "last_day": last, "source": source})
    return DemoPlan(spec, backfill_last, last, None)


def _last_day_for_training(spec: ModelSpec, first: date) -> date:
    """Return the first day as of which a model can be trained on warm days only."""
    trained_on = spec.training.shortest_window + spec.gap_days + spec.training.holdout_days
    return first + timedelta(days=spec.features.lookback_days + trained_on + spec.label.delay_days - 1)


def _write_model(home: Path, changes: Mapping[str, Any]) -> ModelSpec:
    """Copy the reference model below the demo's home with some fields changed, and load it."""
    folder = home / "models" / _SHIPPED.name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(_SHIPPED, folder)
    raw = yaml.safe_load((folder / SPEC_FILE).read_text(encoding="utf-8"))
    (folder / SPEC_FILE).write_text(yaml.safe_dump({**raw, **changes}, sort_keys=False), encoding="utf-8")
    return load_spec(folder / SPEC_FILE)


def _days_in(data: Path, time: str) -> tuple[date, date]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    kind = "csv" if data.name.endswith((".csv", ".csv.gz")) else "parquet"
    try:
        times = ds.dataset(data, format=kind).to_table(columns=[time])[time]
        if pa.types.is_integer(times.type):
            raise pa.ArrowInvalid(f"{time} holds whole numbers, no times.")
        times = times.cast(pa.timestamp("us"))
    except (pa.ArrowException, OSError) as err:
        raise SpecError(
            f"--data {data}: cannot be read as transactions with a column {time!r}: {' '.join(str(err).split())} "
            "The file needs the columns of include/models/fraud/model.yaml."
        ) from err
    first, last = pc.min_max(times).as_py().values()
    if first is None:
        raise SpecError(f"--data {data}: holds no row with a time in {time!r}.")
    return first.date(), last.date()
