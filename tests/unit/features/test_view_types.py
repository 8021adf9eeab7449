"""The types that a view is said to have, by its SQL on empty tables, are those of the rows that are stored."""

from pathlib import Path

from churn_model import COLUMNS, HEAD, Churn, delivery

GIVEN = {
    "summed": "sum(customer_id) over w",
    "summed_truth": "sum((minutes > 5)::integer) over w",
    "counted": "count(*) over w",
    "spent": "sum(minutes) over w",
    "small": "(customer_id % 3)::utinyint",
    "huge": "customer_id::hugeint",
    "price": "minutes::decimal(9, 2)",
    "single": "minutes::float",
    "often": "count(*) over w > 1",
    "word": "'x' || customer_id",
    "before": "lag(seen_at) over w",
}


def test_every_type_that_sql_commonly_gives_is_stored_as_it_was_declared(tmp_path: Path):
    features = ", ".join(f"{sql} as {name}" for name, sql in GIVEN.items())
    window = "(partition by customer_id order by epoch_us(seen_at))"
    churn = Churn.make(tmp_path, f"{HEAD} {features} from events window w as {window}", events__columns=COLUMNS)
    churn.ingest(delivery(rows=80))
    churn.step("features")
    rows = churn.features()
    assert rows.schema.equals(churn.table.schema)
    assert rows["summed"].null_count == 0
    read = churn.table.read(churn.store, [churn.record(churn.table.name)])
    assert read.sort_by([("event_timestamp", "ascending")]).select(list(GIVEN)).equals(rows.select(list(GIVEN)))
