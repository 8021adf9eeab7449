"""Days of tiny random payments, put into the ingest ledger directly, for tests of time semantics."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta

import pyarrow as pa

from windsock import tables
from windsock.days import last_instant
from windsock.ledger import DayRecord, Ledger
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store

Payment = tuple[int, int, int, float, int | None]
"""Second of the day, customer, terminal, amount, label (None: never known)."""


def put_day(settings: Settings, spec: ModelSpec, day: date, payments: list[Payment], *, first_id: int = 0) -> DayRecord:
    """Publish one day of payments as the ingest step would."""
    start = datetime.combine(day, datetime.min.time())
    base = (day - date(2020, 1, 1)).days * 10_000 + first_id
    times = [start + timedelta(seconds=p[0]) for p in payments]
    order = sorted(range(len(payments)), key=lambda i: (times[i], i))
    events = pa.table(
        {
            "TRANSACTION_ID": pa.array([base + i for i in order], pa.int64()),
            "TX_DATETIME": pa.array([times[i] for i in order], pa.timestamp("us")),
            "CUSTOMER_ID": pa.array([payments[i][1] for i in order], pa.int64()),
            "TERMINAL_ID": pa.array([payments[i][2] for i in order], pa.int64()),
            "TX_AMOUNT": pa.array([payments[i][3] for i in order], pa.float64()),
            "known_at": pa.array([last_instant(day)] * len(order), pa.timestamp("us")),
        }
    )
    known = [i for i in order if payments[i][4] is not None]
    labels = pa.table(
        {
            "TRANSACTION_ID": pa.array([base + i for i in known], pa.int64()),
            "TX_FRAUD": pa.array([payments[i][4] for i in known], pa.int64()),
            "event_time": pa.array([times[i] for i in known], pa.timestamp("us")),
            "known_at": pa.array([times[i] + timedelta(days=spec.label.delay_days) for i in known], pa.timestamp("us")),
        }
    )
    store, ledger = Store.of(settings), Ledger.of(settings, spec.name, "ingest")
    previous = ledger.get(day)
    outputs = {
        name: tables.write_day(store, spec.name, name, day, rows, previous=previous)
        for name, rows in (("events", events), ("labels", labels))
    }
    return ledger.publish(DayRecord(day.isoformat(), "published" if payments else "empty", outputs))


def put_days(settings: Settings, spec: ModelSpec, days: Mapping[date, list[Payment]]) -> None:
    """Publish several days."""
    for day, payments in days.items():
        put_day(settings, spec, day, payments)
