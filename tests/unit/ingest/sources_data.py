"""Deliveries for the tests of the sources."""

import io
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq


def three_days(unit: str = "us", zone: str | None = None) -> pa.Table:
    """Return one event every hour of 2026-03-01 to 03, in order."""
    start = datetime(2026, 3, 1, tzinfo=UTC if zone else None)
    times = [start + timedelta(hours=n) for n in range(72)]
    return pa.table(
        {
            "TRANSACTION_ID": list(range(72)),
            "TX_DATETIME": pa.array(times, pa.timestamp(unit, zone)),
            "TX_AMOUNT": [n / 4 for n in range(72)],
        }
    )


def parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def csv_bytes(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pc.write_csv(table, buffer)
    return buffer.getvalue()
