"""Faults that last: said once, on the day on which they have lasted too long to be an accident.

A small share of rows that is set aside stays within the budget and passes as a warning, day after day. Whether a fault
lasts is a rule over the records of the last days, the newest last; like all that depends on other days it stays out of
the day's own record (see ``history``).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from windsock.days import ONE_DAY, end_of, start_of
from windsock.ingest.conform import DUPLICATE
from windsock.ingest.records import SAID_ONCE
from windsock.ledger import DayRecord, Ledger
from windsock.spec import ModelSpec
from windsock.steps import StepContext

_WINDOW = timedelta(days=28)
_DAYS = 7
"""Days in a row on which rows must have been set aside."""
_SHARE = 0.01
"""Share of the rows that must have been set aside on each."""
_FARTHEST = timedelta(hours=15)
"""How far, and a little more, a local day can lie from the UTC day."""
_QUARTER = timedelta(minutes=15)
_REPLAYED = "backfill__"

Rule = Callable[[Sequence[DayRecord]], str | None]
"""Says in a sentence what has lasted up to the newest of some records, which come oldest first, if anything has."""


def alarms(ctx: StepContext, detail: Mapping[str, Any], rows: pa.Table) -> list[str]:
    """Say what has lasted for days with a day, by what its record will say and its delivered rows in declared form."""
    spec, record = ctx.spec, DayRecord(ctx.day.isoformat(), "published", detail=detail)
    rule = set_aside_daily(
        spec.validation.quarantine_budget, cause=lambda: likely_cause(spec, ctx.day, rows.column(spec.events.time))
    )
    return newly(rule, published_until(ctx, "ingest", record), live=ctx.live)


def published_until(ctx: StepContext, stage: str, record: DayRecord) -> list[DayRecord]:
    """Return the published records of the last four weeks, oldest first, and ``record``, which is about to be the next.

    They are what a :data:`Rule` is asked about.
    """
    recent = Ledger.of(ctx.settings, ctx.spec.name, stage).between(record.day - _WINDOW, record.day - ONE_DAY)
    return [*(r for r in recent.values() if r.status == "published"), record]


def newly(rule: Rule, records: Sequence[DayRecord], *, live: bool) -> list[str]:
    """Return what a rule says of the newest record, if it had not said so of any of the week before.

    What only a backfill has said, few people have read: the first live day after it says it again.
    """
    sentence = rule(records)
    if sentence is None:
        return []
    before = [records[:-n] for n in range(1, min(_DAYS + 1, len(records)))]
    heard = (past for past in before if not (live and past[-1].origin.startswith(_REPLAYED)))
    return [] if any(rule(past) is not None for past in heard) else [f"{sentence} {SAID_ONCE}"]


def set_aside_daily(budget: float, harmless: Collection[str] = (), cause: Callable[[], str] = str) -> Rule:
    """Return the rule that names rows set aside every day, and the likely ``cause``; ``harmless`` ones are no loss."""

    def rule(records: Sequence[DayRecord]) -> str | None:
        recent = [_lost(record.detail, harmless) for record in records[-_DAYS:]]
        delivered = [max(record.detail.get("delivered", 0), 1) for record in records[-_DAYS:]]
        shares = [sum(lost.values()) / rows for lost, rows in zip(recent, delivered, strict=True)]
        if len(shares) < _DAYS or min(shares) < _SHARE:
            return None
        together = {name: sum(lost.get(name, 0) for lost in recent) for name in sorted(set().union(*recent))}
        worst = max(together, key=lambda name: together[name])
        return (
            f"EVERY DAY rows are set aside: {min(shares):.2%} to {max(shares):.2%} of them on each of the last {_DAYS} "
            f"days, {sum(together.values()):,} in all, {together[worst]:,} by the rule '{worst}'. That is within "
            f"validation.quarantine_budget ({budget:.2%}), but no accident, and no model ever sees them.{cause()}"
        )

    return rule


def likely_cause(spec: ModelSpec, day: date, times: pa.ChunkedArray) -> str:
    """Say why rows of a delivery lie outside its day, from the times of all of them; nothing if few do."""
    start, end = start_of(day), end_of(day)
    given = pc.drop_null(times).to_numpy().astype("datetime64[us]")
    early, late = given < np.datetime64(start), given >= np.datetime64(end)
    least = _SHARE * len(times)
    if early.sum() + late.sum() < least:
        return ""
    near = given[(given >= np.datetime64(start - _FARTHEST)) & (given < np.datetime64(end + _FARTHEST))]
    if len(near) - (~early & ~late).sum() >= least and near.max() - near.min() <= np.timedelta64(ONE_DAY):
        first, last = near.min().item(), near.max().item()
        ahead = max(start - first, timedelta(0)) - max(last - end, timedelta(0))
        minutes = max(round(abs(ahead) / _QUARTER), 1) * 15
        zone = f"UTC{'+' if first < start else '-'}{minutes // 60}{f':{minutes % 60:02d}' if minutes % 60 else ''}"
        return (
            f" Likely cause: the source cuts its days in a time zone of its own. The delivery of {day} holds a whole "
            f"day in {zone}, from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC; say so by source.timezone."
        )
    if early.sum() > late.sum():
        return (
            f" Likely cause: events of earlier days come late; the oldest in the delivery of {day} is of "
            f"{given.min().item():%Y-%m-%d %H:%M} UTC. events.late_days lets them join their days."
        )
    return f" Likely cause: {spec.events.time} is in another time zone than UTC, or the clock of a sender is wrong."


def _lost(detail: Mapping[str, Any], harmless: Collection[str]) -> dict[str, int]:
    return {rule: n for rule, n in detail.get("quarantined", {}).items() if rule != DUPLICATE and rule not in harmless}
