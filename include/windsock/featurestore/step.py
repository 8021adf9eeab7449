"""The ``materialize`` step: a day's latest features into the online store, then proof that it took.

The store never goes backwards: a backfilled day leaves newer rows alone. When a day was replaced and an event is gone
with it, whoever is still served that event's features gets the latest ones that the tables hold. With ``correct=True``
all of the day's entities are set to what the tables hold now, even if that is older or nothing; that is for repairs and
never happens by itself. So a day that was taken out (see ``void``) is taken out online, too. A store that has lost
everything is filled again first (see ``refill``).

Afterwards a sample of the day's entities is looked up. Each must be served the day's own row or a newer one; and
whatever is served must equal the row of the same entity and time in the tables. A day may be recomputed at this very
moment, so rows of other days are compared with the version that was materialized and with the one in force.
"""

import logging
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta
from typing import Any

from windsock.days import end_of, start_of
from windsock.errors import NotReady, ParityError, SpecError, UpstreamUnavailable
from windsock.features.demand import Demanded, demanded, usable
from windsock.features.feature_tables import FeatureTable
from windsock.featurestore.definitions import apply
from windsock.featurestore.online_db import Entity, OnlineRow, micros_of, online_rows
from windsock.featurestore.refill import refill_empty, remember_filled
from windsock.featurestore.sinks import Sink, open_sink
from windsock.ledger import DayRecord, Ledger
from windsock.steps import StepContext
from windsock.store import Store

log = logging.getLogger(__name__)

_ROUNDS = 5
_SAMPLE = 100
"""Entities looked up per view and day."""
_OTHER_DAYS = 4
"""Days beside the materialized one whose rows are read for comparison."""


def run(ctx: StepContext) -> dict[str, Any]:
    """Materialize the features of ``ctx.day`` by every definition that somebody needs; option ``correct`` repairs them.

    Returns:
        ``views``: per view rows ``written`` and ``skipped`` (older than or equal to what was stored), and
        ``retracted`` (served a row that is gone from the tables, and set right) or, when correcting, ``removed``;
        ``refilled`` (rows of other days, brought along to a store that was empty);
        ``parity``: entities ``checked`` and ``mismatches``.

    Raises:
        NotReady: The day has no features yet.
        ParityError: Online and offline disagree.
    """
    day, correct = ctx.day, str(ctx.options.get("correct", False)).lower() in ("true", "1", "yes")
    wanted = list(usable(demanded(ctx.settings, ctx.spec, ctx.day)))
    taken_out = [each.table for each in wanted if correct and _is_taken_out(each.table.ledger(ctx.store), day)]
    tables = list(_served_tables(ctx, [each for each in wanted if each.table not in taken_out]))
    if not tables and not taken_out:
        return {"views": {}, "parity": {"checked": 0, "mismatches": 0}}
    # Feast's own API reads what is written here only once the views are registered.
    apply(ctx.settings, remove_gone=False)
    sink = open_sink(ctx.settings, [*tables, *taken_out])
    ledgers = {table: table.ledger(ctx.store) for table in [*tables, *taken_out]}
    views: dict[str, dict[str, int]] = {}
    refilled = refill_empty(ctx.store, sink, tables, but=day)
    with sink.day():
        for table in taken_out:
            gone = _served(sink, table, day)
            views[table.feast_name] = _set_right(ctx.store, ledgers[table], sink, table, gone)
    for _ in range(_ROUNDS):
        records = {table: _record(ledgers[table], day) for table in tables}
        latest = {table: _latest(ctx.store, table, [records[table]]) for table in tables}
        written_before = {table: (sink.observe(table, [])[1] or {}).get(str(day)) for table in tables}
        with sink.day():
            # Whoever published a new version of the day meanwhile waits for this lock or has written already.
            if any(_record(ledgers[table], day).content_hash != records[table].content_hash for table in tables):
                continue
            for table, rows in latest.items():
                name, ledger, version = table.feast_name, ledgers[table], records[table].content_hash
                if correct:
                    views[name] = _set_right(ctx.store, ledger, sink, table, [*rows, *_served(sink, table, day)])
                else:
                    written = sink.write(table, rows, regardless_of_time=False)
                    views[name] = {"written": written, "skipped": len(rows) - written}
                    if written_before[table] not in (None, version):
                        views[name]["retracted"] = _retract(ctx.store, ledger, sink, table, day, rows)
                views[name] |= {"refilled": refilled[table]} if refilled.get(table) else {}
                sink.note_day(table, day, version)
        # Not every store excludes other writers, so a version that came meanwhile may have been written first.
        if all(_record(ledgers[table], day).content_hash == records[table].content_hash for table in tables):
            break
    else:
        raise UpstreamUnavailable(
            f"{ctx.spec.name}: the features of {day} were replaced {_ROUNDS} times while they were materialized. "
            "Run the step again when recomputation is quiet."
        )
    remember_filled(ctx.store, refilled)
    compared = [
        (table, fault) for table in tables for fault in _compare(ctx.store, sink, table, records[table], latest[table])
    ]
    # Of a record that is not in force any more, the run that brings the newer version checks that one.
    in_force = {t for t in tables if _record(ledgers[t], day).content_hash == records[t].content_hash}
    faults = [fault for table, fault in compared if fault and table in in_force]
    if faults:
        raise ParityError(
            f"{ctx.spec.name} {day}: {len(faults)} of {len(compared)} sampled entities are served something else than "
            f"the tables hold. First: {faults[0]}. If the tables are right, materialize with correct=True to make "
            f"online equal to them: windsock materialize {ctx.spec.name} {day} --correct."
        )
    for view, counts in views.items():
        log.info("%s %s: %s online: %s", ctx.spec.name, day, view, counts)
    return {"views": views, "parity": {"checked": len(compared), "mismatches": len(faults)}}


def _is_taken_out(ledger: Ledger, day: date) -> bool:
    return ledger.get(day) is None and ledger.last_void(day) is not None


def _served_tables(ctx: StepContext, wanted: Iterable[Demanded]) -> Iterator[FeatureTable]:
    """Yield the tables that are materialized; one that was refused for a day is left out, unless it is required.

    Raises:
        NotReady: The day has no features yet.
    """
    for each in wanted:
        ledger = each.table.ledger(ctx.store)
        if each.required:
            _record(ledger, ctx.day)
        if ledger.get(ctx.day) is not None:
            yield each.table


def _record(ledger: Ledger, day: date) -> DayRecord:
    record = ledger.get(day)
    if record is None:
        raise NotReady(f"{ledger.model}: the features of {day} are not there yet. Run step 'features' for {day} first.")
    return record


def _latest(
    store: Store, table: FeatureTable, records: Iterable[DayRecord], entities: Sequence[Entity] | None = None
) -> dict[Entity, OnlineRow]:
    """Read the latest row of each entity, or of those given, on some days."""
    return dict(online_rows(table, table.latest(table.read(store, records, entities))))


def _retract(
    store: Store, ledger: Ledger, sink: Sink, table: FeatureTable, day: date, rows: Mapping[Entity, OnlineRow]
) -> int:
    """Set right who is served a row of this day that went with the version before; return how many."""
    served = sink.read(table, _served(sink, table, day))
    gone = [entity for entity, row in served.items() if entity not in rows or rows[entity].micros != row.micros]
    _set_right(store, ledger, sink, table, gone)
    return len(gone)


def _set_right(
    store: Store, ledger: Ledger, sink: Sink, table: FeatureTable, entities: Sequence[Entity]
) -> dict[str, int]:
    """Set entities to what the tables hold now, even if that is older or nothing."""
    truth = _latest(store, table, ledger.all().values(), entities)
    written = sink.write(table, truth, regardless_of_time=True)
    removed = sink.delete(table, [e for e in dict.fromkeys(entities) if e not in truth])
    return {"written": written, "skipped": len(truth) - written, "removed": removed}


def _served(sink: Sink, table: FeatureTable, day: date) -> list[Entity]:
    """List the entities that are served a row of this day, where the store can tell."""
    return sink.entities_between(table, micros_of(start_of(day)), micros_of(end_of(day)))


def _compare(
    store: Store, sink: Sink, table: FeatureTable, record: DayRecord, rows: Mapping[Entity, OnlineRow]
) -> Iterator[str]:
    """Compare what is served with a sample of the day's latest rows, as they were materialized.

    Yields:
        For each entity that was looked at what is wrong with it; an empty text: nothing.
    """
    sample = _sample(rows, record.day)
    served, versions = sink.observe(table, sample)
    if versions is not None and versions.get(record.ds) != record.content_hash:
        return  # another run has materialized a newer version of the day meanwhile, and checks that one itself
    step = sink.resolution_us
    newer: dict[date, dict[Entity, OnlineRow]] = defaultdict(dict)
    for entity in sample:
        offline, online = rows[entity], served.get(entity)
        if online is None:
            yield _fault(table, entity, online, offline, "nothing is served")
        elif online.micros // step > offline.micros // step:
            newer[_time_of(online).date()][entity] = online
        elif online.micros // step < offline.micros // step:
            yield _fault(table, entity, online, offline, "an older row is served")
        else:
            same = online.values == offline.values
            yield "" if same else _fault(table, entity, online, offline, "the values differ")
    days = sorted(newer, key=lambda d: (-len(newer[d]), d))
    if versions is None:
        # Without a note of what was written, a day that is being recomputed right now would look like a mismatch.
        yield from ("" for day in days for _ in newer[day])
        return
    for day in days[:_OTHER_DAYS]:
        held = [
            {
                (entity, row.micros): row
                for entity, row in online_rows(table, table.read(store, [known], list(newer[day])))
            }
            for known in _versions_of(table.ledger(store), day, versions)
        ]
        for entity, online in newer[day].items():
            found = [h[entity, online.micros] for h in held if (entity, online.micros) in h]
            if any(row.values == online.values for row in found):
                yield ""
            else:
                why = "the values differ" if found else f"the tables have no such row on {day}"
                yield _fault(table, entity, online, found[0] if found else None, why)


def _fault(table: FeatureTable, entity: Entity, online: OnlineRow | None, offline: OnlineRow | None, why: str) -> str:
    whom = f"entity {entity!r}" if entity is not None else "the view's only row"
    return (
        f"view {table.view!r}, {whom}: {why}; online {_describe(online, table.features)}, "
        f"offline {_describe(offline, table.features)}"
    )


def _versions_of(ledger: Ledger, day: date, versions: Mapping[str, str]) -> list[DayRecord]:
    """Return the version of a day that was materialized last and the one in force, which may await that still."""
    current = ledger.get(day)
    found = [current] if current is not None else []
    written = versions.get(day.isoformat())
    if written is not None and (current is None or current.content_hash != written):
        with suppress(SpecError):  # maintenance may have removed it since
            found.insert(0, ledger.pinned({day.isoformat(): written})[day])
    return found


def _sample(rows: Mapping[Entity, OnlineRow], day: date) -> list[Entity]:
    """Choose evenly spaced entities, others on other days, the same ones in every run of a day."""
    entities = sorted(rows, key=str)
    if len(entities) <= _SAMPLE:
        return entities
    stride = len(entities) / _SAMPLE
    shift = zlib.crc32(day.isoformat().encode()) % 1000 / 1000
    return [entities[int((n + shift) * stride) % len(entities)] for n in range(_SAMPLE)]


def _time_of(row: OnlineRow) -> datetime:
    return datetime(1970, 1, 1) + timedelta(microseconds=row.micros)


def _describe(row: OnlineRow | None, features: Sequence[str]) -> str:
    if row is None:
        return "nothing"
    values = ", ".join(f"{f}={v!r}" for f, v in zip(features, row.values, strict=True))
    return f"{_time_of(row).isoformat(sep=' ')} ({values})"
