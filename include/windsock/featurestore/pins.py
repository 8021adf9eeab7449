"""Reading exact versions of days through Feast's own API.

Feast's calls have no argument for a version. A training run says ``with pinned(...)``
around them, and Windsock's offline store then reads those records and no others. The pin
belongs to the calling thread or task alone.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date, datetime

from windsock.featurestore.feature_tables import STAGE, days_within
from windsock.ledger import DayRecord, Ledger
from windsock.store import Store

Records = Mapping[date, DayRecord]

_pinned: ContextVar[Mapping[str, Records] | None] = ContextVar("windsock_pinned_features", default=None)


@contextmanager
def pinned(model: str, records: Records) -> Iterator[None]:
    """Let the offline store read exactly these feature records of one model, and nothing newer."""
    token = _pinned.set({**(_pinned.get() or {}), model: dict(records)})
    try:
        yield
    finally:
        _pinned.reset(token)


def feature_records(store: Store, model: str, first: datetime | None, last: datetime | None) -> dict[date, DayRecord]:
    """Return the feature records that touch ``[first, last]``: the pinned ones, or those in force now."""
    chosen = (_pinned.get() or {}).get(model)
    if chosen is not None:
        return days_within(chosen, first, last)
    ledger = Ledger(store, model, STAGE)
    return {
        day: record
        for day in ledger.days()
        if (first is None or day >= first.date()) and (last is None or day <= last.date())
        if (record := ledger.get(day)) is not None
    }
