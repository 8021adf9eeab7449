"""The interval around the champion's performance: as wide as the luck of entities makes it."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from small_model import small_fraud
from windsock.monitoring.performance import metric_interval
from windsock.served.metrics import measure
from windsock.spec import ModelSpec

CUSTOMERS = 60
EACH = 30


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    return small_fraud(tmp_path)[1]


def week(seed: int) -> pa.Table:
    """Payments of customers who are defrauded, and scored too high or too low, all together."""
    rng = np.random.default_rng(seed)
    customer = np.repeat(np.arange(CUSTOMERS), EACH)
    fraud = (rng.random(CUSTOMERS) < 0.3).astype(np.int64)
    score = fraud[customer] + rng.normal(size=CUSTOMERS)[customer] + 0.1 * rng.normal(size=len(customer))
    times = pa.array(np.arange(len(customer)) * 300_000_000, pa.timestamp("us"))
    return pa.table({"event_timestamp": times, "CUSTOMER_ID": customer, "TX_FRAUD": fraud[customer], "score": score})


def test_an_entitys_rows_are_not_taken_as_independent(spec: ModelSpec) -> None:
    """The interval holds another week's value about as often as it says; one over rows alone does not."""
    rng = np.random.default_rng(1)
    values = [
        measure("average_precision", w["TX_FRAUD"].to_numpy().astype(float), w["score"].to_numpy())
        for w in map(week, range(60))
    ]
    low, high = metric_interval(spec, week(0), rng)

    assert high - low == pytest.approx(3.3 * np.std(values), rel=0.5)
    assert metric_interval(spec, week(0), np.random.default_rng(1)) == (low, high), "a seed gives one interval"


def test_rows_that_do_not_count_have_no_weight(spec: ModelSpec) -> None:
    rows = week(0)
    known = np.asarray(rows["CUSTOMER_ID"]) < 30
    marked = rows.append_column("known_positive", pa.array(known))

    alone = metric_interval(spec, rows.filter(pa.array(~known)), np.random.default_rng(1))
    assert metric_interval(spec, marked, np.random.default_rng(1)) == alone
