"""Delivered columns brought into their declared form, or refused in words."""

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivered import PAYMENT, transactions, with_column
from examples import examples
from windsock.ingest.conform import Quarantine, RowFault, conform

COLUMNS = {
    **PAYMENT,
    "TX_FRAUD": "int64",
}
GOOD = transactions(6)
FAR = pa.array([1_772_323_200_000_000, 0])  # microseconds, taken for milliseconds
LATIN = pa.Array.from_buffers(pa.string(), 2, pa.array([b"M\xfcller", b"Mueller"]).buffers())
ID = UUID(int=2**127 + 5)


def _conform(table, columns=COLUMNS, **options):
    return conform(table, columns, key="TRANSACTION_ID", **options)


def _one(kind, array, text=False):
    """Conform one column of a declared type next to a key, in a typed delivery."""
    keys = pa.array([str(n) if text else n for n in range(len(array))])
    return _conform(pa.table({"TRANSACTION_ID": keys, "x": array}), {"TRANSACTION_ID": "int64", "x": kind})


@pytest.mark.parametrize(
    ("kind", "array", "expected"),
    [
        pytest.param("int64", pa.array([1, None], pa.int32()), [1, None], id="narrow-integers"),
        pytest.param("int64", pa.array([1.0, float("nan"), None]), [1, None, None], id="floats-of-a-null-key"),
        pytest.param("int64", pa.array([True, False]), [1, 0], id="a-label-as-bool"),
        pytest.param("int64", pa.array([Decimal("7.00")]), [7], id="whole-decimals"),
        pytest.param("int64", pa.array([2**63 - 1], pa.uint64()), [2**63 - 1], id="unsigned"),
        pytest.param("int64", pa.array([Decimal(10**18), Decimal(2**53 + 1)]), [10**18, 2**53 + 1], id="decimal-ids"),
        pytest.param("int64", pa.array([7.0, None], pa.float16()), [7, None], id="narrow-floats"),
        pytest.param("string", pa.array(["a", ""]).cast(pa.string_view()), ["a", None], id="text-views"),
        pytest.param("string", pa.array([b"a", b"", None]), ["a", None, None], id="bytes-as-text"),
        pytest.param("string", pa.array([b"ab"], pa.binary(2)), ["ab"], id="bytes-of-fixed-size"),
        pytest.param("string", pa.array([ID.bytes, None], pa.uuid()), [str(ID), None], id="uuid"),
        pytest.param("string", pa.array(['{"a":1}', None], pa.json_()), ['{"a":1}', None], id="json-text"),
        pytest.param(
            "timestamp", pa.array([datetime.min, datetime.max]), [datetime.min, datetime.max], id="far-in-the-calendar"
        ),
        pytest.param("double", pa.array([1, 2], pa.int16()), [1.0, 2.0], id="integers-as-doubles"),
        pytest.param("double", pa.array([Decimal("1.50")]), [1.5], id="decimals-as-doubles"),
        pytest.param("double", pa.array([1.5, float("nan")], pa.float32()), [1.5, None], id="nan-is-null"),
        pytest.param("string", pa.array(["a", ""], pa.large_string()), ["a", None], id="large-text"),
        pytest.param("string", pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"], id="dictionary"),
        pytest.param("bool", pa.array([1, 0, None]), [True, False, None], id="zero-and-one-as-bool"),
        pytest.param("date", pa.array([datetime(2026, 3, 1)]), [date(2026, 3, 1)], id="midnight-as-date"),
        pytest.param("double", pa.nulls(2), [None, None], id="a-column-without-type"),
        pytest.param("int64", pa.array([None, None], pa.string()), [None, None], id="all-null-text"),
    ],
)
def test_takes_what_loses_no_meaning(kind, array, expected):
    found = _one(kind, array)

    assert found.problems == ()
    assert found.faults == ()
    assert found.rows["x"].to_pylist() == expected


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_takes_times_of_any_unit(unit):
    moment = datetime(2026, 3, 1, 10, 30)

    found = _one("timestamp", pa.array([moment], pa.timestamp(unit)))

    assert found.rows["x"].to_pylist() == [moment]
    assert found.rows.schema.field("x").type == pa.timestamp("us")


def test_reads_a_time_with_a_zone_as_its_instant_in_utc():
    berlin = datetime(2026, 3, 1, 0, 30, tzinfo=timezone(timedelta(hours=1)))

    found = _one("timestamp", pa.array([berlin], pa.timestamp("us", "Europe/Berlin")))

    assert found.rows["x"].to_pylist() == [datetime(2026, 2, 28, 23, 30)]


@pytest.mark.parametrize(
    ("kind", "array", "example"),
    [
        pytest.param("double", pa.array(["12,50", "3"]), "'12,50'", id="text-as-number"),
        pytest.param("timestamp", pa.array(["2026-03-01 10:00:00"]), "'2026-03-01 10:00:00'", id="text-as-time"),
        pytest.param("timestamp", pa.array([1_772_000_000]), "1772000000", id="number-as-time"),
        pytest.param("string", pa.array([7]), "7", id="number-as-text"),
        pytest.param("double", pa.array([[1.0]]), "[1.0]", id="list"),
        pytest.param("double", pa.array([{"eur": 1.0}]), "{'eur': 1.0}", id="struct"),
        pytest.param("double", pa.array([True]), "True", id="bool-as-amount"),
        pytest.param("string", pa.array([["x"]]), "['x']", id="list-as-text"),
    ],
)
def test_refuses_a_column_of_another_kind_and_says_how_many_and_which(kind, array, example):
    found = _one(kind, array)

    assert found.rows is None
    (problem,) = found.problems
    assert problem.startswith(f"x: declared {kind}, delivered as ")
    assert example in problem
    assert f"{len(array)} of {len(array)} values" in problem


@pytest.mark.parametrize(
    ("kind", "array", "broken"),
    [
        pytest.param("int64", pa.array([1.0, 2.5, float("inf")]), [1, 2], id="broken-whole-numbers"),
        pytest.param("int64", pa.array([2.0**60, 1.0]), [0], id="float-too-large-to-be-a-key"),
        pytest.param("int64", pa.array([2.0**53, 2.0**53 - 1]), [0], id="float-that-stands-for-its-neighbour-too"),
        pytest.param("int64", pa.array([2.0**24, 5.0], pa.float32()), [0], id="half-as-wide-a-float-too"),
        pytest.param("int64", pa.array([Decimal("1.50"), Decimal("2.00")]), [0], id="decimal-with-a-fraction"),
        pytest.param("int64", pa.array([Decimal(2**63), Decimal(-(2**63))]), [0], id="decimal-beyond-64-bits"),
        pytest.param("string", pa.array([b"M\xfcller", b"Mueller"]), [0], id="bytes-that-are-no-utf-8"),
        pytest.param("string", LATIN, [0], id="text-that-is-no-utf-8"),
        pytest.param("timestamp", FAR.cast(pa.timestamp("ms")), [0], id="time-in-year-58132"),
        pytest.param("timestamp", FAR.cast(pa.timestamp("s")), [0], id="time-beyond-what-microseconds-hold"),
        pytest.param("timestamp", pa.array([2**31 - 1, 0], pa.int32()).cast(pa.date32()), [0], id="far-date-as-time"),
        pytest.param("date", pa.array([2**31 - 1, 0], pa.int32()).cast(pa.date32()), [0], id="far-date"),
        pytest.param("int64", pa.array([2**64 - 1, 1], pa.uint64()), [0], id="unsigned-too-large"),
        pytest.param("date", pa.array([datetime(2026, 3, 1, 4)]), [0], id="time-of-day-in-a-date"),
        pytest.param("bool", pa.array([2, 1]), [0], id="neither-true-nor-false"),
    ],
)
def test_single_values_that_cannot_be_read_are_faults_of_their_rows(kind, array, broken):
    found = _one(kind, array)

    (fault,) = found.faults
    assert fault.rows.tolist() == broken
    assert f"{len(broken)} of {len(array)} values" in fault.sentence
    assert [found.rows["x"][i].as_py() for i in broken] == [None] * len(broken)


@pytest.mark.parametrize(
    ("kind", "texts", "expected", "broken"),
    [
        (
            "int64",
            ["1", " 2 ", "3.0", "+4", "", "NaN", "4.5", "x", "1e3"],
            [1, 2, 3, 4, None, None, None, None, None],
            3,
        ),
        (
            "double",
            ["1.5", "-2e3", ".5", "7.", "null", "1,5", "EUR 3", "inf"],
            [1.5, -2000.0, 0.5, 7.0, *[None] * 4],
            3,
        ),
        (
            "timestamp",
            ["2026-03-01 10:00:00", "2026-03-01T10:00:00.5+01:00", "2026-03-01", "01.03.2026", "20260301", ""],
            [datetime(2026, 3, 1, 10), datetime(2026, 3, 1, 9, 0, 0, 500_000), datetime(2026, 3, 1), None, None, None],
            2,
        ),
        ("date", ["2026-03-01", "2026-13-01", None], [date(2026, 3, 1), None, None], 1),
        ("bool", ["true", "0", "YES", "maybe"], [True, False, True, None], 1),
        ("int64", ["True", "false", ""], [1, 0, None], 0),
        ("int64", ["True", "7"], [None, 7], 1),
        ("int64", [str(2**63 - 1), str(-(2**63)), str(2**63), "0" * 30 + "7"], [2**63 - 1, -(2**63), None, 7], 1),
        ("int64", ["9007199254740991.0", "9007199254740992.0", "9007199254740993.00"], [2**53 - 1, None, 2**53 + 1], 1),
        ("string", ["007", "", " a "], ["007", None, " a "], 0),
    ],
)
def test_reads_text_files_strictly(kind, texts, expected, broken):
    found = _one(kind, pa.array(texts, pa.string()), text=True)

    assert found.problems == ()
    assert found.rows["x"].to_pylist() == expected
    assert sum(len(f.rows) for f in found.faults) == broken


def test_says_which_value_of_which_row_cannot_be_read():
    table = pa.table({"TRANSACTION_ID": ["11", "12"], "x": ["1.5", "1,5"]})

    (fault,) = _conform(table, {"TRANSACTION_ID": "int64", "x": "double"}).faults

    assert fault.rule == "x is double"
    assert fault.sentence == "x: 1 of 2 values break the rule 'is double', e.g. '1,5' (row 1, TRANSACTION_ID 12)."


@pytest.mark.parametrize("delivered_as", ["tx_amount", " TX_AMOUNT", "TX_AMOUNTS"])
def test_a_missing_column_is_named_with_the_nearest_delivered_one(delivered_as):
    renamed = GOOD.rename_columns([delivered_as if n == "TX_AMOUNT" else n for n in GOOD.column_names])

    found = _conform(renamed)

    assert found.rows is None
    assert "TX_AMOUNT: the declared column (double) is missing" in found.problems[0]
    assert f"Did you mean {delivered_as!r}?" in found.problems[0]


def test_names_every_fault_at_once():
    broken = GOOD.drop_columns(["CUSTOMER_ID"])
    broken = with_column(broken, "TX_AMOUNT", ["x"] * 6)

    assert len(_conform(broken.drop_columns(["TERMINAL_ID"])).problems) == 2
    assert "TX_FRAUD" in _conform(GOOD.drop_columns(["TX_FRAUD"])).problems[0]


def test_a_column_that_stands_twice_is_refused():
    twice = GOOD.append_column("TX_AMOUNT", GOOD["TX_AMOUNT"])

    assert "stands in the delivery 2 times" in _conform(twice).problems[0]


def test_unexpected_columns_are_dropped_and_named_and_expected_ones_dropped_without_a_word():
    more = GOOD.append_column("REFUND", GOOD["TX_AMOUNT"]).append_column("NOISE", GOOD["TX_AMOUNT"])

    found = _conform(more, ignore=["NOISE"])

    assert found.rows.column_names == list(COLUMNS)
    (warning,) = found.warnings
    assert "REFUND" in warning
    assert "NOISE" not in warning


def test_an_empty_delivery_needs_its_columns_but_no_types():
    empty = pa.table({name: pa.array([], pa.string()) for name in COLUMNS})

    assert _conform(empty).rows.num_rows == 0
    assert _conform(empty.drop_columns(["TX_AMOUNT"])).rows is None


@examples(150)
@given(values=st.lists(st.one_of(st.none(), st.integers(-(10**25), 10**25)), min_size=1, max_size=20))
def test_a_whole_number_is_itself_or_a_fault_in_whatever_form_it_comes(values):
    held = [v is None or -(2**63) <= v < 2**63 for v in values]
    decimals = pa.array([None if v is None else Decimal(v) for v in values], pa.decimal128(38, 0))
    texts = pa.array([None if v is None else str(v) for v in values], pa.string())

    for array in (decimals, decimals.cast(pa.decimal256(70, 12)), texts):
        found = _one("int64", array, text=array is texts)

        assert found.rows["x"].to_pylist() == [v if fits else None for v, fits in zip(values, held, strict=True)]
        assert [f.rows.tolist() for f in found.faults] == [[n for n, fits in enumerate(held) if not fits]][
            : not all(held)
        ]


@pytest.mark.parametrize("column", [LATIN, FAR.cast(pa.timestamp("ms")), FAR.cast(pa.timestamp("s", "Mars/Phobos"))])
def test_what_python_cannot_hold_is_dropped_with_its_column_and_set_aside_with_its_row(column):
    delivered = pa.table({"TRANSACTION_ID": [1, 2], "more": column})
    found = _conform(delivered, {"TRANSACTION_ID": "int64"})
    aside = Quarantine(2)
    aside.add(RowFault("x", "x", np.array([0])))

    assert found.rows.num_rows == 2
    assert "more = " in found.warnings[0]
    assert "more" in json.loads(aside.table(delivered, "TRANSACTION_ID")["row"][0].as_py())


def test_words_for_no_value_are_said_and_kept_as_text():
    found = _one("string", pa.array(["basic", r"\N", "NULL", "nan", "NA", None]))

    assert found.rows["x"].to_pylist() == ["basic", r"\N", "NULL", "nan", "NA", None]
    assert found.warnings[0].startswith(r"x: 3 of 6 values are words for no value, e.g. '\\N'")


def test_of_many_columns_ten_are_named_and_a_nameless_one_can_be_seen():
    more = pa.table({**{name: GOOD[name] for name in COLUMNS}, "": GOOD["TX_AMOUNT"]})
    for n in range(20):
        more = more.append_column(f"more_{n}", GOOD["TX_AMOUNT"])

    (warning,) = _conform(more).warnings
    assert warning.startswith("'', more_0, more_1")
    assert "more_8 and 11 more: 21 columns" in warning
    assert _conform(more, ignore=["", *(f"more_{n}" for n in range(20))]).warnings == ()


def test_a_column_in_many_chunks_is_read_as_one():
    chunked = pa.concat_tables([GOOD, GOOD.slice(0, 2)])

    assert _conform(chunked).rows.num_rows == 8


@examples(40)
@given(order=st.permutations(list(COLUMNS)), rows=st.permutations(list(range(6))))
def test_column_order_never_matters(order, rows):
    shuffled = GOOD.select(order).take(pa.array(rows))

    found = _conform(shuffled).rows

    assert found.equals(_conform(GOOD).rows.take(pa.array(rows)))


@examples(60)
@given(
    names=st.permutations([*COLUMNS, *(f"{name} of old" for name in COLUMNS)]),
    lacking=st.sets(st.sampled_from([*COLUMNS])),
)
def test_names_in_the_delivery_never_matter_and_no_row_is_lost_for_a_column_that_may_lack(names, lacking):
    sources = dict(zip(COLUMNS, names, strict=False))
    lacking = lacking - {"TRANSACTION_ID"}
    delivered = GOOD.drop_columns(list(lacking)).rename_columns(
        [sources[n] for n in GOOD.column_names if n not in lacking]
    )

    found = _conform(delivered, sources=sources, may_lack=lacking)

    assert found.rows.equals(_conform(GOOD).rows.drop_columns(list(lacking)))
    assert found.warnings == ()
    problems = _conform(delivered, sources=sources).problems
    assert sorted(p.split(":")[0] for p in problems) == sorted(lacking)


@examples(60)
@given(values=st.lists(st.one_of(st.none(), st.integers(-(2**53) + 1, 2**53 - 1)), min_size=1, max_size=20))
def test_whole_numbers_survive_the_way_through_floats(values):
    floats = pa.array([None if v is None else float(v) for v in values], pa.float64())

    found = _one("int64", pc.if_else(pc.is_null(floats), pa.scalar(float("nan")), floats))

    assert found.faults == ()
    assert found.rows["x"].to_pylist() == values


def test_an_instant_keeps_its_utc_value_whatever_zone_it_is_written_in():
    moment = datetime(2026, 7, 1, 12, tzinfo=UTC)
    for zone in ("UTC", "America/New_York", "Asia/Kolkata"):
        found = _one("timestamp", pa.array([moment], pa.timestamp("ms", zone)))
        assert found.rows["x"].to_pylist() == [datetime(2026, 7, 1, 12)]


@pytest.mark.parametrize(
    ("values", "delivered"),
    [
        pytest.param({"-1": 0, "1": 1}, pa.array([-1, 1, None], pa.int8()), id="minus one and one"),
        pytest.param({"-1": 0, "1": 1}, pa.array([-1.0, 1.0, float("nan")]), id="as floats"),
        pytest.param({"-1": 0, "1": 1}, pa.array(["-1", " 1", ""]), id="in a CSV"),
        pytest.param({"N": 0, "Y": 1}, pa.array(["N", "Y", None]), id="Y and N"),
        pytest.param({"N": 0, "Y": 1}, pa.array([b"N", b"Y", None]), id="bytes"),
        pytest.param({"ok": 0, "fraud": 1}, pa.array(["ok", "fraud", None]).dictionary_encode(), id="categories"),
        pytest.param({"true": 0, "false": 1}, pa.array([True, False, None]), id="truth values, turned round"),
        pytest.param({"none": 0, "some": 1}, pa.array(["none", "some", "nan"]), id="a word for nothing that is one"),
    ],
)
def test_labels_may_be_told_by_words_and_other_numbers(values, delivered):
    table = pa.table({"id": [1, 2, 3], "label": delivered})

    found = conform(table, {"id": "int64", "label": "int64"}, values={"label": values}, key="id")

    assert found.problems == found.faults == ()
    assert found.rows["label"].to_pylist() == [0, 1, None]


def test_a_label_that_no_word_names_is_set_aside_with_the_words():
    table = pa.table({"id": [1, 2, 3], "label": ["ok", "Fraud", "fraud"]})

    found = conform(table, {"id": "int64", "label": "int64"}, values={"label": {"ok": 0, "fraud": 1}}, key="id")

    (fault,) = found.faults
    assert fault.rule == "label is one of 'ok', 'fraud'"
    assert fault.rows.tolist() == [1]
    assert "'Fraud' (row 1, id 2)" in fault.sentence
