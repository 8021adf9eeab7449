from datetime import datetime

import pyarrow as pa
import pytest

from windsock.ingest.casts import ColumnTypeError, cast_column, is_text

MOMENT = datetime(2018, 6, 15, 0, 2, 14)


def times_of(column: pa.Array) -> pa.Array:
    times, _ = cast_column(pa.chunked_array([column]), "timestamp", from_text=is_text(column.type))
    return times


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2018-06-15 00:02:14", MOMENT),
        ("2018-06-15T00:02:14Z", MOMENT),
        ("2018-06-15T02:02:14+02:00", MOMENT),
        ("2018-06-15", datetime(2018, 6, 15)),
        (" 2018-06-15 00:02:14.1234567 ", MOMENT.replace(microsecond=123456)),
        ("2018-06-15 00:02", MOMENT.replace(second=0)),
        ("2018-06-15 00:02:14-0130", MOMENT.replace(hour=1, minute=32)),
        ("9999-12-31", datetime(9999, 12, 31)),
        ("0001-01-01 00:00:00", datetime(1, 1, 1)),
        ("9999-12-31T23:59:59-01:00", None),
        ("0001-01-01T00:00:00+01:00", None),
        ("2018-06-15 24:00", None),
        ("2018-06-15 00:02:14 in Rome", None),
        ("15/06/2018", None),
        ("1529020934", None),
        ("20180615", None),
        ("2018-02-30", None),
        ("infinity", None),
        ("", None),
        (None, None),
    ],
)
def test_a_text_time_is_read_as_utc_or_not_at_all(text: str | None, expected: datetime | None) -> None:
    # A second value that is fine, and one that is not, must not change how the first is read.
    for others in ([], ["2018-06-15 00:02:14"], ["2018-06-15T00:02:14Z"], ["soon"]):
        assert times_of(pa.array([text, *others], pa.string()))[0].as_py() == expected


def test_typed_times_keep_their_instant() -> None:
    zoned = pa.array([MOMENT], pa.timestamp("ms", "UTC")).cast(pa.timestamp("ns", "Asia/Tokyo"))
    for column in (zoned, pa.array([MOMENT]), pa.array(["2018-06-15 00:02:14"]).dictionary_encode()):
        times = times_of(column)
        assert times.to_pylist() == [MOMENT]
        assert times.type == pa.timestamp("us")


def test_a_number_is_no_time() -> None:
    with pytest.raises(ColumnTypeError, match="unit"):
        times_of(pa.array([1_529_020_934]))
