"""What the suite and the budget of a spec would make of the last days, from the deliveries that were kept."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

from windsock.ingest.kept import kept_delivery
from windsock.ingest.trial import try_delivery
from windsock.ledger import DayRecord, Ledger
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store

_DAYS = 14


def try_suite(settings: Settings, spec: ModelSpec, days: Sequence[date]) -> list[str]:
    """Judge the last published days anew, and say what would be set aside or refused.

    Raises:
        SpecError: The suite cannot be used.
    """
    store, ledger, tried, said = Store.of(settings), Ledger.of(settings, spec.name, "ingest"), 0, list[str]()
    rows = set_aside = refused = 0
    with tempfile.TemporaryDirectory(prefix="windsock-plan-") as scratch:
        elsewhere = replace(settings, home=Path(scratch))  # what Great Expectations writes goes there
        for day in days[-_DAYS:]:
            record = ledger.get(day)
            if record is None or record.status != "published":
                continue
            if (judged := _judge(elsewhere, store, spec, record)) is None:
                continue
            delivered, faulty, reasons = judged
            tried, rows, set_aside, refused = tried + 1, rows + delivered, set_aside + faulty, refused + bool(reasons)
            then = record.rows("quarantine")
            if reasons:
                said.append(f"suite, {day}: refused: {reasons[0]}")
            elif faulty != then:
                said.append(f"suite, {day}: {faulty:,} rows set aside, {then:,} when it was published")
    if not tried:
        return [f"suite: none of the last {_DAYS} days has a kept delivery"]
    share = f"{set_aside:,} of {rows:,} rows set aside"
    return [f"suite: of {tried} kept days {refused} would be refused, {share}", *said]


def _judge(settings: Settings, store: Store, spec: ModelSpec, record: DayRecord) -> tuple[int, int, list[str]] | None:
    """Return a day's rows, those set aside, and why it is refused; None if its delivery is not kept."""
    delivery = kept_delivery(store, record)
    if delivery is None or delivery.rows is None:
        return None
    trial = try_delivery(settings, spec, record.day, delivery)
    return trial.rows, trial.set_aside, list(trial.reasons)
