import sqlite3
import traceback
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from small_model import small_fraud
from windsock.errors import SpecError, UpstreamUnavailable
from windsock.ingest.sources.delivery import Delivery, fetch
from windsock.ingest.sources.sql import _to_array

QUERY = "select * from tx where TX_DATETIME >= :start and TX_DATETIME < :end"
PASSWORD = "hunter2"
Fetch = Callable[..., Delivery]


@pytest.fixture
def fetch_sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fetch:
    """Return a function that fetches 2026-03-02 by a query from a small SQLite database."""
    with sqlite3.connect(tmp_path / "db.sqlite") as db:
        db.execute("create table tx (TRANSACTION_ID integer, TX_DATETIME text, TX_AMOUNT real)")
        db.executemany(
            "insert into tx values (?, ?, ?)",
            [
                (5, "2026-03-03 00:00:00", 5.0),
                (4, "2026-03-02 23:59:59.999999", None),
                (3, "2026-03-02T12:00:00", 3.25),
                (2, "2026-03-02 00:00:00.000000", 2.5),
                (1, "2026-03-02 00:00:00", 1.0),
                (0, "2026-03-01 23:59:59", 0.5),
            ],
        )

    def do(query: str = QUERY, url: str | None = f"sqlite:///{tmp_path}/db.sqlite") -> Delivery:
        if url is None:
            monkeypatch.delenv("FRAUD_DB", raising=False)
        else:
            monkeypatch.setenv("FRAUD_DB", url)
        _, spec = small_fraud(tmp_path, source={"kind": "sql", "url_env": "FRAUD_DB", "query": query})
        return fetch(spec, date(2026, 3, 2))

    return do


def test_a_query_brings_the_day_from_midnight_to_midnight_in_a_fixed_order(fetch_sql: Fetch) -> None:
    got = fetch_sql()
    assert got.rows["TRANSACTION_ID"].to_pylist() == ["1", "2", "4", "3"]  # as text, T follows the blank
    assert got.rows["TX_AMOUNT"].to_pylist() == ["1.0", "2.5", None, "3.25"]
    assert got.problem is None


def test_the_order_in_which_a_database_returns_rows_changes_no_byte(fetch_sql: Fetch) -> None:
    up, down = (fetch_sql(f"{QUERY} order by TX_AMOUNT {way}") for way in ("asc", "desc"))
    assert up.raw == down.raw
    assert up.content_hash == down.content_hash


def test_a_day_without_rows_keeps_its_columns(fetch_sql: Fetch) -> None:
    rows = fetch_sql(f"{QUERY} and 1 = 0").rows
    assert rows.num_rows == 0
    assert rows.column_names == ["TRANSACTION_ID", "TX_DATETIME", "TX_AMOUNT"]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        pytest.param("select oops from tx where :start < :end", "oops", id="column"),
        pytest.param("select * from nothing where :start < :end", "nothing", id="table"),
        pytest.param("selec :start, :end", "syntax", id="syntax"),
        pytest.param("select :start, :end, :more", "'more'", id="parameter"),
        pytest.param("update tx set TX_AMOUNT = 1 where :start < :end", "returns no rows", id="no-select"),
        pytest.param("select 1 as a, 2 as a where :start < :end", "returns a more than once", id="twice"),
    ],
)
def test_a_query_that_does_not_run_is_a_fault_of_the_spec(fetch_sql: Fetch, query: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        fetch_sql(query)


def test_a_query_never_changes_the_database(fetch_sql: Fetch) -> None:
    with pytest.raises(SpecError):
        fetch_sql("delete from tx where :start < :end")
    assert fetch_sql().rows.num_rows == 4


@pytest.mark.parametrize(
    ("url", "kind", "says"),
    [
        pytest.param(None, SpecError, "FRAUD_DB .* is not set", id="unset"),
        pytest.param(f"joe:{PASSWORD}@host/db", SpecError, "does not hold a SQLAlchemy URL", id="no-url"),
        pytest.param(f"nodb+x://joe:{PASSWORD}@host/db", SpecError, "driver 'nodb\\+x'", id="no-driver"),
        pytest.param(
            f"postgresql+psycopg://joe:{PASSWORD}@127.0.0.1:1/db", UpstreamUnavailable, "cannot be reached", id="down"
        ),
        pytest.param("sqlite:////nowhere/x.sqlite", UpstreamUnavailable, "does not exist", id="no-file"),
    ],
)
def test_a_database_that_is_not_there_is_told_from_a_wrong_url_without_its_password(
    fetch_sql: Fetch, url: str | None, kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says) as caught:
        fetch_sql(url=url)
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


def test_a_locked_database_may_be_asked_again(tmp_path: Path, fetch_sql: Fetch) -> None:
    holder = sqlite3.connect(tmp_path / "db.sqlite", isolation_level=None)
    holder.execute("begin exclusive")
    try:
        with pytest.raises(UpstreamUnavailable, match="locked"):
            fetch_sql(url=f"sqlite:///{tmp_path}/db.sqlite?timeout=0.01")
    finally:
        holder.close()


def test_values_that_no_arrow_type_holds_become_text() -> None:
    assert _to_array([1, None, "x"]).to_pylist() == ["1", None, "x"]
    assert _to_array([{"a": 1}, None]).type == pa.string()
    assert _to_array([1, None]).type == pa.int64()
