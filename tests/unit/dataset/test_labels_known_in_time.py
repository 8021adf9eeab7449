from datetime import date, datetime, timedelta

import pyarrow as pa
import pytest

from training_world import AS_OF, HOLDOUT, TRAIN, TRAINING, world_spec
from windsock import tables
from windsock.dataset.label_join import attach_labels, known_when_made, mark_known_positives
from windsock.dataset.time_split import windows_of
from windsock.errors import DataContractError, SpecError
from windsock.store import Store

LABEL_FILES = {
    "column": "TX_FRAUD",
    "task": "binary",
    "delay_days": 2,
    "files": {"url": "labels/{ds}.parquet", "key": "TRANSACTION_ID"},
}


def at(day: date, hour: int = 12) -> datetime:
    return datetime(day.year, day.month, day.day, hour)


def events(*keys, day=TRAIN[0]):
    times = pa.array([at(day)] * len(keys), pa.timestamp("us"))
    return pa.table({"TRANSACTION_ID": keys, "event_timestamp": times})


def labels(*rows, day=TRAIN[0]):
    keys, values, known = zip(*rows, strict=True)
    times = pa.array([at(day)] * len(rows), pa.timestamp("us"))
    return pa.table(
        {
            "TRANSACTION_ID": keys,
            "TX_FRAUD": values,
            "event_time": times,
            "known_at": pa.array(known, pa.timestamp("us")),
        }
    )


def test_of_several_labels_the_latest_known_by_then_counts(tmp_path):
    _, spec = world_spec(tmp_path)
    frame = events(3, 1, 1, 9)
    given = labels(
        (1, 0, at(AS_OF, 1)), (1, 1, at(AS_OF, 2)), (1, 0, at(AS_OF, 5)), (3, 1, at(AS_OF, 3)), (9, 1, at(AS_OF, 5))
    )

    got = attach_labels(spec, frame, given, at(AS_OF, 4))

    assert got["TRANSACTION_ID"].to_pylist() == [3, 1, 1]
    assert got["TX_FRAUD"].to_pylist() == [1, 1, 1]


def test_no_labels_at_all_leave_no_row(tmp_path):
    settings, spec = world_spec(tmp_path)
    labels = tables.read_labels(Store.of(settings), spec, [])

    got = attach_labels(spec, events(1, 2), labels, at(AS_OF))

    assert got.num_rows == 0
    assert got.column_names == ["TRANSACTION_ID", "event_timestamp", "TX_FRAUD", "known_at"]


def test_a_label_is_that_of_its_event_where_ids_begin_anew_each_day(tmp_path):
    _, spec = world_spec(tmp_path)
    given = pa.concat_tables(
        [
            labels((1, 1, at(AS_OF)), (2, 0, at(AS_OF))),
            labels((1, 0, at(AS_OF)), (3, 1, at(AS_OF)), day=TRAIN[1]),
        ]
    )

    got = attach_labels(spec, pa.concat_tables([events(1, 2, 3), events(1, 2, 3, day=TRAIN[1])]), given, at(AS_OF))

    assert got["TRANSACTION_ID"].to_pylist() == [1, 2, 1, 3]
    assert got["TX_FRAUD"].to_pylist() == [1, 0, 0, 1]


def window_rows(late: int, of: int = 40):
    known = [at(HOLDOUT[0], 1) if n < late else at(TRAIN[1]) for n in range(of)]
    return pa.table(
        {
            "event_timestamp": pa.array([at(TRAIN[1], 3)] * of, pa.timestamp("us")),
            "known_at": pa.array(known, pa.timestamp("us")),
        }
    )


def test_a_few_labels_delivered_late_are_left_out_and_counted(tmp_path):
    _, spec = world_spec(tmp_path, label=LABEL_FILES)

    rows, late = known_when_made(spec, window_rows(late=3), windows_of(spec, AS_OF))

    assert (rows.num_rows, late) == (37, 3)


def test_many_labels_delivered_late_are_refused(tmp_path):
    _, spec = world_spec(tmp_path, label=LABEL_FILES)

    with pytest.raises(DataContractError, match=f"5 of 40 labels of the training days.*events of {TRAIN[1]}"):
        known_when_made(spec, window_rows(late=5), windows_of(spec, AS_OF))


def test_a_short_gap_is_accepted_where_known_times_prove_it_safe(tmp_path):
    _, spec = world_spec(tmp_path, label=LABEL_FILES, training={**TRAINING, "gap_days": 1})

    assert known_when_made(spec, window_rows(late=0), windows_of(spec, AS_OF))[1] == 0
    with pytest.raises(SpecError, match=r"training\.gap_days is 1, but labels take 2 days"):
        known_when_made(spec, window_rows(late=1), windows_of(spec, AS_OF))


def test_an_entity_is_known_from_the_day_after_delay_and_arrival_on(tmp_path):
    _, spec = world_spec(tmp_path)
    day = date(2026, 3, 1)
    history = pa.table(
        {
            "event_timestamp": pa.array([at(day), at(day), at(day), at(day - timedelta(days=5))], pa.timestamp("us")),
            "CUSTOMER_ID": ["early", "in_time", "late", "too_old"],
            "TX_FRAUD": [1, 1, 1, 1],
            "known_at": pa.array(
                [at(day), at(day + timedelta(days=2)), at(day + timedelta(days=6)), at(day)], pa.timestamp("us")
            ),
        }
    )
    days = [day + timedelta(days=n) for n in range(9)]
    for card, first_known in (("early", 3), ("in_time", 3), ("late", 7), ("too_old", 99), ("unknown", 99)):
        frame = pa.table(
            {"event_timestamp": pa.array([at(d) for d in days], pa.timestamp("us")), "CUSTOMER_ID": [card] * len(days)}
        )
        marked = mark_known_positives(spec, frame, history, day)["known_positive"]
        assert marked.to_pylist() == [n >= first_known for n in range(9)], card
