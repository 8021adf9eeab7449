import contextlib
import functools
import gzip
import io
import threading
import traceback
from collections.abc import Callable, Iterator
from datetime import date, datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sources_data import csv_bytes, parquet, three_days

from examples import examples
from shared_data import shared_data
from small_model import small_fraud
from windsock.errors import SpecError, UpstreamUnavailable
from windsock.ingest.casts import cast_column
from windsock.ingest.labels import fetch_labels
from windsock.ingest.sources.delivery import Delivery, NotDelivered, fetch
from windsock.ingest.sources.parse import Unreadable, parse
from windsock.redact import redact, without_example

DAY = date(2026, 3, 2)
NAME = "2026-03-02.parquet"
SECRET = "hunter2"
Fetch = Callable[..., Delivery]


@pytest.fixture
def fetch_files(tmp_path: Path) -> Fetch:
    """Return a function that fetches a day of the fraud model whose source is ``files``."""

    def do(day: date = DAY, **source: Any) -> Delivery:
        _, spec = small_fraud(tmp_path, source={"kind": "files", **source})
        return fetch(spec, day)

    return do


def test_a_daily_file_is_read_once_and_kept_byte_for_byte(tmp_path: Path, fetch_files: Fetch) -> None:
    raw = parquet(three_days())
    (tmp_path / NAME).write_bytes(raw)

    got = fetch_files(url=f"{tmp_path}/{{ds}}.parquet")

    assert got.raw == raw
    assert got.rows.equals(three_days())
    assert (got.name, got.problem) == (NAME, None)


def test_a_relative_path_starts_at_the_models_folder(tmp_path: Path, fetch_files: Fetch) -> None:
    with pytest.raises(UpstreamUnavailable, match="models/fraud/data/2026-03-02"):
        fetch_files(url="data/{ds}.parquet")
    folder = tmp_path / "models" / "fraud" / "data"
    folder.mkdir(parents=True)
    (folder / NAME).write_bytes(parquet(three_days()))

    assert fetch_files(url="data/{ds}.parquet").rows.num_rows == 72


def test_any_fsspec_url_serves(fetch_files: Fetch) -> None:
    fsspec.filesystem("memory").pipe_file("/in/2026-03-02.csv.gz", gzip.compress(csv_bytes(three_days())))

    got = fetch_files(url="memory://in/{ds}.csv.gz")

    assert got.rows.num_rows == 72
    assert got.name == "2026-03-02.csv.gz"


def test_a_missing_file_may_come_later_and_is_named(tmp_path: Path, fetch_files: Fetch) -> None:
    with pytest.raises(NotDelivered, match=rf"{tmp_path}/2026-03-02.parquet does not exist"):
        fetch_files(url=f"{tmp_path}/{{ds}}.parquet")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """Serve ``tmp_path`` on loopback and return its address."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("name", ["{ds}.parquet", "all.parquet", "all.csv"])
def test_a_place_that_cannot_be_reached_is_not_a_damaged_file(
    tmp_path: Path, fetch_files: Fetch, web: str, name: str
) -> None:
    with pytest.raises(NotDelivered, match="does not exist"):
        fetch_files(url=f"{web}/{name}")
    write = pc.write_csv if name.endswith("csv") else pq.write_table
    write(three_days(), tmp_path / name.replace("{ds}", DAY.isoformat()))

    assert fetch_files(url=f"{web}/{name}?token={SECRET}").rows.num_rows in (24, 72)
    with pytest.raises(UpstreamUnavailable, match="cannot be read now") as caught:
        fetch_files(url=f"http://joe:{SECRET}@127.0.0.1:1/{name}?token={SECRET}")
    assert not isinstance(caught.value, NotDelivered)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        pytest.param(f"nowhere://joe:{SECRET}@x/{{ds}}.parquet", "cannot be used", id="unknown-protocol"),
        pytest.param("data/{ds}", "ending does not tell the format", id="no-format"),
    ],
)
def test_an_unusable_url_is_a_fault_of_the_spec(fetch_files: Fetch, url: str, says: str) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        fetch_files(url=url)
    assert SECRET not in str(caught.value)


def test_a_folder_in_place_of_the_file_is_a_fault_of_the_spec(tmp_path: Path, fetch_files: Fetch) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(SpecError, match="is a folder"):
        fetch_files(url=f"{tmp_path}/{{ds}}.parquet")


@pytest.mark.parametrize(
    ("name", "raw", "says"),
    [
        pytest.param(NAME, b"", "is empty \\(0 bytes\\)", id="empty"),
        pytest.param(NAME, parquet(three_days())[:-100], "truncated: its footer is missing", id="truncated"),
        pytest.param(NAME, b"TRANSACTION_ID,TX_AMOUNT\n1,2\n", "is not Parquet: it starts with b'TRAN'", id="csv"),
        pytest.param(NAME, b"PAR1" + bytes(100) + b"PAR1", "is damaged", id="no-footer"),
        pytest.param("2026-03-02.csv", parquet(three_days()), "is Parquet, but is declared or named as CSV", id="pq"),
        pytest.param("2026-03-02.csv", b"A,B\n1,2\n3\n", "Row #3: Expected 2 columns, got 1", id="ragged"),
        pytest.param("2026-03-02.csv", b"A,B\n1,2\n3,Jane,x\n", "got 3, e.g. 3,Jane,x", id="a-cell-too-many"),
        pytest.param("2026-03-02.csv", "A,B\n1,é\n".encode("latin-1"), "column #1.*UTF-8", id="latin-1"),
        pytest.param("2026-03-02.csv", "é,B\n1,2\n".encode("latin-1"), "byte 0xe9 at position 0", id="latin-1-head"),
        pytest.param("2026-03-02.csv", "A,B\n1,2\n".encode("utf-16"), "UTF-8", id="utf-16"),
        pytest.param("2026-03-02.csv", b"\n\n", "no header line", id="blank"),
        pytest.param("2026-03-02.csv.gz", gzip.compress(b"A,B\n1,2\n" * 99)[:-9], "cannot be read", id="gzip-cut"),
        pytest.param("2026-03-02.csv.gz", b"A,B\n1,2\n", "cannot be read", id="not-gzip"),
    ],
)
def test_an_unreadable_file_is_a_problem_that_names_the_file_and_is_kept(
    tmp_path: Path, fetch_files: Fetch, name: str, raw: bytes, says: str
) -> None:
    (tmp_path / name).write_bytes(raw)

    got = fetch_files(url=f"{tmp_path}/{name.replace(DAY.isoformat(), '{ds}')}")

    assert got.rows is None
    assert got.raw == raw
    assert got.content_hash is not None
    assert got.problem is not None
    assert got.problem.startswith(f"{tmp_path}/{name}: ")
    assert "Jane" not in without_example(got.problem), "messages hold no value of a row"
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(got.problem)


def test_times_in_int96_are_themselves_or_none_that_the_calendar_has() -> None:
    far, near = datetime(9999, 12, 31), datetime(2026, 3, 1, 1, 2, 3, 4)
    buffer = io.BytesIO()
    pq.write_table(
        pa.table({"t": pa.array([far, datetime(1, 1, 1), near, None], pa.timestamp("us"))}),
        buffer,
        use_deprecated_int96_timestamps=True,
        use_dictionary=False,
        compression="none",
    )
    raw, julian = buffer.getvalue(), (near.date() - date(1970, 1, 1)).days + 2_440_588

    assert parse(raw, "parquet", None)["t"].to_pylist() == [far, datetime(1, 1, 1), near, None]
    wild = raw.replace(julian.to_bytes(4, "little"), (2**32 - 1).to_bytes(4, "little"))  # year 11 million
    times, broken = cast_column(parse(wild, "parquet", None)["t"], "timestamp", from_text=False)
    assert (times.to_pylist(), broken.tolist()) == ([far, datetime(1, 1, 1), None, None], [2])


@given(st.data())
@examples(60)
def test_a_damaged_file_is_read_or_refused_but_never_an_unknown_error(data: st.DataObject) -> None:
    raw = bytearray(parquet(three_days()))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(len(raw) // 2, len(raw)))]
    for kind in ("parquet", "csv"):
        with contextlib.suppress(Unreadable):
            parse(bytes(raw), kind, None)


def test_csv_is_delivered_as_text_and_empty_fields_as_null(tmp_path: Path, fetch_files: Fetch) -> None:
    (tmp_path / "2026-03-02.csv").write_bytes(b'\xef\xbb\xbfA;B;C\r\n007;12,50;\\N\r\n8;"x\ny";n/a\r\n')

    rows = fetch_files(url=f"{tmp_path}/{{ds}}.csv").rows

    assert rows.to_pylist() == [{"A": "007", "B": "12,50", "C": None}, {"A": "8", "B": "x\ny", "C": "n/a"}]
    assert set(rows.schema.types) == {pa.string()}


@pytest.mark.parametrize("raw", [b"A,B\n", b"A,B"])
def test_a_header_alone_is_a_day_without_rows(raw: bytes) -> None:
    rows = parse(raw, "csv", None)
    assert (rows.num_rows, rows.column_names) == (0, ["A", "B"])


def test_label_files_are_fetched_by_day_of_delivery(tmp_path: Path) -> None:
    label = {"column": "TX_FRAUD", "task": "binary", "delay_days": 7}
    _, inline = small_fraud(tmp_path, label=label)
    with pytest.raises(SpecError, match="has no label files"):
        fetch_labels(inline, DAY)
    files = {"url": f"{tmp_path}/labels_{{ds}}.csv", "key": "TRANSACTION_ID"}
    _, spec = small_fraud(tmp_path, label={**label, "files": files})
    (tmp_path / "labels_2026-03-02.csv").write_text("TRANSACTION_ID,TX_FRAUD\n5,1\n")

    assert fetch_labels(spec, DAY).rows.to_pylist() == [{"TRANSACTION_ID": "5", "TX_FRAUD": "1"}]


def test_secrets_in_a_url_are_not_repeated() -> None:
    text = redact("failed: s3://key:secret@bucket/x?X-Amz-Signature=abc#frag and https://u@h/p?token=t")
    assert not {"secret", "abc", "token=t", "u@h"} & set(text.replace("/", " ").replace("=", " ").split())
    assert "bucket/x" in text


@pytest.mark.parametrize(
    ("case", "says"),
    [("05_truncated_parquet", "truncated"), ("06_empty_file", "empty")],
)
def test_the_real_broken_files_are_refused(tmp_path: Path, case: str, says: str) -> None:
    folder = shared_data("malformed") / case
    source = {"kind": "files", "url": f"{folder}/{{ds}}.parquet"}
    _, spec = small_fraud(tmp_path, first_day="2018-04-01", source=source)

    problem = fetch(spec, date(2018, 6, 15)).problem

    assert problem is not None
    assert case in problem
    assert says in problem


def test_the_mark_of_a_web_address_is_looked_for_beside_the_file(tmp_path: Path, fetch_files: Fetch, web: str) -> None:
    (tmp_path / NAME).write_bytes(parquet(three_days()))
    asked = {"url": f"{web}/{{ds}}.parquet?sig=a/b", "mark": "{ds}.done"}

    with pytest.raises(NotDelivered, match=r"not the mark 2026-03-02\.done"):
        fetch_files(**asked)
    (tmp_path / "2026-03-02.done").touch()
    assert fetch_files(**asked).rows.num_rows == 72
