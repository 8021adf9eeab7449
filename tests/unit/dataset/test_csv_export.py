import csv
import gzip
import io
import math
from datetime import date, datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from windsock.dataset.csv_export import csv_bytes, csv_columns, csv_table
from windsock.errors import SpecError

TEXTS = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ["", "\\", "\\\\", '"', ",", "\r\n", "NULL"]
)
COLUMNS = {
    "key": (st.integers(-(2**63), 2**63 - 1), pa.int64()),
    "amount": (st.none() | st.floats(), pa.float64()),
    "narrow": (st.none() | st.floats(width=32), pa.float32()),
    "flag": (st.none() | st.booleans(), pa.bool_()),
    "text": (st.none() | TEXTS, pa.string()),
    "time": (st.none() | st.datetimes(datetime(1900, 1, 1)), pa.timestamp("us")),
    "day": (st.none() | st.dates(date(1900, 1, 1)), pa.date32()),
}


@st.composite
def tables(draw):
    count = draw(st.integers(1, 12))
    return pa.table(
        {
            name: pa.array(draw(st.lists(values, min_size=count, max_size=count)), kind)
            for name, (values, kind) in COLUMNS.items()
        }
    )


def standard_library(data):
    """Read the rows as the documentation tells authors of trainers to."""
    with gzip.open(io.BytesIO(data), "rt", encoding="utf-8", newline="") as lines:
        header, *rows = csv.reader(lines)
    return {name: [row[place] or None for row in rows] for place, name in enumerate(header)}


def same(mine, theirs):
    if mine is None or theirs is None:
        return mine is theirs
    if isinstance(mine, float):
        return (math.isnan(mine) and math.isnan(theirs)) or (
            mine == theirs and math.copysign(1, mine) == math.copysign(1, theirs)
        )
    return mine == theirs


READ = {
    "int64": int,
    "double": float,
    "bool": lambda v: v == "1",
    "string": lambda v: v.removeprefix("\\"),
    "timestamp": datetime.fromisoformat,
    "date": date.fromisoformat,
}


@given(tables())
@examples(60)
def test_every_value_comes_back_exactly_with_the_standard_library_alone(rows):
    found, kinds = standard_library(csv_bytes(rows)), csv_columns(rows)

    assert list(found) == rows.column_names
    for name, values in found.items():
        again = [READ[kinds[name]](v) if v is not None else None for v in values]
        assert all(map(same, rows[name].to_pylist(), again)), name


@given(tables())
@examples(30)
def test_every_value_comes_back_exactly_with_arrow(rows):
    again = csv_table(csv_bytes(rows), csv_columns(rows))

    for name in rows.column_names:
        assert all(map(same, rows[name].to_pylist(), again[name].to_pylist())), name


def test_equal_rows_give_equal_bytes_however_they_are_chunked():
    whole = pa.table({"key": [1, 2, 3], "text": ["a", None, ""]})
    chunked = pa.concat_tables([whole.slice(0, 1), whole.slice(1)])

    assert csv_bytes(whole) == csv_bytes(chunked)
    assert csv_bytes(whole)[4:8] == b"\0\0\0\0"  # no time of writing in the gzip header


def test_the_file_looks_as_documented():
    rows = pa.table(
        {
            "key": [1, 2, 3],
            "text": pa.array(["plain", "", None]).dictionary_encode(),
            "amount": [1.0, float("nan"), None],
            "flag": [True, False, None],
            "time": pa.array([datetime(2026, 3, 4, 5, 6, 7, 8)] * 3, pa.timestamp("us", "Europe/Berlin")),
        }
    )

    lines = gzip.decompress(csv_bytes(rows)).decode().splitlines()

    assert lines[0] == '"key","text","amount","flag","time"'
    assert lines[1] == '1,"plain",1,1,"2026-03-04T05:06:07.000008"'
    assert lines[2].startswith('2,"\\",nan,0,')
    assert lines[3].startswith("3,,,,")
    assert csv_columns(rows)["text"] == "string"


def test_a_type_without_a_rule_is_refused_by_name():
    with pytest.raises(SpecError, match=r"column 'bag' is of type list.*data: parquet"):
        csv_bytes(pa.table({"bag": [[1]]}))


def test_times_finer_than_a_microsecond_are_refused_rather_than_cut():
    rows = pa.table({"key": [1], "time": pa.array([1], pa.timestamp("ns"))})

    with pytest.raises(SpecError, match="'time' holds times finer than a microsecond"):
        csv_bytes(rows)
