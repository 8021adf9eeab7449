"""A day of small deliveries for the fraud model, to be broken by tests in any way."""

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from small_model import small_fraud
from windsock import tables
from windsock.ledger import DayRecord, Ledger
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.steps import run_step
from windsock.store import Store

DAY = date(2026, 3, 1)
PAYMENT = {
    "TRANSACTION_ID": "int64",
    "TX_DATETIME": "timestamp",
    "CUSTOMER_ID": "int64",
    "TERMINAL_ID": "int64",
    "TX_AMOUNT": "double",
}
"""The columns of an event as the fraud model declares them."""


def transactions(rows: int = 400, day: date = DAY) -> pa.Table:
    """Return a valid day: ids from the day on, one event every few minutes around the clock."""
    start = datetime(day.year, day.month, day.day)
    step = timedelta(seconds=86_400 // rows)
    return pa.table(
        {
            "TRANSACTION_ID": pa.array([day.toordinal() * 100_000 + n for n in range(rows)], pa.int64()),
            "TX_DATETIME": pa.array([start + n * step for n in range(rows)], pa.timestamp("us")),
            "CUSTOMER_ID": pa.array([n % 50 for n in range(rows)], pa.int64()),
            "TERMINAL_ID": pa.array([n % 80 for n in range(rows)], pa.int64()),
            "TX_AMOUNT": pa.array([20.0 + n % 60 for n in range(rows)], pa.float64()),
            "TX_FRAUD": pa.array([int(n % 100 == 0) for n in range(rows)], pa.int64()),
        }
    )


def with_column(table: pa.Table, name: str, values: Any, kind: pa.DataType | None = None) -> pa.Table:
    """Return a table with one column replaced."""
    array = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, kind)
    return table.set_column(table.column_names.index(name), name, array)


class Inbox:
    """A small fraud model that reads files from a folder."""

    def __init__(self, home: Path, *, ending: str = "parquet", **overrides: Any) -> None:
        self.folder = home / "inbox"
        self.folder.mkdir(exist_ok=True)
        self.ending = ending
        source = {"kind": "files", "url": f"{self.folder}/{{ds}}.{ending}"}
        self.settings: Settings
        self.spec: ModelSpec
        self.settings, self.spec = small_fraud(home, source=source, **overrides)

    def deliver(self, table: pa.Table, day: date = DAY) -> Path:
        """Put a day's file in place."""
        path = self.folder / f"{day}.{self.ending}"
        if self.ending.startswith("csv"):
            with pa.output_stream(path) as file:  # compressed as the ending says
                pyarrow.csv.write_csv(table, file)
        else:
            pq.write_table(table, path)
        return path

    def ingest(self, table: pa.Table | None = None, day: date = DAY, **options: Any) -> dict[str, Any]:
        """Deliver a day, if given, and ingest it as a replayed run."""
        if table is not None:
            self.deliver(table, day)
        return run_step("ingest", model="fraud", key=str(day), settings=self.settings, live=False, options=options)

    def record(self, day: date = DAY, stage: str = "ingest") -> DayRecord | None:
        """Return the day's record in force."""
        return Ledger.of(self.settings, "fraud", stage).get(day)

    def rows(self, table: str = "events", day: date = DAY, stage: str = "ingest") -> pa.Table | None:
        """Return the rows that readers see."""
        record = self.record(day, stage)
        return None if record is None else tables.read(Store.of(self.settings), [record], table)
