"""Rows of earlier days in a day's delivery: they join their own day, for readers that may know them."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from churn_model import COLUMNS, DAY, Churn, delivery
from examples import examples
from kill import DieAt, Steps, snapshot
from windsock import tables
from windsock.days import last_instant
from windsock.errors import DayRejected
from windsock.features.frame import event_frame
from windsock.features.view_sql import compute_view
from windsock.ingest.labels import inline_labels
from windsock.ingest.late import is_late, late_tables
from windsock.ingest.records import NO_SOURCE, write_tables
from windsock.ingest.step import with_known_at
from windsock.ledger import DayRecord, Ledger
from windsock.steps import StepContext

LATE_DAYS = 2
DAYS = [DAY + timedelta(days=n) for n in range(4)]
EVENTS = {"time": "seen_at", "key": "event_id", "columns": dict(COLUMNS), "late_days": LATE_DAYS}
HISTORY = (
    "select customer_id, seen_at as event_timestamp, count(*) over w as n, sum(minutes) over w as spent, "
    "sum(churned) over (partition by customer_id order by epoch_us(seen_at) range between unbounded preceding and "
    "1 preceding) as left_before from history window w as (partition by customer_id order by epoch_us(seen_at) "
    "range between unbounded preceding and current row)"
)


def _churn(home: Path, **fields) -> Churn:
    home.mkdir(exist_ok=True)
    view = {"name": "usage", "entity": "customer", "sql": "usage.sql", "lookback_days": 5}
    row = {"row": {"minutes": "minutes"}, "views": [view]}
    return Churn.make(home, HISTORY, **{"events": EVENTS, "features": row, "label__delay_days": 1, **fields})


def _publish(churn: Churn, day: date, rows: pa.Table) -> DayRecord:
    """Publish the valid rows of a day's delivery, as the ingest step does."""
    spec = churn.spec
    rows = rows.sort_by([("seen_at", "ascending"), ("event_id", "ascending")])
    came_late = is_late(spec, day, rows)
    own, late = rows.filter(pa.array(~came_late)), rows.filter(pa.array(came_late))
    wanted = {"events": with_known_at(spec, day, own), "labels": inline_labels(spec, own)}
    wanted |= late_tables(spec, day, late, with_known_at(spec, day, late))
    outputs = write_tables(StepContext(churn.settings, spec, str(day)), wanted, None)
    record = DayRecord(str(day), "published", outputs, detail={"source": dict(NO_SOURCE)})
    return Ledger.of(churn.settings, "churn", "ingest").publish(record)


def _read(churn: Churn, days: list[date]) -> tuple[pa.Table, pa.Table]:
    records = [churn.record(day=day) for day in days]
    events = tables.read_events(churn.store, churn.spec, records, late_in=records)
    return events, tables.read_labels(churn.store, churn.spec, records)


ROWS = 8
"""Events of a day in the property test, one of them without a label."""


def _day(day: date) -> pa.Table:
    rows = delivery(day, rows=ROWS)
    unlabelled = pc.if_else(pc.equal(rows["event_id"], rows["event_id"][3]), None, rows["churned"])
    shared = pa.array([n % 3 for n in range(ROWS)], pa.int64())
    return rows.set_column(4, "churned", unlabelled).set_column(2, "customer_id", shared)


@pytest.fixture(scope="module")
def in_time(tmp_path_factory: pytest.TempPathFactory) -> Churn:
    churn = _churn(tmp_path_factory.mktemp("in_time"))
    for day in DAYS:
        _publish(churn, day, _day(day))
    return churn


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Churn:
    return _churn(tmp_path_factory.mktemp("split"))


_delays = st.sets(st.integers(0, LATE_DAYS), min_size=1)  # an export may hold a row more than once
_splits = st.lists(_delays, min_size=ROWS * len(DAYS), max_size=ROWS * len(DAYS))


@given(delays=_splits, order=st.permutations(DAYS), dice=st.randoms(use_true_random=False))
@examples(45)
def test_any_split_of_the_same_rows_over_deliveries_in_any_order_ends_in_equal_tables(
    in_time: Churn, split: Churn, delays, order, dice
):
    rows = pa.concat_tables([_day(day) for day in DAYS])
    of_day = np.repeat(np.arange(len(DAYS)), ROWS)
    last = len(DAYS) - 1
    delivered_on = [{min(int(d) + n, last) for n in some} for d, some in zip(of_day, delays, strict=True)]
    for day in order:
        n = DAYS.index(day)
        places = [place for place, days in enumerate(delivered_on) if n in days]
        dice.shuffle(places)
        _publish(split, day, rows.take(pa.array(places, pa.int64())))

    (events, labels), (wanted, labelled) = _read(split, DAYS), _read(in_time, DAYS)

    assert events.drop_columns("known_at") == wanted.drop_columns("known_at")
    assert labels.drop_columns("known_at") == labelled.drop_columns("known_at")
    first = {key: DAYS[min(on)] for key, on in zip(rows["event_id"].to_pylist(), delivered_on, strict=True)}
    assert events["known_at"].to_pylist() == [last_instant(first[key]) for key in events["event_id"].to_pylist()]
    after_delay = labelled["known_at"].to_pylist()
    assert labels["known_at"].to_pylist() == [
        max(known, last_instant(first[key])) if first[key] > known.date() - timedelta(days=1) else known
        for key, known in zip(labels["event_id"].to_pylist(), after_delay, strict=True)
    ]
    spec, view, end = split.spec, split.view, DAYS[-1]
    assert compute_view(spec, view, events, labels, end) == compute_view(spec, view, wanted, labelled, end)
    for n, day in enumerate(DAYS):  # and whoever computed an earlier day saw what had been delivered by then
        known, _ = _read(split, DAYS[: n + 1])
        assert set(known["event_id"].to_pylist()) == {
            key for key, on in zip(rows["event_id"].to_pylist(), delivered_on, strict=True) if min(on) <= n
        }
        assert all(time <= last_instant(day) for time in known["known_at"].to_pylist())


def _deliveries(days: list[date] = DAYS[:3]) -> Mapping[date, pa.Table]:
    """Return deliveries, where some rows of the first day come with each of the next."""
    first, second, third = (delivery(day) for day in days)
    return {
        days[0]: first.slice(0, 190),
        days[1]: pa.concat_tables([first.slice(190, 6), second]),
        days[2]: pa.concat_tables([third, first.slice(196), first.slice(0, 1)]),
    }


def _deliver(churn: Churn, day: date, rows: pa.Table) -> dict:
    """Deliver a day and return what the ingest step says."""
    pq.write_table(rows, churn.home / "inbox" / f"{day}.parquet")
    return churn.step("ingest", day)


def _run(churn: Churn, deliveries: Mapping[date, pa.Table], *, features: bool = True) -> dict[date, dict]:
    results = {}
    for day, rows in deliveries.items():
        results[day] = _deliver(churn, day, rows)
        if features:
            churn.step("features", day)
    return results


def test_late_rows_count_from_their_delivery_on_and_change_nothing_of_the_days_before_it(tmp_path: Path):
    churn, whole = _churn(tmp_path / "late"), _churn(tmp_path / "whole")
    deliveries = _deliveries()
    first, second, third = deliveries
    results = _run(churn, {first: deliveries[first], second: deliveries[second]})
    scored = {day: churn.record(churn.table.name, day) for day in (first, second)}

    results |= _run(churn, {third: deliveries[third]})

    assert [result["late"] for result in results.values()] == [{}, {str(first): 6}, {str(first): 5}]
    assert [result["rows"] for result in results.values()] == [190, 200, 200]
    assert results[third]["refresh"] == []
    assert {day: churn.record(churn.table.name, day) for day in scored} == scored
    _run(whole, {day: delivery(day) for day in deliveries})
    now, wanted = (each.record(each.table.name, third).outputs[each.table.name].hash for each in (churn, whole))
    assert now == wanted, "the features of the third day see all rows of the first"
    early = [each.record(each.table.name, second).outputs[each.table.name].hash for each in (churn, whole)]
    assert early[0] != early[1]
    # Scored and trained on are the rows that each day had when it was scored.
    records = [churn.record(day=day) for day in deliveries]
    assert event_frame(churn.store, churn.spec, records).num_rows == 590
    assert event_frame(churn.store, churn.spec, records[:1]).num_rows == 190


def test_days_ingested_in_any_order_have_the_same_records_and_features(tmp_path: Path):
    churn, other = _churn(tmp_path / "a"), _churn(tmp_path / "b")
    deliveries = _deliveries()
    _run(churn, deliveries)

    _run(other, dict(reversed(deliveries.items())), features=False)
    for day in deliveries:
        other.step("features", day)

    for day in deliveries:
        assert churn.record(day=day).data_hash == other.record(day=day).data_hash
        one, two = (each.record(each.table.name, day) for each in (churn, other))
        assert (one.content_hash, dict(one.inputs)) == (two.content_hash, dict(two.inputs))


def test_another_delivery_of_the_late_rows_makes_stale_who_read_them_and_so_does_taking_it_out(tmp_path: Path):
    churn = _churn(tmp_path)
    deliveries = _deliveries()
    _run(churn, deliveries)
    first, second, third = deliveries

    corrected = pc.add(deliveries[second]["minutes"], 1.0)
    mended = deliveries[second].set_column(3, "minutes", corrected)
    assert _deliver(churn, second, mended)["refresh"] == [str(third)]
    before = churn.record(churn.table.name, first)
    for day in (second, third):
        assert churn.step("features", day)["changed"]
    assert churn.step("features", first)["changed"] is False
    assert churn.record(churn.table.name, first) == before

    # Fewer late rows only: the own rows are as they were.
    assert _deliver(churn, second, deliveries[second].slice(3))["refresh"] == [str(third)]

    churn.step("void", first, stage="ingest", reason="another shop's")
    churn.ingest(delivery(first), first)  # all rows in time: what came late is there once
    events, _ = _read(churn, list(deliveries))
    assert events.num_rows == 600


def test_rows_of_days_too_far_back_are_set_aside_and_a_file_of_another_day_is_refused(tmp_path: Path):
    churn = _churn(tmp_path)
    far = delivery(DAYS[3]), delivery(DAYS[0]).slice(0, 4), delivery(DAYS[1]).slice(0, 5)

    result = _deliver(churn, DAYS[3], pa.concat_tables(far))

    assert result["late"] == {str(DAYS[1]): 5}
    assert result["by_rule"] == {"seen_at within its day (UTC)": 4}
    assert any("4 of 204 rows break the rule 'within its day (UTC)'" in warning for warning in result["warnings"])
    with pytest.raises(DayRejected, match=r"none of 200 rows is of 2026-03-03, they are of 2026-03-02[\s\S]*another"):
        churn.ingest(delivery(DAYS[1]), DAYS[2])
    before_the_first = pa.concat_tables([delivery(DAY), delivery(DAY - timedelta(days=1)).slice(0, 2)])
    assert _deliver(churn, DAY, before_the_first)["by_rule"] == {"seen_at within its day (UTC)": 2}


def test_a_late_row_is_checked_by_itself_and_never_known_before_its_delivery(tmp_path: Path):
    columns = {**COLUMNS, "arrived": "timestamp"}
    churn = _churn(tmp_path, events={**EVENTS, "columns": columns, "delivered_at": "arrived"})
    day, earlier = DAYS[1], delivery(DAYS[0]).slice(0, 4)
    late = earlier.set_column(2, "customer_id", pa.array([None, 1, 2, 3], pa.int64()))
    rows = pa.concat_tables([delivery(day), late])
    claims = [None] * 201 + [datetime(2026, 3, 1, 1), datetime(2026, 3, 2, 7), datetime(2026, 3, 3, 1)]
    rows = rows.append_column("arrived", pa.array(claims, pa.timestamp("us")))

    assert _deliver(churn, day, rows)["by_rule"] == {"customer_id not null": 1}
    found = tables.read(churn.store, [churn.record(day=day)], "late_events")
    assert found["known_at"].to_pylist() == [datetime(2026, 3, 2), datetime(2026, 3, 2, 7), datetime(2026, 3, 3, 1)]


def test_a_label_that_came_before_its_event_is_matched_once_the_event_is_there(tmp_path: Path):
    files = {"url": "../../labels/{ds}.csv", "key": "event_id", "horizon_days": 3, "missing": "empty"}
    label = {"column": "churned", "task": "binary", "delay_days": 1, "files": files}
    churn = _churn(tmp_path, label=label)
    deliveries = {day: rows.drop_columns("churned") for day, rows in _deliveries().items()}
    first, second, third = deliveries
    (tmp_path / "labels").mkdir()
    keys = delivery(first)["event_id"].to_pylist()
    lines = ["event_id,churned", *(f"{key},{n % 2}" for n, key in enumerate(keys))]
    (tmp_path / "labels" / f"{second}.csv").write_text("\n".join(lines) + "\n")
    for day in (first, second):
        churn.ingest(deliveries[day], day)
        churn.step("labels", day)
        churn.step("features", day)
    assert dict(churn.record("labels", second).detail["quarantined"]) == {"unknown event": 4}
    seen = churn.record(churn.table.name, second)

    assert _deliver(churn, third, deliveries[third])["relabel"] == [str(second)]
    again = churn.step("labels", second)

    assert (again["rows"], again["by_rule"]) == (200, {})
    churn.step("features", second)
    assert churn.record(churn.table.name, second).data_hash == seen.data_hash
    labels = tables.read_labels(churn.store, churn.spec, [churn.record("labels", second)])
    known = dict(zip(labels["event_id"].to_pylist(), labels["known_at"].to_pylist(), strict=True))
    assert {known[key] for key in keys[196:]} == {last_instant(third)}
    assert {known[key] for key in keys[:196]} == {last_instant(second)}
    assert churn.step("ingest", third)["relabel"] == []


@pytest.mark.kill
def test_a_kill_while_late_rows_are_published_leaves_all_of_them_out_or_in_and_a_rerun_takes_them_in(tmp_path: Path):
    churn, day = _churn(tmp_path), DAYS[1]
    steps = Steps(churn.settings, "churn")

    def published(rows: pa.Table) -> object:
        churn.ingest(rows, day)
        return snapshot(churn.settings, "churn", ["ingest"])

    after, before = published(_deliveries()[day]), published(delivery(day))
    assert after != before
    for place, is_in in (
        (DieAt("windsock.tables:write_day", call=3), False),  # before the late events
        (DieAt("windsock.tables:write_day", call=4, after=True), False),  # after the late labels
        (DieAt("windsock.ledger:Ledger.publish", after=True), True),
    ):
        assert published(delivery(day)) == before
        pq.write_table(_deliveries()[day], churn.home / "inbox" / f"{day}.parquet")

        assert steps.run("ingest", str(day), die_at=place).killed

        assert snapshot(churn.settings, "churn", ["ingest"]) == (after if is_in else before), place
        churn.step("ingest", day)
        assert snapshot(churn.settings, "churn", ["ingest"]) == after, place
