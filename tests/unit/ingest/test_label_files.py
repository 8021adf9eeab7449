"""Labels from files: matched with their events, known when delivered, repeatable."""

from datetime import datetime, timedelta
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from delivered import DAY, Inbox, transactions
from kill import snapshot
from windsock.completeness import stale_label_days
from windsock.days import last_instant
from windsock.errors import DayRejected, NotReady, SpecError, UpstreamUnavailable
from windsock.steps import run_step

LATER = DAY + timedelta(days=2)
EVENTS = {
    "time": "TX_DATETIME",
    "key": "TRANSACTION_ID",
    "columns": {
        "TRANSACTION_ID": "int64",
        "TX_DATETIME": "timestamp",
        "CUSTOMER_ID": "int64",
        "TERMINAL_ID": "int64",
        "TX_AMOUNT": "double",
    },
    "ignore": ["TX_FRAUD"],
}


def _world(home, *, settle=True, time="LABEL_TIME", label_from=None, **files):
    (home / "labels").mkdir()
    given = {"url": f"{home}/labels/{{ds}}.parquet", "key": "TRANSACTION_ID", "time": time, **files}
    label = {"column": "TX_FRAUD", "from": label_from, "task": "binary", "delay_days": 2, "files": given}
    inbox = Inbox(home, events=EVENTS, label=label)
    if settle:
        for n in range(3):
            inbox.ingest(transactions(100, DAY + timedelta(days=n)), DAY + timedelta(days=n))

    def deliver(table, day=LATER, **options):
        if table is not None:
            pq.write_table(table, home / "labels" / f"{day}.parquet")
        return run_step("labels", model="fraud", key=str(day), settings=inbox.settings, live=False, options=options)

    return SimpleNamespace(inbox=inbox, deliver=deliver, labels=lambda d=LATER: inbox.rows("labels", d, "labels"))


def _labels(rows=100, day=DAY, known=datetime(2026, 3, 3, 9)):
    keys = transactions(100, day)["TRANSACTION_ID"].slice(0, rows)
    return pa.table({"TRANSACTION_ID": keys, "TX_FRAUD": [0] * rows, "LABEL_TIME": [known] * rows})


def test_events_of_a_model_with_label_files_hold_no_labels(tmp_path):
    world = _world(tmp_path)

    assert set(world.inbox.record().outputs) == {"events"}


def test_labels_carry_the_time_of_their_event_and_of_their_delivery(tmp_path):
    world = _world(tmp_path)

    result = world.deliver(_labels())

    assert (result["status"], result["rows"], result["quarantined"]) == ("published", 100, 0)
    rows = world.labels()
    assert rows["event_time"].to_pylist() == world.inbox.rows()["TX_DATETIME"].to_pylist()
    assert set(rows["known_at"].to_pylist()) == {datetime(2026, 3, 3, 9)}


def test_a_label_is_never_known_before_the_day_of_its_delivery(tmp_path):
    world = _world(tmp_path)

    world.deliver(_labels(known=datetime(2026, 3, 2, 9)))

    assert set(world.labels()["known_at"].to_pylist()) == {datetime(2026, 3, 3)}


def test_without_a_time_column_labels_are_known_at_the_end_of_the_day(tmp_path):
    world = _world(tmp_path, time=None)

    world.deliver(_labels().drop_columns(["LABEL_TIME"]))

    assert set(world.labels()["known_at"].to_pylist()) == {last_instant(LATER)}


@pytest.mark.parametrize(
    ("change", "rule", "count"),
    [
        ({"TRANSACTION_ID": [None]}, "TRANSACTION_ID not null", 1),
        ({"TRANSACTION_ID": [5, 6]}, "unknown event", 2),
        ({"TX_FRAUD": [3]}, "TX_FRAUD one of 0, 1", 1),
        ({"LABEL_TIME": [None]}, "LABEL_TIME not null", 1),
        ({"LABEL_TIME": [datetime(2026, 2, 1)]}, "LABEL_TIME not before its event", 1),
        ({"LABEL_TIME": [datetime(2026, 3, 4)]}, "LABEL_TIME not after its delivery", 1),
    ],
)
def test_faulty_labels_are_set_aside(tmp_path, change, rule, count):
    world = _world(tmp_path)
    table = _labels()
    for name, values in change.items():
        new = pa.array(values + table[name].to_pylist()[len(values) :], table.schema.field(name).type)
        table = table.set_column(table.column_names.index(name), name, new)

    result = world.deliver(table)

    assert result["by_rule"] == {rule: count}
    assert result["rows"] == 100 - count
    assert any(f"{count} of 100 labels break the rule" in w for w in result["warnings"])


def test_copies_are_counted_once_and_contradictions_not_at_all(tmp_path):
    world = _world(tmp_path)
    other = _labels(2).set_column(1, "TX_FRAUD", pa.array([1, 1]))

    result = world.deliver(pa.concat_tables([_labels(), _labels(3), other]))

    assert result["by_rule"] == {"duplicate copy": 3, "one label per event": 4}
    assert result["rows"] == 98


def test_null_labels_are_left_out_with_a_warning(tmp_path):
    world = _world(tmp_path)
    table = _labels().set_column(1, "TX_FRAUD", pa.array([None] * 5 + [1] * 95))

    result = world.deliver(table)

    assert (result["rows"], result["quarantined"]) == (95, 0)
    assert any("5 of 100 labels are null" in w for w in result["warnings"])


def test_labels_wait_for_the_events_they_may_be_for(tmp_path):
    world = _world(tmp_path, settle=False)

    with pytest.raises(NotReady, match="3 of 3 needed days"):
        world.deliver(_labels())


def test_a_missing_label_file_is_waited_for_or_taken_as_empty_as_the_spec_says(tmp_path):
    for folder in ("wait", "empty", "given-up"):
        (tmp_path / folder).mkdir()

    with pytest.raises(UpstreamUnavailable, match="does not exist"):
        _world(tmp_path / "wait").deliver(None)

    world = _world(tmp_path / "empty", missing="empty", mark="{ds}.done")
    with pytest.raises(UpstreamUnavailable, match="not the mark"):  # what is on its way is not missing
        world.deliver(_labels())
    (tmp_path / "empty" / "labels" / f"{LATER}.parquet").unlink()
    result = world.deliver(None)
    assert result["status"] == "empty"
    assert "0 labels" in result["warnings"][0]

    assert _world(tmp_path / "given-up").deliver(None, no_delivery=True)["status"] == "empty"


def test_a_wrong_label_file_is_refused_and_earlier_labels_stay(tmp_path):
    world = _world(tmp_path)
    world.deliver(_labels())
    before = snapshot(world.inbox.settings, "fraud", ["labels"])

    with pytest.raises(DayRejected, match=r"TX_FRAUD: the declared column \(int64\) is missing[\s\S]*stays in force"):
        world.deliver(_labels().drop_columns(["TX_FRAUD"]))

    assert snapshot(world.inbox.settings, "fraud", ["labels"]) == before


def test_too_many_faulty_labels_refuse_the_file(tmp_path):
    world = _world(tmp_path)
    table = _labels().set_column(1, "TX_FRAUD", pa.array([9] * 6 + [0] * 94))

    with pytest.raises(DayRejected, match="6 of 100 labels"):
        world.deliver(table)

    assert world.inbox.record(LATER, "labels").status == "rejected"


def test_events_published_later_make_their_labels_stale_and_a_rerun_finds_them(tmp_path):
    world = _world(tmp_path)
    inbox, fourth, delivery = world.inbox, DAY + timedelta(days=3), DAY + timedelta(days=4)
    with pytest.raises(DayRejected):  # a day that was refused at first has no events to label
        inbox.ingest(transactions(100, fourth).drop_columns(["TX_AMOUNT"]), fourth)
    inbox.ingest(transactions(100, delivery), delivery)
    table = _labels(day=fourth, known=datetime(2026, 3, 5, 9))
    assert world.deliver(table, delivery)["by_rule"] == {"unknown event": 100}

    inbox.ingest(transactions(100, fourth), fourth)

    assert stale_label_days(inbox.settings, inbox.spec, fourth) == [delivery]
    again = world.deliver(None, delivery)
    assert (again["rows"], again["changed"]) == (100, True)
    assert stale_label_days(inbox.settings, inbox.spec, fourth) == []


def test_the_same_label_file_again_changes_nothing(tmp_path):
    world = _world(tmp_path)
    assert world.deliver(_labels())["changed"]
    before = snapshot(world.inbox.settings, "fraud", ["labels"])

    assert not world.deliver(_labels())["changed"]
    assert snapshot(world.inbox.settings, "fraud", ["labels"]) == before


def test_a_model_with_inline_labels_has_no_label_step(tmp_path):
    inbox = Inbox(tmp_path)

    with pytest.raises(SpecError, match="has no label files"):
        run_step("labels", model="fraud", key=str(DAY), settings=inbox.settings)


def test_labels_delivered_again_make_the_features_of_their_own_day_stale_too(tmp_path):
    world = _world(tmp_path)
    inbox = world.inbox
    for n in range(3):
        assert world.deliver(_labels(0), DAY + timedelta(days=n))["refresh"] == []
    run_step("features", model="fraud", key=str(LATER), settings=inbox.settings, live=False)

    assert world.deliver(_labels())["refresh"] == [str(LATER)]


def test_a_label_whose_key_several_events_have_is_nobodys_and_set_aside(tmp_path):
    world = _world(tmp_path, settle=False)
    for n in range(3):  # each day's ids begin anew with three that other days have, too
        table = transactions(100, DAY + timedelta(days=n))
        ids = pa.array([1, 2, 3, *table["TRANSACTION_ID"].to_pylist()[3:]])
        world.inbox.ingest(table.set_column(0, "TRANSACTION_ID", ids), DAY + timedelta(days=n))
    labels = _labels()

    result = world.deliver(labels.set_column(0, "TRANSACTION_ID", pa.array([1, 2, 3, *labels[0].to_pylist()[3:]])))

    assert (result["rows"], result["by_rule"]) == (97, {"key of one event": 3})
    assert any("3 of 100 labels break the rule 'key of one event', e.g. 1 (" in w for w in result["warnings"])


def test_the_columns_of_a_label_file_may_have_any_names(tmp_path):
    world = _world(tmp_path, key="Transaktions-Nr.", time="event_time", label_from="Betrug? (ja/nein)")
    names = ["Transaktions-Nr.", "Betrug? (ja/nein)", "event_time"]

    result = world.deliver(_labels().rename_columns(names))

    assert (result["rows"], result["quarantined"]) == (100, 0)
    assert world.labels().column_names == ["TRANSACTION_ID", "TX_FRAUD", "event_time", "known_at"]
    assert world.labels()["event_time"].to_pylist() == world.inbox.rows()["TX_DATETIME"].to_pylist()
    with pytest.raises(DayRejected, match="'Betrug"):
        world.deliver(_labels().rename_columns(["Transaktions-Nr.", "TX_FRAUD", "event_time"]))


def test_a_label_that_comes_with_its_events_may_have_another_name_there(tmp_path):
    label = {"column": "TX_FRAUD", "from": "is fraud", "task": "binary", "delay_days": 7}
    inbox = Inbox(tmp_path, label=label)
    rows = transactions(100)

    inbox.ingest(rows.rename_columns([*rows.column_names[:-1], "is fraud"]))

    assert inbox.rows("labels")["TX_FRAUD"].to_pylist() == rows["TX_FRAUD"].to_pylist()
    columns = {**EVENTS["columns"], "AGAIN": {"type": "int64", "from": "is fraud"}}
    with pytest.raises(SpecError, match="'AGAIN' is taken from the label 'is fraud'"):
        Inbox(tmp_path, label=label, events={**EVENTS, "columns": columns})
    files = {"url": "{ds}.csv", "key": "TX_FRAUD"}
    with pytest.raises(SpecError, match="'TX_FRAUD' is named more than once"):
        Inbox(tmp_path, label={**label, "from": None, "files": files}, events=EVENTS)
