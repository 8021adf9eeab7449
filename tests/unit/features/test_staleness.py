"""A day of features is out of date exactly when something that its definition can see has changed."""

from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from churn_model import COLUMNS, DAY, HEAD, Churn, delivery
from windsock.completeness import stale_days
from windsock.dataset.lacking import lacking

DAYS = [DAY + timedelta(days=n) for n in range(4)]
BEFORE = "over (partition by customer_id order by epoch_us(seen_at)"
VIEWS = {
    "usage": HEAD + f"count(*) {BEFORE}) as n from events",
    "spent": HEAD + f"sum(minutes) {BEFORE}) as s from events",
    "left": HEAD + f"count(churned) {BEFORE} range between unbounded preceding and 1 preceding) as c from history",
}


def model(home: Path, **fields: Any) -> Churn:
    """Make the model with a view of times alone, one of minutes and one of labels."""
    view = {"entity": "customer", "lookback_days": 1}
    views = [{**view, "name": name, "sql": f"{name}.sql"} for name in VIEWS]
    churn = Churn.make(home, features__views=views, **fields)
    for name, sql in VIEWS.items():
        (home / "models" / "churn" / f"{name}.sql").write_text(sql)
    return churn


def deliver(churn: Churn, day: date, more: Mapping[str, pa.Array] | None = None) -> list[str]:
    """Ingest a day; return the days that are announced with it."""
    churn.ingest(delivery(day, more=more), day)
    return [str(d) for d in stale_days(churn.settings, churn.spec, day, itself=True)]


def stale(churn: Churn) -> dict[str, list[date]]:
    """Return the days of each view that are out of date; none may be missing."""
    found = lacking(churn.settings, churn.spec, DAYS[0], DAYS[-1])
    assert not any(each.missing for each in found)
    return {each.view.name: list(each.stale) for each in found if each.stale}


@pytest.fixture
def computed(tmp_path: Path) -> Churn:
    churn = model(tmp_path)
    for day in DAYS:
        deliver(churn, day)
        churn.step("features", day)
    assert stale(churn) == {}
    return churn


def test_another_delay_makes_exactly_the_readers_of_labels_stale(computed: Churn):
    later = model(computed.home, label__delay_days=3)
    assert stale(later) == {"left": DAYS}
    for day in DAYS:
        later.step("features", day)
    assert stale(later) == {}
    assert stale(model(computed.home, label__delay_days=2)) == {"left": DAYS}


def test_a_column_that_nobody_reads_makes_nothing_stale(computed: Churn):
    wider = model(computed.home, events__columns={**COLUMNS, "mcc": "int64"})
    announced = deliver(wider, DAYS[1], {"mcc": pa.array(range(200))})
    assert announced == []
    assert stale(wider) == {}
    assert not wider.step("features", DAYS[1])["changed"]


def test_a_changed_column_makes_its_readers_stale_on_the_days_that_look_back_on_it(computed: Churn):
    changed = {"minutes": pa.array([1.5] * 200)}
    assert deliver(computed, DAYS[1], changed) == [str(day) for day in DAYS[1:3]]
    assert stale(computed) == {"spent": DAYS[1:3]}


def test_changed_labels_make_their_readers_stale(computed: Churn):
    deliver(computed, DAYS[1], {"churned": pa.array([1] * 200)})
    assert stale(computed) == {"left": DAYS[1:3]}


@pytest.mark.parametrize(
    "fields", [{"owner": "somebody"}, {"training__window_days": 5}, {"gate": {"floors": {"roc_auc": 0.6}}}]
)
def test_what_is_no_fact_of_a_day_makes_nothing_stale(computed: Churn, fields: dict[str, Any]):
    assert stale(model(computed.home, **fields)) == {}
