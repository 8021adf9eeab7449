"""The malformed deliveries of one real day: what becomes of each, and what its message says."""

import shutil
from datetime import date

import pytest

from shared_data import shared_data
from small_model import small_fraud
from windsock import tables
from windsock.errors import DayRejected
from windsock.ledger import Ledger
from windsock.steps import run_step
from windsock.store import Store

DAY = date(2018, 6, 15)

REJECTED = {
    "01_missing_column": ["TX_AMOUNT", "declared column", "1 of 6", "TRANSACTION_ID, TX_DATETIME"],
    "03_amount_as_text": ["TX_AMOUNT", "declared double", "9,448 of 9,448", "'24.01 EUR'"],
    "05_truncated_parquet": ["truncated", "2018-06-15.parquet", "114537 bytes"],
    "06_empty_file": ["empty (0 bytes)", "2018-06-15.parquet"],
    "12_timestamps_outside_day": ["TX_DATETIME", "within its day", "500 of 9,448", "2018-06-14 21:26:44", "5.00%"],
}
ACCEPTED = {
    "00_good": (9448, {}, []),
    "08_duplicate_rows": (
        9448,
        {"duplicate copy": 500},
        [["TRANSACTION_ID", "500 of 9,948", "exact copies", "719359"]],
    ),
    "10_null_keys": (
        9283,
        {"TRANSACTION_ID not null": 25, "CUSTOMER_ID not null": 100, "TERMINAL_ID not null": 40},
        [["CUSTOMER_ID", "100 of 9,448", "not null", "TRANSACTION_ID 719648"]],
    ),
    "14_unknown_ids": (
        9448,
        {},
        [["CUSTOMER_ID", "200 of 9,448", "known customer", "5008"], ["TERMINAL_ID", "150 of 9,448", "10038"]],
    ),
    "16_all_labels_null": (9448, {}, [["TX_FRAUD", "9,448 of 9,448", "not null", "TRANSACTION_ID 719307"]]),
    "19_extra_columns_leak": (9448, {}, [["CHARGEBACK_DATE, BATCH_NO", "2 columns", "dropped", "'2018-06-24'"]]),
    "21_half_day": (
        4290,
        {},
        [["4,290 rows", "between 6,000 and 15,000"], ["TX_DATETIME", "after 20:00", "4,290 rows", "11:23:12"]],
    ),
    "23_amount_in_cents": (9448, {}, [["TX_AMOUNT", "mean between", "5389.01", "9,448 rows", "89310"]]),
    "26_ok_columns_reordered": (9448, {}, []),
}


def _world(home, case, **overrides):
    folder = shared_data("malformed") / case
    source = {"kind": "files", "url": f"{folder}/{{ds}}.parquet"}
    return small_fraud(home, first_day="2018-06-15", source=source, **overrides)


def _ingest(settings):
    return run_step("ingest", model="fraud", key=str(DAY), settings=settings, live=False)


@pytest.mark.parametrize("case", REJECTED)
def test_rejects_the_file_names_the_fault_and_stores_nothing_of_the_day(tmp_path, case):
    settings, _ = _world(tmp_path, case)

    with pytest.raises(DayRejected) as refused:
        _ingest(settings)

    for part in REJECTED[case]:
        assert part in str(refused.value)
    record = Ledger.of(settings, "fraud", "ingest").get(DAY)
    assert record.status == "rejected"
    assert dict(record.outputs) == {}
    assert record.detail["reasons"]
    copy = Store.of(settings).read_bytes(record.detail["source"]["raw"], "2018-06-15.parquet")
    assert copy == (shared_data("malformed") / case / "2018-06-15.parquet").read_bytes()


@pytest.mark.parametrize("case", ACCEPTED)
def test_accepts_the_day_sets_broken_rows_aside_and_warns_in_full(tmp_path, case):
    settings, _ = _world(tmp_path, case)
    rows, aside, warnings = ACCEPTED[case]

    result = _ingest(settings)

    assert (result["status"], result["rows"], result["by_rule"]) == ("published", rows, aside)
    for parts in warnings:
        assert any(all(part in w for part in parts) for w in result["warnings"]), (parts, result["warnings"])
    if not warnings and not aside:
        assert result["warnings"] == []
    record = Ledger.of(settings, "fraud", "ingest").get(DAY)
    store = Store.of(settings)
    events = tables.read(store, [record], "events")
    expected = ["TRANSACTION_ID", "TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT", "known_at"]
    assert events.column_names == expected
    assert events.num_rows == len(set(events["TRANSACTION_ID"].to_pylist())) == rows
    labels = tables.read(store, [record], "labels")
    assert (labels.num_rows if labels is not None else 0) == (0 if case == "16_all_labels_null" else rows)
    if aside:
        quarantine = tables.read(store, [record], "quarantine")
        assert quarantine.num_rows == sum(aside.values()) == result["quarantined"]
        assert all(quarantine["row"].to_pylist())


def test_reordered_columns_give_the_same_rows_as_the_good_day(tmp_path):
    hashes = []
    for case in ("00_good", "26_ok_columns_reordered"):
        settings, _ = _world(tmp_path / case, case)
        _ingest(settings)
        hashes.append(Ledger.of(settings, "fraud", "ingest").get(DAY).data_hash)

    assert hashes[0] == hashes[1]


def test_timestamps_outside_the_day_are_set_aside_if_the_budget_allows(tmp_path):
    settings, _ = _world(tmp_path, "12_timestamps_outside_day", validation={"quarantine_budget": 0.1})

    result = _ingest(settings)

    assert (result["rows"], result["by_rule"]) == (8948, {"TX_DATETIME within its day (UTC)": 500})


@pytest.mark.parametrize(("rule", "status"), [("accept", "empty"), ("reject", "rejected")])
def test_a_day_without_rows_is_settled_by_the_stated_rule(tmp_path, rule, status):
    settings, _ = _world(tmp_path, "18_zero_rows", validation={"empty_day": rule})

    if rule == "accept":
        result = _ingest(settings)
        assert (result["status"], result["rows"]) == ("empty", 0)
        assert "0 rows" in result["warnings"][0]
    else:
        with pytest.raises(DayRejected, match="0 rows"):
            _ingest(settings)

    assert Ledger.of(settings, "fraud", "ingest").get(DAY).status == status


@pytest.fixture
def label_world(tmp_path):
    """Events of the good day without their label, every day up to the labels' delivery settled."""

    def make(case):
        inbox = tmp_path / "labels"
        inbox.mkdir()
        shutil.copy(shared_data("malformed") / "labels" / f"{case}.parquet", inbox / "2018-06-22.parquet")
        events = {
            "time": "TX_DATETIME",
            "key": "TRANSACTION_ID",
            "columns": {
                "TRANSACTION_ID": "int64",
                "TX_DATETIME": "timestamp",
                "CUSTOMER_ID": "int64",
                "TERMINAL_ID": "int64",
                "TX_AMOUNT": "double",
            },
            "ignore": ["TX_TIME_SECONDS", "TX_TIME_DAYS", "TX_FRAUD_SCENARIO", "TX_FRAUD"],
        }
        files = {"url": f"{inbox}/{{ds}}.parquet", "key": "TRANSACTION_ID", "time": "LABEL_TIME"}
        label = {"column": "TX_FRAUD", "task": "binary", "delay_days": 7, "files": files}
        settings, _ = _world(tmp_path, "00_good", events=events, label=label)
        _ingest(settings)
        for day in range(16, 23):
            options = {"no_delivery": True}
            run_step("ingest", model="fraud", key=f"2018-06-{day}", settings=settings, options=options, live=False)
        return settings

    return make


@pytest.mark.parametrize(
    ("case", "rows", "aside", "parts"),
    [
        ("L0_good_labels", 9448, {}, []),
        ("L1_labels_for_unknown_ids", 9368, {"unknown event": 80}, ["TRANSACTION_ID", "80 of 9,448", "50719353"]),
        (
            "L3_label_before_transaction",
            9428,
            {"LABEL_TIME not before its event": 20},
            ["LABEL_TIME", "20 of 9,448", "2018-06-15 04:36:52"],
        ),
    ],
)
def test_label_files_keep_good_labels_and_set_the_others_aside(label_world, case, rows, aside, parts):
    settings = label_world(case)

    result = run_step("labels", model="fraud", key="2018-06-22", settings=settings, live=False)

    assert (result["status"], result["rows"], result["by_rule"]) == ("published", rows, aside)
    assert all(part in " ".join(result["warnings"]) for part in parts)
    record = Ledger.of(settings, "fraud", "labels").get(date(2018, 6, 22))
    labels = tables.read(Store.of(settings), [record], "labels")
    assert labels.column_names == ["TRANSACTION_ID", "TX_FRAUD", "event_time", "known_at"]
    if aside:
        assert tables.read(Store.of(settings), [record], "label_quarantine").num_rows == sum(aside.values())
