"""Filling an online store that has lost everything: ``windsock materialize MODEL --all``, and by itself.

An online store notes which version of each day was written to a view last. If it has no note for a view that was filled
before, it was emptied, and the next day that is materialized brings all others along. Rows go first and notes last, so
that whoever is killed in between leaves a store that is filled again the next time.
"""

import logging
from collections.abc import Iterable, Iterator
from datetime import date

from windsock.errors import UpstreamUnavailable
from windsock.features.demand import demanded, usable
from windsock.features.feature_tables import FeatureTable
from windsock.featurestore.definitions import apply, newest_day
from windsock.featurestore.online_db import online_rows
from windsock.featurestore.sinks import Sink, open_sink
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store

log = logging.getLogger(__name__)

_ROUNDS = 5
_DAYS_AT_ONCE = 28
"""Days whose latest rows are held in memory together."""


def refill_empty(store: Store, sink: Sink, tables: Iterable[FeatureTable], but: date) -> dict[FeatureTable, int]:
    """Fill the views without a note that were filled before, with all days but one.

    Returns:
        Rows written to each view that had no note, none if it is new; an online store that keeps no notes cannot tell.
    """
    empty = [table for table in tables if sink.observe(table, [])[1] == {}]
    return {table: refill(store, sink, table, but) if store.exists(*_mark(table)) else 0 for table in empty}


def remember_filled(store: Store, tables: Iterable[FeatureTable]) -> None:
    """Remember that views have been filled."""
    for table in tables:
        store.write_json({"view": table.feast_name}, *_mark(table))


def _mark(table: FeatureTable) -> tuple[str, str, str]:
    return table.model, "online", f"{table.feast_name}.json"


def refill_model(settings: Settings, spec: ModelSpec) -> Iterator[tuple[str, int, int]]:
    """Fill all views of a model that somebody needs, and yield name, days and rows that were missing or older.

    Raises:
        SpecError: A view is not registered, or the online store refuses the login.
        UpstreamUnavailable: The online store cannot be reached.
    """
    apply(settings, remove_gone=False)
    store = Store.of(settings)
    tables = dict.fromkeys(each.table for each in usable(demanded(settings, spec, newest_day(settings, spec))))
    sink = open_sink(settings, list(tables))
    for table in tables:
        yield table.feast_name, len(table.ledger(store).all()), refill(store, sink, table)


def refill(store: Store, sink: Sink, table: FeatureTable, but: date | None = None) -> int:
    """Write the latest row of each entity, the newest days first; return how many rows were missing or older.

    Raises:
        UpstreamUnavailable: The store cannot be reached, or days were replaced all the time meanwhile.
    """
    ledger, done, written = table.ledger(store), dict[date, str](), 0
    for _ in range(_ROUNDS):
        records = [record for day, record in reversed(ledger.all().items()) if day != but]
        left = [record for record in records if done.get(record.day) != record.content_hash]
        if not left:
            return written
        for start in range(0, len(left), _DAYS_AT_ONCE):
            some = left[start : start + _DAYS_AT_ONCE]
            with sink.day():
                latest = dict(online_rows(table, table.latest(table.read(store, some))))
                written += sink.write(table, latest, regardless_of_time=False)
            log.info("%s: %d of %d days are online", table.feast_name, start + len(some), len(left))
        with sink.day():
            for record in left:
                sink.note_day(table, record.day, record.content_hash)
        done |= {record.day: record.content_hash for record in left}
    raise UpstreamUnavailable(
        f"{table.feast_name}: days were replaced {_ROUNDS} times while the online store was filled. Run it again when "
        "recomputation is quiet."
    )
