"""Which rows the nightly report compares: recent days against the champion's reference.

Both sides are bounded samples, drawn by a seed made from model and day, so that a rerun compares the same rows.
Weekdays are the trap: if the two sides do not hold the same mix of them, a weekend flag has "drifted" and much else
with it. Whole weeks on both sides are compared as they are; otherwise the reference is drawn with the weekday mix of
the recent days; and where the reference does not say its days, features that depend on the time of the event alone are
left out.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from windsock.dataset.feature_join import join_features
from windsock.days import day_range, spans
from windsock.features.feature_tables import feature_tables
from windsock.features.frame import event_frame, feature_names
from windsock.features.frozen import spec_of_version
from windsock.features.view_sql import view_schema
from windsock.featurestore.retrieval import point_in_time
from windsock.ledger import Ledger
from windsock.promotions import Promotion
from windsock.runs.run_folder import CLUSTER, METRICS, REFERENCE, RunFolder
from windsock.served.metrics import SCORE, TIME, scores_of_version
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store

_GROUPS = 199
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class History:
    """The champion's own days: rows that it learnt from and rows that were held out; one value a row everywhere."""

    frame: pd.DataFrame
    """The features, then ``score``."""
    day: npt.NDArray[np.intp]
    """Ordinal of the row's day."""
    learnt: npt.NDArray[np.bool_]
    cluster: npt.NDArray[np.intp] | None
    """Number of the row's entity, dense and bounded; None if the reference does not say it."""
    looks_back_days: Mapping[str, int]
    """Feature to the days that it reaches back."""


@dataclass(frozen=True)
class Samples:
    """The two samples, with equal columns: the features, then ``score``."""

    current: pd.DataFrame
    reference: pd.DataFrame
    left_out: Mapping[str, str]
    """Feature to why it cannot be compared today."""
    days: tuple[date, ...]
    """Days that the recent rows come from."""
    notes: tuple[str, ...]
    inputs: Mapping[str, str] = field(default_factory=dict)
    """What was read: name to content hash."""
    day: npt.NDArray[np.intp] | None = None
    """Ordinal of each recent row's day."""
    history: History | None = None
    """None: the reference does not say its days."""
    weights: Mapping[str, float] | None = None
    """Feature to its share in what the champion makes of its inputs; None: not known."""


def draw_samples(settings: Settings, spec: ModelSpec, day: date, champion: Promotion) -> Samples:
    """Draw the rows that are compared on a day.

    The recent side holds the days of the window whose features are published and warm. Their
    ``score`` is the champion's own; rows that another version scored have none.
    """
    store, spec = Store.of(settings), spec_of_version(settings, spec, champion.version)
    first = max(day - timedelta(days=spec.monitoring.window_days - 1), spec.first_day)
    ingested, scored = (Ledger.of(settings, spec.name, stage).between(first, day) for stage in ("ingest", "score"))
    ledgers = {table.name: table.ledger(store) for table in feature_tables(spec)}
    featured = {name: ledger.between(first, day) for name, ledger in ledgers.items()}
    days = [
        d
        for d, record in ingested.items()
        if record.rows("events") > 0 and d >= spec.first_warm_day and all(d in found for found in featured.values())
    ]
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{spec.name}/{day}".encode()).digest()[:8]))
    notes = []
    if absent := [d for d in day_range(first, day) if d not in days]:
        notes.append(f"not in the window: {spans(absent)} (no published, warm features)")
    events = event_frame(store, spec, [ingested[d] for d in days], for_champion=True)
    known = _reference(store, spec, champion)
    if known is None:
        notes.append(f"version {champion.version} has no {REFERENCE} in its run folder, so drift cannot be judged")
        known = events.slice(0, 0)
    weights = _weights(store, spec, champion)
    notes += _lacking(champion, known, weights)

    def join(frame: pa.Table, oldest: date) -> pa.Table:
        records = {name: ledger.between(oldest, day) for name, ledger in ledgers.items()}
        return point_in_time(store, spec, frame, records)

    current = join_features(spec, _sample(events, spec.monitoring.max_rows, rng), first, join)
    scores = scores_of_version(store, scored.values(), champion.version, spec.events.key, current)
    current = current.append_column(SCORE, scores if scores is not None else pa.nulls(len(current), pa.float64()))
    published = {**featured, "score": scored}
    samples = samples_of(spec, days, current, known, weights, rng)
    return replace(
        samples,
        notes=(*notes, *samples.notes),
        inputs={f"{s}/{d}": published[s][d].data_hash for s in published for d in days if d in published[s]},
    )


def samples_of(
    spec: ModelSpec,
    days: Sequence[date],
    current: pa.Table,
    known: pa.Table,
    weights: Mapping[str, float] | None,
    rng: np.random.Generator,
) -> Samples:
    """Set recent rows against a champion's own.

    Args:
        spec: The champion's.
        days: Those of the recent rows.
        current: The recent rows: ``event_timestamp``, features, ``score``.
        known: The champion's ``reference.parquet``.
        weights: Feature to its share in what the champion makes of its inputs; None: not known.
        rng: Draws what is too much.
    """
    # Held-out rows are compared with: on those the champion's scores are honest, and they are the newest.
    reference = known.filter(pc.equal(known["part"], "holdout")) if "part" in known.column_names else known
    current, reference, left_out, remarks = _comparable(spec, days, current, reference, rng)
    names = [*feature_names(spec), SCORE]
    looks_back = {n: view.lookback_days for view in spec.features.views for n in view_schema(spec, view)}
    return Samples(
        current=current.to_pandas().reindex(columns=names),
        reference=reference.to_pandas().reindex(columns=names),
        left_out=left_out,
        days=tuple(days),
        notes=tuple(remarks),
        day=_day(current),
        history=_history(known, names, {**looks_back, SCORE: spec.features.lookback_days}),
        weights=weights,
    )


def _reference(store: Store, spec: ModelSpec, champion: Promotion) -> pa.Table | None:
    """Return the champion's sample of rows that it learnt from and of held-out ones."""
    try:
        return RunFolder.named(store, spec.name, champion.run).read_table(REFERENCE)
    except FileNotFoundError:
        return None


def _weights(store: Store, spec: ModelSpec, champion: Promotion) -> dict[str, float] | None:
    """Return what each input is to the champion, as its training measured it."""
    try:
        return dict(store.read_json("runs", spec.name, champion.run, METRICS)["attribution"]["shares"])
    except (FileNotFoundError, KeyError, TypeError):
        return None


def _lacking(champion: Promotion, known: pa.Table, weights: Mapping[str, float] | None) -> list[str]:
    """Say what the run of a version from before does not tell, and what is done instead."""
    if known.num_rows == 0:
        return []
    version, notes = f"the run of version {champion.version}", []
    if not {TIME, "part"} <= set(known.column_names):
        notes.append(f"{version} does not say the days of its rows: chance is that of shuffled rows")
    if weights is None:
        notes.append(f"{version} does not say what its inputs are to it: all count alike")
    return notes


def _history(known: pa.Table, names: list[str], looks_back_days: Mapping[str, int]) -> History | None:
    """Return the champion's own days, if they are known."""
    if not {TIME, "part", SCORE} <= set(known.column_names) or known.num_rows == 0:
        return None
    cluster = None
    if CLUSTER in known.column_names:
        # So many groups of entities say as much as each entity would, and cost the same however many there are.
        cluster = np.unique(known[CLUSTER].to_numpy() % _GROUPS, return_inverse=True)[1].astype(np.intp)
    learnt = known["part"].to_numpy(zero_copy_only=False) == "train"
    frame = known.to_pandas().reindex(columns=names)
    return History(frame, _day(known), learnt, cluster, looks_back_days)


def _day(rows: pa.Table) -> npt.NDArray[np.intp]:
    days: npt.NDArray[np.intp] = rows[TIME].cast(pa.date32()).cast(pa.int32()).to_numpy().astype(np.intp)
    return days


def _sample(rows: pa.Table, size: int, rng: np.random.Generator) -> pa.Table:
    drawn = rng.choice(rows.num_rows, min(size, rows.num_rows), replace=False)
    return rows.take(np.sort(drawn))


def _comparable(
    spec: ModelSpec, days: Sequence[date], current: pa.Table, reference: pa.Table, rng: np.random.Generator
) -> tuple[pa.Table, pa.Table, dict[str, str], list[str]]:
    """Bound the reference and see to the weekdays.

    Returns:
        Recent rows, reference rows, features left out with the reason, remarks.
    """
    size, dated = spec.monitoring.max_rows, TIME in reference.column_names
    if dated:
        whole = _whole_weeks(pc.unique(reference[TIME].cast(pa.date32())).drop_null().to_pylist())
    else:
        whole = spec.training.holdout_days % 7 == 0
    whole = whole and _whole_weeks(days)
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


def _whole_weeks(days: Iterable[date]) -> bool:
    counts = np.bincount([d.weekday() for d in days], minlength=7)
    return bool(counts.min() == counts.max() > 0)


def calendar_features(spec: ModelSpec) -> list[str]:
    """List the row features that are made from the event's time and nothing else."""
    columns = set(spec.events.columns)
    used = {name: set(_IDENTIFIER.findall(sql)) & columns for name, sql in spec.features.row.items()}
    return [name for name, of in used.items() if of == {spec.events.time}]


def same_mix(
    now: npt.NDArray[np.int64], then: npt.NDArray[np.int64], size: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draw rows of the reference so that each weekday has the share that it has among the recent rows.

    ``now`` and ``then`` are the weekdays of recent rows and reference, 0 is Monday. What is returned are positions
    in ``then``, none twice; fewer than ``size`` if a weekday is scarce.
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
