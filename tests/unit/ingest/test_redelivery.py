"""A redelivery that is worse than the day that it replaces: refused, until a person says why it is right."""

import itertools
import json
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from delivered import DAY, PAYMENT, Inbox, transactions, with_column
from kill import snapshot
from windsock.errors import DayRejected, SpecError
from windsock.ledger import Ledger
from windsock.steps import run_step
from windsock.store import Store

GOOD = transactions()
EVENTS = {"time": "TX_DATETIME", "key": "TRANSACTION_ID"}


def _null(table, column, count):
    values = [None] * count + table[column].to_pylist()[count:]
    return with_column(table, column, values, table.schema.field(column).type)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A published day whose terminals may be null, as the model has no rule against that."""
    events = {**EVENTS, "columns": {**PAYMENT, "SHOP": "string"}}
    inbox = Inbox(tmp_path_factory.mktemp("redelivered"), events=events)
    inbox.ingest(_with_shops(GOOD))
    return inbox


def _with_shops(table, nulls=0):
    return table.append_column("SHOP", pa.array([None] * nulls + ["a"] * (len(table) - nulls), pa.string()))


@pytest.mark.parametrize(
    ("delivered", "sentence"),
    [
        pytest.param(
            _with_shops(GOOD.slice(200)), "TRANSACTION_ID: 200 rows would replace 400 published ones", id="half"
        ),
        pytest.param(
            _with_shops(_null(GOOD, "TX_FRAUD", 400)),
            "TX_FRAUD: 0 of 400 rows have a label, but 400 of 400 had",
            id="no-labels-any-more",
        ),
        pytest.param(_with_shops(GOOD, 100), "SHOP: 25% of 400 values are null, but 0% were", id="values-are-gone"),
        pytest.param(_with_shops(GOOD).slice(0, 0), "0 rows would replace 400 published ones", id="nothing"),
    ],
)
def test_a_redelivery_that_is_worse_waits_in_quarantine_until_a_person_says_why_it_is_right(
    published, delivered, sentence
):
    published.ingest(_with_shops(GOOD))
    before = snapshot(published.settings, "fraud", ["ingest"])

    with pytest.raises(DayRejected) as refused:
        published.ingest(delivered)

    said = str(refused.value)
    assert f"{sentence} (rule 'a redelivery takes away at most 10%'" in said
    assert f"The published content of {DAY} stays in force" in said
    assert f"windsock step ingest --model fraud --key {DAY} -o accept_worse=true -o reason=..." in said
    assert snapshot(published.settings, "fraud", ["ingest"]) == before
    folder = said.split("lies in the store at ")[1].split(". ")[0]
    assert Store.of(published.settings).exists(folder, f"{DAY}.parquet")
    with pytest.raises(SpecError, match="say why"):
        published.ingest(accept_worse=True)
    assert snapshot(published.settings, "fraud", ["ingest"]) == before

    replaced = published.record().content_hash
    result = published.ingest(accept_worse=True, reason="the shop was never ours", by="ann")

    assert result["changed"]
    accepted = published.record().detail["accepted_worse"]
    assert (accepted["by"], accepted["reason"]) == ("ann", "the shop was never ours")
    assert accepted["instead_of"] == replaced
    assert sentence in accepted["lost"][0]
    published.ingest()  # run again, by the clock say, it is the day in force
    assert published.record().detail["accepted_worse"] == accepted
    assert not published.ingest(_with_shops(GOOD)).get("reasons")  # better again: nobody is asked
    assert "accepted_worse" not in published.record().detail


def test_a_small_correction_and_the_same_delivery_by_stricter_rules_need_nobody(tmp_path):
    inbox = Inbox(tmp_path)
    inbox.ingest(GOOD)

    assert inbox.ingest(_null(GOOD.slice(30), "TX_FRAUD", 30))["changed"]

    stricter = Inbox(tmp_path, validation={"quarantine_budget": 0.5})
    stricter.ingest(GOOD)
    least = {"column": "TX_AMOUNT", "min_value": 35}
    rule = {"type": "expect_column_values_to_be_between", "severity": "warning", "kwargs": least}
    (stricter.spec.folder / "expectations.json").write_text(json.dumps({"expectations": [rule]}))
    assert stricter.ingest()["rows"] < 0.9 * GOOD.num_rows


def test_losses_by_small_steps_count_together(tmp_path, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr("windsock.ledger.utc_now", lambda: datetime(2026, 4, 1, tzinfo=UTC) + timedelta(next(clock)))
    inbox = Inbox(tmp_path)
    for rows in (400, 380, 361):
        inbox.ingest(GOOD.slice(400 - rows))
    with pytest.raises(DayRejected, match="343 rows would replace 400 published ones"):
        inbox.ingest(GOOD.slice(57))

    inbox.ingest(accept_worse=True, reason="they were copies")

    assert inbox.ingest(GOOD.slice(70))["rows"] == 330  # from here on it is these that count
    (tmp_path / "fresh").mkdir()
    fresh = Inbox(tmp_path / "fresh")
    fresh.ingest(GOOD.slice(70))
    assert fresh.record().data_hash == inbox.record().data_hash


def test_values_that_vanish_by_small_steps_count_together_also_while_rows_are_added(tmp_path):
    inbox = Inbox(tmp_path)
    for n in range(2):
        inbox.ingest(_null(GOOD.slice(0, 360 + n), "TX_FRAUD", 32 * n))

    with pytest.raises(DayRejected, match="TX_FRAUD: 298 of 362 rows have a label, but 360 of 360 had"):
        inbox.ingest(_null(GOOD.slice(0, 362), "TX_FRAUD", 64))


def test_what_a_day_was_by_other_rules_or_before_it_was_taken_out_is_no_loss(tmp_path, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr("windsock.ledger.utc_now", lambda: datetime(2026, 4, 1, tzinfo=UTC) + timedelta(next(clock)))
    inbox = Inbox(tmp_path, validation={"quarantine_budget": 0.5})
    inbox.ingest(GOOD)
    inbox.ingest(GOOD.slice(1))
    rule = {
        "type": "expect_column_values_to_be_between",
        "kwargs": {"column": "TX_AMOUNT", "min_value": 30},
        "severity": "warning",
    }
    (inbox.spec.folder / "expectations.json").write_text(json.dumps({"expectations": [rule]}))
    stricter = inbox.ingest()["rows"]

    assert inbox.ingest(GOOD.slice(2))["rows"] <= stricter < 0.9 * GOOD.num_rows

    Ledger.of(inbox.settings, "fraud", "ingest").void(DAY, "a mistake")
    inbox.ingest(GOOD.slice(300))
    assert inbox.ingest(GOOD.slice(301))["status"] == "published"


def test_a_column_that_only_a_living_version_reads_is_missed_too(tmp_path, monkeypatch):
    inbox = Inbox(tmp_path)
    monkeypatch.setattr("windsock.ingest.undeclared.extra_columns", lambda ctx: {"SHOP": "string"})
    monkeypatch.setattr("windsock.ingest.step.extra_columns", lambda ctx: {"SHOP": "string"})
    inbox.ingest(_with_shops(GOOD))

    with pytest.raises(DayRejected, match="SHOP: 50% of 400 values are null, but 0% were"):
        inbox.ingest(_with_shops(GOOD, 200))
    with pytest.raises(DayRejected, match="SHOP: the column is missing, but 100% of 400 values were there"):
        inbox.ingest(GOOD)


def test_a_flag_is_true_or_false_and_no_text_counts_as_one(published):
    for given in ("False", "true", 1, 0):
        with pytest.raises(SpecError, match=f"accept_worse of step ingest is true or false; given: {given!r}"):
            published.ingest(accept_worse=given, reason="why not")


def test_a_label_file_that_holds_half_of_the_labels_is_let_in_by_a_person_alone(tmp_path):
    url = f"{tmp_path}/labels/{{ds}}.csv"
    files = {"url": url, "key": "TRANSACTION_ID", "horizon_days": 3}
    inbox = Inbox(tmp_path, label={"column": "TX_FRAUD", "task": "binary", "delay_days": 1, "files": files})
    inbox.ingest(GOOD.drop_columns(["TX_FRAUD"]))
    (tmp_path / "labels").mkdir()

    def labels(count, **options):
        rows = [f"{key},0" for key in GOOD["TRANSACTION_ID"].to_pylist()[:count]]
        (tmp_path / "labels" / f"{DAY}.csv").write_text("\n".join(["TRANSACTION_ID,TX_FRAUD", *rows]) + "\n")
        return run_step("labels", model="fraud", key=str(DAY), settings=inbox.settings, live=False, options=options)

    assert labels(400)["rows"] == 400
    with pytest.raises(DayRejected, match="TX_FRAUD: 200 labels would replace 400 published ones") as refused:
        labels(200)
    assert f"windsock step labels --model fraud --key {DAY} -o accept_worse=true" in str(refused.value)
    assert inbox.record(stage="labels").rows("labels") == 400

    assert labels(200, accept_worse=True, reason="a rerun of theirs")["rows"] == 200
    assert inbox.record(stage="labels").detail["accepted_worse"]["by"] == "manual"
    assert labels(390)["rows"] == 390
