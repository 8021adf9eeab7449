import gzip
from collections.abc import Callable
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from sources_data import csv_bytes, parquet, three_days

from shared_data import shared_data
from small_model import small_fraud
from windsock.days import ONE_DAY
from windsock.ingest.sources import bigfile
from windsock.ingest.sources.delivery import Delivery, NotDelivered, fetch
from windsock.ingest.sources.parse import Unreadable

DAY = date(2026, 3, 2)
NAME = "2026-03-02.parquet"
Fetch = Callable[..., Delivery]


@pytest.fixture
def fetch_files(tmp_path: Path) -> Fetch:
    """Return a function that fetches a day of the fraud model whose source is ``files``."""

    def do(day: date = DAY, **source: Any) -> Delivery:
        _, spec = small_fraud(tmp_path, source={"kind": "files", "quiet_seconds": 0, **source})
        return fetch(spec, day)

    return do


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(three_days(), id="microseconds"),
        pytest.param(three_days("ns"), id="nanoseconds"),
        pytest.param(three_days("s"), id="seconds"),
        pytest.param(three_days("us", "Asia/Tokyo"), id="zone"),
    ],
)
def test_a_day_of_a_big_parquet_file_is_its_rows_from_midnight_to_midnight_utc(
    tmp_path: Path, fetch_files: Fetch, table: pa.Table
) -> None:
    pq.write_table(table, tmp_path / "all.parquet", row_group_size=10)

    got = fetch_files(url=f"{tmp_path}/all.parquet")

    assert got.rows["TRANSACTION_ID"].to_pylist() == list(range(24, 48))
    assert got.name == NAME


def test_text_times_cut_a_big_file_as_timestamps_do(tmp_path: Path, fetch_files: Fetch) -> None:
    table = three_days()
    times = [f"{t.isoformat()}+00:00" if n % 2 else f"{t}" for n, t in enumerate(table["TX_DATETIME"].to_pylist())]
    table = table.set_column(1, "TX_DATETIME", pa.array(times))
    pq.write_table(table, tmp_path / "all.parquet")
    pc.write_csv(table, tmp_path / "all.csv")
    (tmp_path / "all.csv.gz").write_bytes(gzip.compress((tmp_path / "all.csv").read_bytes()))

    for name in ("all.parquet", "all.csv", "all.csv.gz"):
        got = fetch_files(url=f"{tmp_path}/{name}")
        assert [int(n) for n in got.rows["TRANSACTION_ID"].to_pylist()] == list(range(24, 48)), name


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_each_row_of_a_big_file_belongs_to_one_day_and_timeless_rows_to_the_first(
    tmp_path: Path, fetch_files: Fetch, ending: str
) -> None:
    table = three_days()
    times = table["TX_DATETIME"].to_pylist()
    times[30] = times[70] = None
    table = table.set_column(1, "TX_DATETIME", pa.array(times, pa.timestamp("us")))
    if ending == "csv":
        pc.write_csv(table, tmp_path / "all.csv")
    else:
        pq.write_table(table, tmp_path / "all.parquet")

    days = [fetch_files(date(2026, 3, n), url=f"{tmp_path}/all.{ending}").rows for n in (1, 2, 3)]

    keys = [[int(n) for n in rows["TRANSACTION_ID"].to_pylist()] for rows in days]
    assert keys[0] == [*range(24), 30, 70]
    assert sorted(chain.from_iterable(keys)) == list(range(72))


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_big_file_that_ends_before_the_day_may_still_grow(tmp_path: Path, fetch_files: Fetch, ending: str) -> None:
    table = pa.concat_tables([three_days().slice(0, 24), three_days().slice(48)])
    if ending == "csv":
        pc.write_csv(table, tmp_path / "all.csv")
    else:
        pq.write_table(table, tmp_path / "all.parquet")
    url = f"{tmp_path}/all.{ending}"

    assert fetch_files(date(2026, 3, 2), url=url).rows.num_rows == 0
    with pytest.raises(NotDelivered, match="no event on or after 2026-03-04"):
        fetch_files(date(2026, 3, 4), url=url)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_big_file_that_changes_while_it_is_read_is_waited_for_unless_its_day_is_over(
    tmp_path: Path, fetch_files: Fetch, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    path, cut = tmp_path / f"all.{ending}", bigfile.cut
    path.write_bytes(csv_bytes(three_days()) if ending == "csv" else parquet(three_days()))
    whole = path.read_bytes()

    def becomes(content: bytes) -> None:
        path.write_bytes(whole)
        monkeypatch.setattr(bigfile, "cut", lambda *given: (cut(*given), path.write_bytes(content))[0])

    becomes(whole + b"\n")  # rows of later days, added at its end
    assert fetch_files(url=str(path)).rows.num_rows == 24
    becomes(whole + b"\n")
    with pytest.raises(NotDelivered, match="still being written"):  # the last day's own rows may be among them
        fetch_files(DAY + ONE_DAY, url=str(path))
    becomes(whole[:-9])
    with pytest.raises(NotDelivered, match="still being written"):
        fetch_files(url=str(path))

    def broken(*given: Any) -> Any:
        path.write_bytes(whole)
        raise Unreadable("truncated")

    path.write_bytes(whole[:-9])
    monkeypatch.setattr(bigfile, "cut", broken)
    with pytest.raises(NotDelivered, match="still being written"):  # half a copy is no fault
        fetch_files(url=str(path))


def test_the_identity_of_a_day_is_that_of_its_rows_not_of_the_big_file(tmp_path: Path, fetch_files: Fetch) -> None:
    path = tmp_path / "all.parquet"
    pq.write_table(three_days(), path, row_group_size=7)
    before = fetch_files(url=str(path))
    pq.write_table(three_days().slice(0, 60), path, row_group_size=50, compression="gzip")
    grown = fetch_files(url=str(path))
    amounts = pa.array([0.0] * 72)
    pq.write_table(three_days().set_column(2, "TX_AMOUNT", amounts), path)
    changed = fetch_files(url=str(path))

    assert before.content_hash == grown.content_hash
    assert before.raw == grown.raw
    assert before.content_hash != changed.content_hash


@pytest.mark.parametrize(
    ("name", "raw", "says"),
    [
        pytest.param("all.parquet", b"", "is empty", id="empty"),
        pytest.param("all.csv", b"", "is empty", id="empty-csv"),
        pytest.param("all.parquet", parquet(three_days())[:-50], "truncated", id="truncated"),
        pytest.param("all.parquet", parquet(three_days().drop(["TX_DATETIME"])), "'TX_DATETIME' is missing", id="gone"),
        pytest.param(
            "all.parquet",
            parquet(three_days().set_column(1, "TX_DATETIME", pa.array(range(72)))),
            r"'TX_DATETIME' \(int64\) holds no readable time",
            id="numbers",
        ),
        pytest.param("all.csv", b"TX_DATETIME,A\nyesterday,1\n", "holds no readable time", id="words"),
        pytest.param("all.csv", b"TX_DATETIME,A\n2026-03-02,1\n2026-03-02\n", "Row #3", id="ragged"),
    ],
)
def test_an_unreadable_big_file_is_a_problem_for_every_day(
    tmp_path: Path, fetch_files: Fetch, name: str, raw: bytes, says: str
) -> None:
    (tmp_path / name).write_bytes(raw)

    got = fetch_files(url=f"{tmp_path}/{name}")

    assert (got.rows, got.raw, got.content_hash) == (None, None, None)
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(got.problem)


def test_the_real_months_cut_by_day_equal_the_real_day(tmp_path: Path) -> None:
    big = shared_data("fraud_handbook") / "transactions_2018-04-01_2018-08-14.parquet"
    good = shared_data("malformed") / "00_good"
    day = date(2018, 6, 15)

    def rows(url: str) -> pa.Table:
        _, spec = small_fraud(tmp_path, first_day="2018-04-01", source={"kind": "files", "url": url})
        return fetch(spec, day).rows

    assert rows(str(big)).equals(rows(f"{good}/{{ds}}.parquet"))
