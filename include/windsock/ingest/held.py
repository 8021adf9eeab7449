"""A live delivery that is broken, against the days before it, is held until a person lets it in.

A tenth of the usual rows, amounts in cents, a column that is empty: no rule of the suite may name it, the rows are well
formed, and what follows from them is not: features, scores, and a drift that is none. Held is refused, and is let in as
a worse redelivery is (``redelivery``). Backfills are never held: what somebody asks for is years of days as they were,
in any order. Like all that is compared with other days it decides what is refused, never what a record says.
"""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from windsock import tables
from windsock.column_break import FEWEST, GONE, Column
from windsock.days import ONE_DAY
from windsock.ingest.redelivery import ACCEPTED, same_delivery
from windsock.ledger import DayRecord, Ledger
from windsock.steps import StepContext

_FEWEST_DAYS = 7
"""Days to compare with, a whole week of them: fewer say too little of what is usual."""
_VOLUME = 10
"""So many times fewer rows than on the emptiest of those days, or more than on the fullest."""
_MEAN = 5
"""A mean that many times what it was, or less, has its column's values looked at: 10 times is what is looked for."""


def held(ctx: StepContext, previous: DayRecord | None, detail: Mapping[str, Any], events: pa.Table) -> list[str]:
    """Compare a live delivery with the published days before it.

    Args:
        ctx: The step.
        previous: The day's record in force.
        detail: What the new record is going to say: source and ``stats``.
        events: The day's valid rows.

    Returns:
        One sentence for each way in which it is broken; none if the day stands already with this delivery, or was let
        in by a person, if it is no live one, or if there are too few days to compare with.
    """
    if not ctx.live or not ctx.spec.validation.hold or _stands(previous, detail):
        return []
    past = _since_a_person_had_a_say(ctx)
    if len(past) < _FEWEST_DAYS:
        return []
    rule = f"rule 'a day is like the {len(past)} before it', validation.hold"
    return [f"{sentence} ({rule})." for sentence in (*_volume(ctx, past, events), *_columns(ctx, past, detail, events))]


def _stands(previous: DayRecord | None, detail: Mapping[str, Any]) -> bool:
    if previous is None or previous.status != "published":
        return False
    return ACCEPTED in previous.detail or same_delivery(previous, detail)


def _since_a_person_had_a_say(ctx: StepContext) -> list[DayRecord]:
    """Return the published days lately, oldest first; of those before one that a person let in none is usual now."""
    first = max(ctx.spec.first_day, ctx.day - timedelta(days=max(ctx.spec.validation.history_days, _FEWEST_DAYS)))
    found = list[DayRecord]()
    for record in Ledger.of(ctx.settings, ctx.spec.name, "ingest").between(first, ctx.day - ONE_DAY).values():
        if ACCEPTED in record.detail:
            found = []
        if record.status == "published" and "stats" in record.detail:
            found.append(record)
    return found


def _volume(ctx: StepContext, past: list[DayRecord], events: pa.Table) -> Iterator[str]:
    counts, now = [record.detail["stats"]["rows"] for record in past], events.num_rows
    fewest, most = min(counts), max(counts)
    if fewest >= FEWEST and now * _VOLUME <= fewest:
        yield f"{ctx.spec.events.key}: {now:,} rows, where no day had fewer than {fewest:,}"
    if now >= FEWEST and now >= _VOLUME * most:
        yield f"{ctx.spec.events.key}: {now:,} rows, where no day had more than {most:,}"


def _columns(ctx: StepContext, past: list[DayRecord], detail: Mapping[str, Any], events: pa.Table) -> Iterator[str]:
    """Look at the values only of columns that are conspicuous: those of the days before have to be read for it."""
    names = [name for name in _looked_at(ctx, events) if _is_conspicuous(name, events.column(name), past, detail)]
    if not names:
        return
    time = ctx.spec.events.time
    before = tables.read_events(ctx.store, ctx.spec, past, [time, *names])
    day = before.column(time).to_numpy().astype("datetime64[D]").astype(np.int64)
    for name in names:
        values = before.column(name).to_pandas()
        if found := Column(name, values, values, day).break_of(events.column(name).to_pandas()):
            yield f"{name}: {found.sentence.removeprefix(name).strip()}"


def _looked_at(ctx: StepContext, events: pa.Table) -> list[str]:
    spec = ctx.spec
    left_out = {spec.events.key, spec.events.time, spec.events.delivered_at, *spec.entities.values()}
    return [name for name in spec.events.columns if name in events.column_names and name not in left_out]


def _is_conspicuous(name: str, column: pa.ChunkedArray, past: list[DayRecord], detail: Mapping[str, Any]) -> bool:
    """Say whether a day is mostly missing, holds one value, or has a mean far from that of the days before."""
    if len(column) < FEWEST:
        return False
    if column.null_count >= GONE * len(column) or len(pc.unique(column.drop_null())) == 1:
        return True
    means = [record.detail["stats"]["means"].get(name) for record in past]
    usual = np.median(np.abs([mean for mean in means if mean is not None] or [0.0]))
    mean = abs(detail["stats"]["means"].get(name, 0.0))
    return bool(mean * _MEAN <= usual or mean >= usual * _MEAN) and max(mean, usual) > 0
