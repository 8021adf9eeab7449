"""The ``materialize`` step: a day's latest features into the online store, then proof that it took.

The store never goes backwards: a backfilled day leaves newer rows alone. When a day was
replaced and an event is gone with it, whoever is still served that event's features gets
the latest ones that the tables hold. With ``correct=True`` all of the day's entities are
set to what the tables hold now, even if that is older or nothing; that is for repairs and
never happens by itself.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from windsock.days import end_of, start_of
from windsock.errors import NotReady, UpstreamUnavailable
from windsock.featurestore.cells import Entity, micros_of
from windsock.featurestore.definitions import apply
from windsock.featurestore.feature_tables import STAGE, FeatureTable, feature_tables
from windsock.featurestore.online_db import OnlineRow, online_rows
from windsock.featurestore.parity import Parity, check_view
from windsock.featurestore.sinks import Sink, open_sink
from windsock.ledger import DayRecord, Ledger
from windsock.steps import StepContext
from windsock.store import Store

log = logging.getLogger(__name__)

_ROUNDS = 5

Rows = Mapping[Entity, OnlineRow]


def run(ctx: StepContext) -> dict[str, Any]:
    """Materialize the features of ``ctx.day``; option ``correct`` (default False) repairs its entities.

    Returns:
        ``views``: per view rows ``written`` and ``skipped`` (older than or equal to what was stored), and
        ``retracted`` (served a row that is gone from the tables, and set right) or, when correcting, ``removed``;
        ``parity``: entities ``checked`` and ``mismatches``.

    Raises:
        NotReady: The day has no features yet.
        ParityError: Online and offline disagree.
    """
    day, correct = ctx.day, str(ctx.options.get("correct", False)).lower() in ("true", "1", "yes")
    tables = feature_tables(ctx.spec)
    if not tables:
        return {"views": {}, "parity": {"checked": 0, "mismatches": 0}}
    # Feast's own API reads what is written here only once the views are registered.
    apply(ctx.settings, remove_gone=False)
    sink = open_sink(ctx.settings, tables)
    ledger = Ledger.of(ctx.settings, ctx.spec.name, STAGE)
    views: dict[str, dict[str, int]] = {}
    for _ in range(_ROUNDS):
        record = _record(ledger, day)
        latest = {table.view: _latest(ctx.store, table, record) for table in tables}
        replaced = {table.view: _replaced(sink, table, record) for table in tables}
        with sink.day():
            # Whoever published a new version of the day meanwhile waits for this lock or has written already.
            if _record(ledger, day).content_hash != record.content_hash:
                continue
            for table in tables:
                rows = latest[table.view]
                if correct:
                    views[table.view] = _correct(ctx.store, ledger, sink, table, record, rows)
                else:
                    views[table.view] = _write(sink, table, rows)
                    if replaced[table.view]:
                        views[table.view]["retracted"] = _retract(ctx.store, ledger, sink, table, record, rows)
                sink.note_day(table, day, record.content_hash)
        break
    else:
        raise UpstreamUnavailable(
            f"{ctx.spec.name}: the features of {day} were replaced {_ROUNDS} times while they were materialized. "
            "Run the step again when recomputation is quiet."
        )
    parity = Parity()
    for table in tables:
        check_view(ctx.store, sink, table, record, latest[table.view], parity)
    if _record(ledger, day).content_hash == record.content_hash:
        # Else a newer version is on its way, and the run that brings it checks it.
        parity.require(ctx.spec.name, day)
    for view, counts in views.items():
        log.info("%s %s: %s online: %s", ctx.spec.name, day, view, counts)
    return {"views": views, "parity": {"checked": parity.checked, "mismatches": len(parity.mismatches)}}


def _record(ledger: Ledger, day: date) -> DayRecord:
    record = ledger.get(day)
    if record is None:
        raise NotReady(f"{ledger.model}: the features of {day} are not there yet. Run step 'features' for {day} first.")
    return record


def _latest(store: Store, table: FeatureTable, record: DayRecord) -> Rows:
    """Read the day's latest row of each entity."""
    return dict(online_rows(table, table.latest(table.read(store, [record]))))


def _write(sink: Sink, table: FeatureTable, rows: Rows) -> dict[str, int]:
    written = sink.write(table, rows, regardless_of_time=False)
    return {"written": written, "skipped": len(rows) - written}


def _replaced(sink: Sink, table: FeatureTable, record: DayRecord) -> bool:
    """Say whether another version of the day was written before."""
    _, versions = sink.observe(table, [])
    return (versions or {}).get(record.ds) not in (None, record.content_hash)


def _retract(store: Store, ledger: Ledger, sink: Sink, table: FeatureTable, record: DayRecord, rows: Rows) -> int:
    """Set right who is served a row of this day that went with the version before; return how many."""
    served = sink.read(table, _served_on(sink, table, record.day))
    gone = [entity for entity, row in served.items() if entity not in rows or rows[entity].micros != row.micros]
    _set_right(store, ledger, sink, table, gone)
    return len(gone)


def _correct(
    store: Store, ledger: Ledger, sink: Sink, table: FeatureTable, record: DayRecord, rows: Rows
) -> dict[str, int]:
    """Set the day's entities, and those that are served a row of this day, to what the tables hold now."""
    entities = list(dict.fromkeys([*rows, *_served_on(sink, table, record.day)]))
    return _set_right(store, ledger, sink, table, entities)


def _set_right(
    store: Store, ledger: Ledger, sink: Sink, table: FeatureTable, entities: Sequence[Entity]
) -> dict[str, int]:
    truth = dict(online_rows(table, table.latest(table.read(store, ledger.all().values(), entities))))
    written = sink.write(table, truth, regardless_of_time=True)
    removed = sink.delete(table, [e for e in entities if e not in truth])
    return {"written": written, "skipped": len(truth) - written, "removed": removed}


def _served_on(sink: Sink, table: FeatureTable, day: date) -> list[Entity]:
    """List the entities that are served a row of this day, where the store can tell."""
    return sink.entities_between(table, micros_of(start_of(day)), micros_of(end_of(day)))
