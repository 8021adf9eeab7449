"""Comparing a day with the days before it: volume, hours, means, new entities.

These alarms depend on which earlier days happen to be there, so they are told to people (result,
log, alert) and kept out of the day's record: the record of a day must not depend on the order in
which days were run. They can be asked for again at any time; only days before the day count.
"""

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from statistics import fmean, median, pstdev
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from windsock import tables
from windsock.days import ONE_DAY
from windsock.ledger import DayRecord, Ledger
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store

_FEWEST_DAYS = 3
_WEEK = 7
"""Days that means, entities and keys are compared with at the least: a weekend differs from the days before it."""
_BUSY_HOUR = 3
"""Events that an hour must have had every day before their absence means something."""
_NEW_SHARE = 0.01
"""Share of a day's rows from entities not seen lately that is still usual."""
_NULL_JUMP = 0.1
_SIGMAS = 4.0
"""A mean must also leave the spread of recent daily means, and that of its own chance, by this much."""
_AGAIN = 0.01
"""Share of a day's keys that earlier days may have had before ids are taken to begin anew."""


def stats_of(spec: ModelSpec, events: pa.Table) -> dict[str, Any]:
    """Return what later days are compared with: rows, events per hour, mean and null share per number."""
    hours = [0] * 24
    if events.num_rows:
        for entry in pc.value_counts(pc.hour(events.column(spec.events.time))).to_pylist():
            hours[entry["values"]] = entry["counts"]
    identities = {spec.events.key, *spec.entities.values()}
    means, nulls = {}, {}
    for name in events.column_names:
        column, kind = events.column(name), spec.events.columns.get(name)
        if events.num_rows and column.null_count:
            nulls[name] = round(column.null_count / events.num_rows, 6)
        if kind in ("int64", "double") and name not in identities and column.null_count < len(column):
            means[name] = float(f"{pc.mean(column).as_py():.10g}")
    return {"rows": events.num_rows, "hours": hours, "means": means, "null_share": nulls}


def alarms(settings: Settings, spec: ModelSpec, day: date, events: pa.Table, stats: Mapping[str, Any]) -> list[str]:
    """Compare a day's valid events, and what :func:`stats_of` says of them, with the published days before it.

    Returns:
        One sentence per alarm; none while there is too little history.
    """
    first = max(spec.first_day, day - timedelta(days=spec.validation.history_days))
    recent = Ledger.of(settings, spec.name, "ingest").between(first, day - ONE_DAY)
    published = [r for r in recent.values() if r.status == "published" and "stats" in r.detail]
    if len(published) < min(_FEWEST_DAYS, spec.validation.history_days):
        return []
    found = list(_compare(spec, events, stats, [r.detail["stats"] for r in published]))
    if len(published) >= min(_WEEK, spec.validation.history_days):
        found += _seen_before(settings, spec, events, published)
    return found


def _compare(spec: ModelSpec, events: pa.Table, stats: Mapping[str, Any], past: list[Any]) -> Iterator[str]:
    """Compare a day's stats with those of the days before."""
    rules = spec.validation
    usual = median(p["rows"] for p in past)
    if usual and abs(stats["rows"] / usual - 1) > rules.volume_tolerance:
        yield (
            f"{spec.events.key}: {stats['rows']:,} rows break the rule 'within {rules.volume_tolerance:.0%} of the "
            f"recent median' ({usual:,.0f} over {len(past)} days, e.g. {past[-1]['rows']:,} on the latest). "
            "Part of the day may be missing or delivered twice: ask the sender."
        )
    silent = [h for h in range(24) if stats["hours"][h] == 0 and min(p["hours"][h] for p in past) >= _BUSY_HOUR]
    if silent:
        usual = median(p["hours"][silent[0]] for p in past)
        yield (
            f"{spec.events.time}: {len(silent)} of 24 hours without any event break the rule 'events in every hour "
            f"that is always busy', e.g. {silent[0]:02d}:00 UTC, usually {usual:,.0f} events. "
            "Part of the day may be missing."
        )
    for name, mean in stats["means"].items():
        before = [p["means"][name] for p in past if name in p["means"]]
        if len(before) < min(_WEEK, rules.history_days):
            continue
        usual, tolerance = fmean(before), rules.distribution_tolerance
        distance = abs(mean - usual)
        if (
            distance > tolerance * abs(usual)
            and distance > _SIGMAS * pstdev(before)
            and _is_far(events.column(name), distance, tolerance)
        ):
            yield (
                f"{name}: the mean {mean:.6g} of {stats['rows']:,} rows breaks the rule 'within {tolerance:.0%} of the "
                f"recent mean' ({usual:.6g} over {len(before)} days, e.g. {before[-1]:.6g} on the latest). "
                "Check its unit and what changed at the sender."
            )
    for name, share in stats["null_share"].items():
        usual = median(p["null_share"].get(name, 0.0) for p in past)
        if share > usual + _NULL_JUMP:
            yield (
                f"{name}: {round(share * stats['rows']):,} of {stats['rows']:,} values are null, which breaks the "
                f"rule 'at most {_NULL_JUMP:.0%} more nulls than recently' "
                f"(e.g. {usual:.1%} in the {len(past)} days before)."
            )


def _is_far(column: pa.ChunkedArray, distance: float, tolerance: float) -> bool:
    """Say whether a mean moved by more than chance, and by much on the scale of values around zero."""
    values = pc.drop_null(column).to_numpy().astype(np.float64)
    around_zero = np.abs(values).mean() - abs(values.mean())  # 0 where all values have one sign
    return bool(distance > tolerance * around_zero and distance > _SIGMAS * values.std() / np.sqrt(len(values)))


def _seen_before(settings: Settings, spec: ModelSpec, events: pa.Table, published: list[DayRecord]) -> Iterator[str]:
    """Compare keys and entities with those of the days before: the former must be new, most of the latter known."""
    key = spec.events.key
    columns = [name for name in dict.fromkeys(spec.entities.values()) if name in events.column_names and name != key]
    seen = tables.read_events(Store.of(settings), spec, published, [key, *columns])
    again = events.filter(pc.is_in(events.column(key), pc.unique(seen.column(key))))
    if again.num_rows > _AGAIN * events.num_rows:
        yield (
            f"{key}: {again.num_rows:,} of {events.num_rows:,} rows break the rule 'unique within all days', e.g. "
            f"{again.column(key)[0].as_py()!r}, which one of the last {len(published)} days has, too. Rows are told "
            "apart by key and time, but a label file says the key alone: have the sender give each event its own."
        )
    for name in columns:
        new = events.filter(pc.invert(pc.is_in(events.column(name), pc.unique(seen.column(name)))))
        if new.num_rows > _NEW_SHARE * max(events.num_rows, 1):
            count = len(pc.unique(new.column(name)))
            yield (
                f"{name}: {new.num_rows:,} of {events.num_rows:,} rows break the rule 'seen in the last "
                f"{len(published)} days', from {count:,} new values, e.g. {new.column(name)[0].as_py()!r} "
                f"({spec.events.key} {new.column(spec.events.key)[0].as_py()}). Their features fall back to no history."
            )
