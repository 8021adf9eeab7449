"""Which rows the nightly report compares: recent days against the champion's reference.

Both sides are bounded samples, drawn by a seed made from model and day, so that a rerun
compares the same rows. Weekdays are the trap: if the two sides do not hold the same mix of
them, a weekend flag has "drifted" and much else with it. Whole weeks on both sides are
compared as they are; otherwise the reference is drawn with the weekday mix of the recent
days; and where the reference does not say its days, features that depend on the time of
the event alone are left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from windsock import tables
from windsock.dataset.feature_join import join_features
from windsock.days import day_range, spans
from windsock.features.frame import event_frame, feature_names
from windsock.featurestore.retrieval import point_in_time
from windsock.ledger import DayRecord, Ledger
from windsock.promotions import Promotion
from windsock.runs.run_folder import REFERENCE, RunFolder
from windsock.served.metrics import SCORE, TIME
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Samples:
    """The two samples, with equal columns: the features and ``score``."""

    current: pd.DataFrame
    reference: pd.DataFrame
    features: tuple[str, ...]
    left_out: Mapping[str, str]
    """Feature to why it cannot be compared today."""
    days: tuple[date, ...]
    """Days that the recent rows come from."""
    notes: tuple[str, ...]
    inputs: Mapping[str, str]
    """What was read: name to content hash."""


def draw_samples(settings: Settings, spec: ModelSpec, day: date, champion: Promotion) -> Samples:
    """Draw the rows that are compared on a day.

    The recent side holds the days of the window whose features are published and warm. Their
    ``score`` is the champion's own; rows that another version scored have none.
    """
    store = Store.of(settings)
    first = max(day - timedelta(days=spec.monitoring.window_days - 1), spec.first_day)
    records = {s: Ledger.of(settings, spec.name, s).between(first, day) for s in ("ingest", "features", "score")}
    days = [d for d, r in records["features"].items() if r.detail.get("warm", True) and _holds_rows(records, d)]
    rng = _seeded(spec.name, day)
    notes = []
    if absent := [d for d in day_range(first, day) if d not in days]:
        notes.append(f"not in the window: {spans(absent)} (no published, warm features)")
    events = event_frame(store, spec, [records["ingest"][d] for d in days])
    reference = _reference(store, spec, champion)
    if reference is None:
        notes.append(f"version {champion.version} has no {REFERENCE} in its run folder, so drift cannot be judged")
        reference = events.slice(0, 0)
    current = _with_features(settings, spec, _sample(events, spec.monitoring.max_rows, rng), first, day)
    current = current.append_column(SCORE, _scores(store, spec, champion, records["score"].values(), current))
    current, reference, left_out, remarks = _comparable(spec, days, current, reference, rng)
    names = feature_names(spec)
    return Samples(
        current=_frame(current, names),
        reference=_frame(reference, names),
        features=tuple(names),
        left_out=left_out,
        days=tuple(days),
        notes=(*notes, *remarks),
        inputs={f"{s}/{d}": records[s][d].data_hash for s in ("features", "score") for d in days if d in records[s]},
    )


def _comparable(
    spec: ModelSpec, days: list[date], current: pa.Table, reference: pa.Table, rng: np.random.Generator
) -> tuple[pa.Table, pa.Table, dict[str, str], list[str]]:
    """Bound the reference and see to the weekdays.

    Returns:
        Recent rows, reference rows, features left out with the reason, remarks.
    """
    import pyarrow.compute as pc

    size, dated = spec.monitoring.max_rows, TIME in reference.column_names
    whole = _whole_weeks(days) and (_whole_weeks_of(reference) if dated else spec.training.holdout_days % 7 == 0)
    if not dated or reference.num_rows == 0 or whole:
        why = "depends on the calendar, and the days are not whole weeks"
        left_out = {} if whole else dict.fromkeys(calendar_features(spec), why)
        return current, _sample(reference, size, rng), left_out, []
    now, then = (pc.day_of_week(rows[TIME]).to_numpy() for rows in (current, reference))
    remarks = ["the days are not whole weeks: the reference is drawn with their mix of weekdays"]
    in_both = np.isin(now, then)
    if not in_both.all():
        remarks.append("rows of weekdays that the reference does not hold are left out")
    drawn = same_mix(now, then, size, rng)
    return current.filter(in_both), reference.take(np.sort(drawn)), {}, remarks


def calendar_features(spec: ModelSpec) -> list[str]:
    """List the row features that are made from the event's time and nothing else."""
    columns = set(spec.events.columns)
    used = {name: set(_IDENTIFIER.findall(sql)) & columns for name, sql in spec.features.row.items()}
    return [name for name, of in used.items() if of == {spec.events.time}]


def same_mix(
    now: npt.NDArray[np.int64], then: npt.NDArray[np.int64], size: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draw rows of the reference so that each weekday has the share that it has among the recent rows.

    Args:
        now: Weekday of each recent row, 0 is Monday.
        then: Weekday of each row of the reference.
        size: Rows at most.
        rng: Where chance comes from.

    Returns:
        Positions in ``then``, none twice; fewer than ``size`` if a weekday is scarce.
    """
    common = np.intersect1d(now, then)
    if len(common) == 0:
        return np.empty(0, dtype=np.int64)
    wanted = np.array([np.mean(now[np.isin(now, common)] == w) for w in common])
    there = np.array([np.sum(then == w) for w in common])
    total = min(float(size), float(np.min(there / wanted)))
    parts = [
        rng.choice(np.flatnonzero(then == w), int(min(n, round(total * share))), replace=False)
        for w, share, n in zip(common, wanted, there, strict=True)
    ]
    return np.concatenate(parts)


def _sample(rows: pa.Table, size: int, rng: np.random.Generator) -> pa.Table:
    drawn = rng.choice(rows.num_rows, min(size, rows.num_rows), replace=False)
    return rows.take(np.sort(drawn))


def _holds_rows(records: Mapping[str, Mapping[date, DayRecord]], day: date) -> bool:
    return (
        records["features"][day].status == "published"
        and day in records["ingest"]
        and records["ingest"][day].rows("events") > 0
    )


def _seeded(model: str, day: date) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(f"{model}/{day}".encode()).digest()[:8]))


def _reference(store: Store, spec: ModelSpec, champion: Promotion) -> pa.Table | None:
    """Return the champion's sample of held-out rows: on those its scores are honest, and they are the newest."""
    import pyarrow.compute as pc

    try:
        rows = RunFolder(store, spec.name, champion.run).read_table(REFERENCE)
    except FileNotFoundError:
        return None
    return rows.filter(pc.equal(rows["part"], "holdout")) if "part" in rows.column_names else rows


def _with_features(settings: Settings, spec: ModelSpec, rows: pa.Table, first: date, last: date) -> pa.Table:
    ledger = Ledger.of(settings, spec.name, "features")

    def join(frame: pa.Table, oldest: date) -> pa.Table:
        return point_in_time(Store.of(settings), spec, frame, ledger.between(oldest, last))

    return join_features(spec, rows, first, join)


def _scores(
    store: Store, spec: ModelSpec, champion: Promotion, records: Any, rows: pa.Table
) -> pa.ChunkedArray | pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    predictions = tables.read(store, records, "predictions", [spec.events.key, SCORE, "model_version"])
    if predictions is None:
        return pa.nulls(rows.num_rows, pa.float64())
    own = predictions.filter(
        pc.equal(predictions["model_version"].cast(pa.string()), champion.version)
    ).combine_chunks()
    return own[SCORE].take(pc.index_in(rows[spec.events.key], own[spec.events.key].combine_chunks()))


def _whole_weeks(days: list[date]) -> bool:
    counts = np.bincount([d.weekday() for d in days], minlength=7)
    return bool(len(days)) and counts.min() == counts.max()


def _whole_weeks_of(rows: pa.Table) -> bool:
    return _whole_weeks(sorted({t.date() for t in rows[TIME].unique().to_pylist() if t is not None}))


def _frame(rows: pa.Table, names: list[str]) -> pd.DataFrame:
    import pandas as pd

    frame = rows.to_pandas()
    return pd.DataFrame({n: frame[n] if n in frame else pd.Series(np.nan, index=frame.index) for n in (*names, SCORE)})
