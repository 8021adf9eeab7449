"""A delivery that is larger than the spec allows is refused unread, with the file where it is."""

import gzip
import io
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sources_data import csv_bytes, parquet, three_days

from delivered import DAY, Inbox, transactions
from small_model import small_fraud
from windsock.errors import DayRejected
from windsock.ingest.sources.delivery import fetch
from windsock.ingest.sources.parse import Allowance, Unreadable, csv_batches, parse

MiB = 1 << 20
_pools: list[pa.MemoryPool] = []
"""Never let go of: buffers that live on point at them."""


@contextmanager
def watched() -> Iterator[Callable[[], int]]:
    """Give a function that says how much Arrow has held at once within the block, in bytes."""
    usual = pa.default_memory_pool()
    _pools.append(pa.proxy_memory_pool(usual))
    pa.set_memory_pool(_pools[-1])
    try:
        yield _pools[-1].max_memory
    finally:
        pa.set_memory_pool(usual)


@pytest.mark.parametrize("ending", ["parquet", "csv", "csv.gz"])
@pytest.mark.parametrize("limit", [{"max_rows": 399}, {"max_bytes": 2_000}])
def test_a_day_above_a_limit_is_refused_and_stays_where_it_is(tmp_path: Path, ending: str, limit: dict) -> None:
    inbox = Inbox(tmp_path, ending=ending, validation=limit)
    path = inbox.deliver(transactions(400))
    raw = path.read_bytes()
    [(name, most)] = limit.items()

    with pytest.raises(DayRejected, match=rf"more than {most:,} \w+, .* validation.{name} allows") as refused:
        inbox.ingest()

    assert str(path) in str(refused.value)
    assert path.read_bytes() == raw
    assert inbox.record().status == "rejected"
    assert inbox.record().detail["reasons"]


@pytest.mark.parametrize("ending", ["parquet", "csv", "csv.gz"])
def test_a_day_at_its_limit_is_taken_and_one_above_it_leaves_the_day_in_force(tmp_path: Path, ending: str) -> None:
    inbox = Inbox(tmp_path, ending=ending, validation={"max_rows": 400})
    assert inbox.ingest(transactions(400))["rows"] == 400

    with pytest.raises(DayRejected, match="stays in force"):
        inbox.ingest(transactions(401))

    assert inbox.rows().num_rows == 400


def test_limits_count_the_day_of_a_big_file_and_the_rows_of_a_query(tmp_path: Path, monkeypatch) -> None:
    pq.write_table(three_days(), tmp_path / "all.parquet")
    (tmp_path / "all.csv").write_bytes(csv_bytes(three_days()))
    monkeypatch.setenv("DB", f"sqlite:///{tmp_path}/db.sqlite")
    with sqlite3.connect(tmp_path / "db.sqlite") as db:
        db.execute("create table tx (TRANSACTION_ID integer, TX_DATETIME text)")
        db.executemany("insert into tx values (?, ?)", [(n, f"2026-03-02 {n:02d}:00:00") for n in range(24)])
    query = "select * from tx where TX_DATETIME >= :start and TX_DATETIME < :end"
    sources = [
        {"kind": "files", "url": f"{tmp_path}/all.{ending}", "quiet_seconds": 0} for ending in ("parquet", "csv")
    ]
    for source in (*sources, {"kind": "sql", "url_env": "DB", "query": query}):
        for most, whole in ((24, True), (23, False)):
            _, spec = small_fraud(tmp_path, source=source, validation={"max_rows": most})
            got = fetch(spec, DAY + timedelta(days=1))
            assert (got.rows is not None) == whole, (source, most)
            assert whole or "more than 23 rows" in got.problem


def test_what_unpacks_to_more_than_is_allowed_is_not_unpacked() -> None:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as file:
        for _ in range(100):
            file.write(b"a,b\n" * (MiB // 4))
    same = pa.table({"n": np.zeros(8 * MiB, np.int64)})
    codes = pa.array(np.zeros(1 << 17, np.int32))
    long = pa.table({"text": pa.DictionaryArray.from_arrays(codes, pa.array(["x" * 15_000]))})
    without_hint = io.BytesIO()
    pq.write_table(long, without_hint, store_schema=False)
    texts = without_hint.getvalue()
    bombs = [(packed.getvalue(), "csv", "gzip"), (parquet(same), "parquet", None), (texts, "parquet", None)]
    assert all(len(raw) < MiB for raw, _, _ in bombs)

    for raw, kind, compression in bombs:
        with watched() as peak, pytest.raises(Unreadable, match=r"1,048,576 bytes.*validation\.max_bytes"):
            parse(raw, kind, compression, Allowance(max_bytes=MiB))
        assert peak() < 16 * MiB, kind


def test_a_csv_file_passes_by_in_pieces() -> None:
    class Lines(io.RawIOBase):
        """Lines that are made when they are asked for: nothing but the reader's own pieces lies in memory."""

        left = 24

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            Lines.left -= 1
            return b"3,2026-03-01 12:00:00,x\n" * (size // 24) if Lines.left >= 0 else b""

    head = io.BytesIO(b"a,b,c\n")
    streams = iter([head, Lines()])

    with watched() as peak:
        rows = sum(batch.num_rows for batch in csv_batches(lambda: next(streams), None))

    assert rows > 2_000_000
    assert peak() < 40 * MiB  # of 96
