"""Rows are kept and every value is the one that was known at the row's time."""

import math
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from examples import examples
from feature_tables import at, feature_days, publish, rows_of, two_views
from windsock.column_types import arrow_schema
from windsock.errors import DataContractError
from windsock.featurestore.retrieval import History, join_point_in_time, point_in_time, utc_micros
from windsock.ledger import Ledger
from windsock.store import Store

US = timedelta(microseconds=1)
START = datetime(2026, 3, 1)
SCHEMA = pa.schema([("who", pa.int64()), ("at", pa.timestamp("us")), ("n", pa.int64()), ("x", pa.float64())])


def history(rows: list[tuple], ttl: timedelta | None, keyed: bool = True) -> History:
    columns = list(zip(*rows, strict=True)) if rows else [[], [], [], []]
    table = pa.table([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)
    keys = {"who": "customer"} if keyed else {}
    return History("v", table, "at", keys, {"n": "n", "x": "x"}, SCHEMA, ttl)


def reference(entity: list[tuple], rows: list[tuple], ttl: timedelta | None, keyed: bool) -> list[tuple]:
    result = []
    for who, time in entity:
        known = [
            r
            for r in rows
            if time is not None
            and r[1] <= time
            and (not keyed or (who is not None and r[0] == who))
            and (not keyed or r[0] is not None)
        ]
        best = max(known, key=lambda r: r[1], default=None)
        alive = best is not None and (ttl is None or time - best[1] <= ttl)
        result.append((best[2], best[3]) if alive else (None, None))
    return result


keys = st.one_of(st.none(), st.integers(0, 3))
times = st.builds(lambda n: START + n * US, st.integers(0, 12))
values = st.tuples(st.one_of(st.none(), st.integers(-5, 5)), st.one_of(st.none(), st.floats(-1, 1)))


@examples(60, suppress=[HealthCheck.too_slow])
@given(
    entity=st.lists(st.tuples(keys, st.one_of(st.none(), times)), max_size=80),
    rows=st.dictionaries(st.tuples(keys, times), values, max_size=25),
    ttl=st.one_of(st.none(), st.integers(1, 12).map(lambda n: n * US)),
    keyed=st.booleans(),
)
def test_every_row_is_kept_in_order_with_the_last_value_known_and_alive(entity, rows, ttl, keyed):
    if not keyed:
        rows = {(None, time): v for (_, time), v in rows.items()}
    flat = [(who, time, *v) for (who, time), v in rows.items()]
    frame = pa.table(
        {
            "line": pa.array(range(len(entity)), pa.int64()),
            "customer": pa.array([e[0] for e in entity], pa.int64()),
            "event_timestamp": pa.array([e[1] for e in entity], pa.timestamp("us")),
        }
    )

    result = join_point_in_time(frame, utc_micros(frame["event_timestamp"]), [history(flat, ttl, keyed)])

    assert result.select(frame.column_names).equals(frame)
    assert result.schema.field("n").type == pa.int64()
    found = list(zip(result["n"].to_pylist(), result["x"].to_pylist(), strict=True))
    assert found == reference(entity, flat, ttl, keyed)


def test_a_value_lives_exactly_as_long_as_its_ttl(tmp_path: Path):
    settings, spec = two_views(tmp_path, ttl_days=2)
    publish(settings, spec, date(2026, 3, 5), {"spending": [(1, at(5), 7, 1.5)], "everything": []})
    expiry = at(7)
    frame = pa.table(
        {
            "CUSTOMER_ID": pa.array([1, 1, 1, 1], pa.int64()),
            "event_timestamp": pa.array([at(5) - US, at(5), expiry, expiry + US], pa.timestamp("us")),
        }
    )

    result = point_in_time(Store.of(settings), spec, frame, feature_days(settings, spec))

    assert result["N_TX"].to_pylist() == [None, 7, 7, None]
    assert result["N_ALL"].to_pylist() == [None] * 4


def test_duplicates_unknown_expired_and_early_rows_stay_where_they_were(tmp_path: Path):
    settings, spec = two_views(tmp_path, ttl_days=5)
    publish(
        settings,
        spec,
        date(2026, 3, 2),
        {"spending": [(1, at(2), 7, 1.5)], "everything": [(at(2), 3, True, "w", at(1))]},
    )
    cases = [(1, at(3)), (99, at(3)), (1, at(20)), (1, at(1)), (1, at(3)), (None, at(3))]
    frame = pa.table(
        {
            "TRANSACTION_ID": pa.array([60, 50, 40, 30, 20, 10]),
            "CUSTOMER_ID": pa.array([c[0] for c in cases], pa.int64()),
            "event_timestamp": pa.array([c[1] for c in cases], pa.timestamp("us")),
            "note": ["a", "b", "c", "d", "e", "f"],
        }
    )

    result = point_in_time(Store.of(settings), spec, frame, feature_days(settings, spec))

    assert result.select(frame.column_names).equals(frame)
    assert result["N_TX"].to_pylist() == [7, None, None, None, 7, None]
    assert result["LAST_AMOUNT"].to_pylist() == [1.5, None, None, None, 1.5, None]
    assert result["N_ALL"].to_pylist() == [3, 3, None, None, 3, 3]
    assert result["BUSY"].to_pylist() == [True, True, None, None, True, True]
    assert result["WORD"].to_pylist() == ["w", "w", None, None, "w", "w"]
    assert result["SEEN"].to_pylist() == [at(1), at(1), None, None, at(1), at(1)]


def test_without_any_features_all_are_null_and_typed(tmp_path: Path):
    settings, spec = two_views(tmp_path)
    frame = pa.table({"CUSTOMER_ID": [1, 2], "event_timestamp": pa.array([at(3), at(4)], pa.timestamp("us"))})
    for rows in (frame, frame.slice(0, 0)):
        result = point_in_time(Store.of(settings), spec, rows, {})
        assert result.num_rows == rows.num_rows
        assert result["N_TX"].null_count == rows.num_rows
        assert [str(result.schema.field(n).type) for n in ("N_TX", "LAST_AMOUNT", "BUSY", "WORD")] == [
            "int64",
            "double",
            "bool",
            "string",
        ]


def test_only_days_that_can_matter_are_read(tmp_path: Path):
    settings, spec = two_views(tmp_path, ttl_days=2)
    for day in range(2, 12):
        publish(settings, spec, date(2026, 3, day), {"spending": [(1, at(day), day, 0.5)]})
    records, needed = feature_days(settings, spec), {date(2026, 3, d) for d in (5, 6, 7)}
    store = Store.of(settings)
    for table, days in records.items():
        for file in (f for day, r in days.items() if day not in needed for f in r.outputs[table].files):
            Path(store.path(file)).unlink()
    frame = pa.table({"CUSTOMER_ID": [1, 1], "event_timestamp": pa.array([at(7, 11), at(7, 13)], pa.timestamp("us"))})

    assert point_in_time(store, spec, frame, records)["N_TX"].to_pylist() == [6, 7]


def test_an_edited_view_is_another_table_that_takes_nothing_from_the_one_before(tmp_path: Path):
    settings, spec = two_views(tmp_path)
    publish(settings, spec, date(2026, 3, 2), {"spending": [(1, at(2), 7, 1.5)], "everything": []})
    before = feature_days(settings, spec)
    sql = spec.folder / "spending.sql"
    sql.write_text(sql.read_text().replace("TX_AMOUNT as LAST", "TX_AMOUNT * 2 as TWICE, TX_AMOUNT as LAST"))
    publish(settings, spec, date(2026, 3, 3), {"spending": [(2, at(3), 8, 3.0, 1.5)], "everything": []})
    frame = pa.table({"CUSTOMER_ID": [1, 2], "event_timestamp": pa.array([at(4), at(4)], pa.timestamp("us"))})

    result = point_in_time(Store.of(settings), spec, frame, feature_days(settings, spec))

    assert result["TWICE"].to_pylist() == [None, 3.0]
    assert result["N_TX"].to_pylist() == [None, 8]
    (old,) = before.keys() - feature_days(settings, spec).keys()
    assert Ledger.of(settings, spec.name, old).all() == before[old]


@pytest.mark.parametrize(
    "column",
    [
        pytest.param(pa.array([at(3)], pa.timestamp("us", tz="UTC")), id="utc"),
        pytest.param(pa.array([at(3) - timedelta(hours=0)], pa.timestamp("us", tz="Europe/Berlin")), id="zone"),
        pytest.param(pa.array([at(3)], pa.timestamp("ns")), id="nanoseconds"),
        pytest.param(pa.array([at(3)], pa.timestamp("s")), id="seconds"),
    ],
)
def test_times_of_any_unit_and_zone_mean_the_same_instant(column):
    assert utc_micros(pa.chunked_array([column])).to_pylist() == [at(3)]


def test_parts_of_a_microsecond_never_let_a_feature_be_known_too_early():
    half = pa.chunked_array([pa.array([1_500, -1_500], pa.timestamp("ns"))])
    assert utc_micros(half).cast(pa.int64()).to_pylist() == [1, -2]


def test_a_missing_entity_column_is_named(tmp_path: Path):
    settings, spec = two_views(tmp_path)
    frame = pa.table({"CUSTOMER": [1], "event_timestamp": pa.array([at(3)], pa.timestamp("us"))})
    with pytest.raises(DataContractError, match=r"spending.*no column CUSTOMER_ID.*CUSTOMER, event_timestamp"):
        point_in_time(Store.of(settings), spec, frame, {})
    with pytest.raises(DataContractError, match="no column event_timestamp"):
        point_in_time(Store.of(settings), spec, frame.drop_columns(["event_timestamp"]), {})


def test_equals_a_plain_asof_join_on_many_rows():
    rng = np.random.default_rng(3)
    n, m = 60_000, 50_000
    pairs = np.unique(np.stack([rng.integers(0, 400, n), rng.integers(0, 3_000_000, n)]), axis=1)
    features = pa.table(
        {
            "who": pairs[0],
            "at": pa.array(pairs[1] * 1000, pa.timestamp("us")),
            "n": rng.integers(0, 9, pairs.shape[1]),
            "x": rng.random(pairs.shape[1]),
        }
    )
    frame = pa.table(
        {
            "line": np.arange(m),
            "customer": rng.integers(0, 420, m),
            "event_timestamp": pa.array(rng.integers(0, 3_000_000, m) * 1000, pa.timestamp("us", tz="UTC")),
        }
    )
    view = History("v", features, "at", {"who": "customer"}, {"n": "n", "x": "x"}, SCHEMA, None)

    result = join_point_in_time(frame, utc_micros(frame["event_timestamp"]), [view])

    connection = duckdb.connect()
    connection.execute("set timezone = 'UTC'")
    connection.register("e", frame.set_column(2, "event_timestamp", utc_micros(frame["event_timestamp"])))
    connection.register("f", features)
    plain = connection.sql(
        "select e.line, f.n, f.x from e asof left join f on e.customer = f.who and e.event_timestamp >= f.at order by 1"
    ).to_arrow_table()
    assert result["n"].equals(plain["n"])
    assert result["x"].equals(plain["x"])
    assert result["n"].null_count > 0


def test_nan_stays_nan_and_null_stays_null(tmp_path: Path):
    settings, spec = two_views(tmp_path)
    rows = [(1, at(2), 7, math.nan), (2, at(2), None, None)]
    publish(settings, spec, date(2026, 3, 2), {"spending": rows, "everything": []})
    frame = pa.table({"CUSTOMER_ID": [1, 2], "event_timestamp": pa.array([at(3), at(3)], pa.timestamp("us"))})

    result = point_in_time(Store.of(settings), spec, frame, feature_days(settings, spec))

    assert math.isnan(result["LAST_AMOUNT"][0].as_py())
    assert result["LAST_AMOUNT"][1].as_py() is None
    assert result["N_TX"].to_pylist() == [7, None]


def test_a_table_has_the_columns_and_types_of_its_sql(tmp_path: Path):
    _, spec = two_views(tmp_path)
    assert rows_of(spec, "everything", []).schema == arrow_schema(
        [
            ("event_timestamp", "TIMESTAMP"),
            ("N_ALL", "BIGINT"),
            ("BUSY", "BOOLEAN"),
            ("WORD", "VARCHAR"),
            ("SEEN", "TIMESTAMP"),
        ]
    )
