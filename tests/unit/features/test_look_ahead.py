"""A view whose row changes when its own label or anything later is hidden is refused; an honest one never is."""

import re
import shutil
from datetime import date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from churn_model import DAY, HEAD, USAGE, Churn, delivery
from windsock.errors import SpecError
from windsock.features.look_ahead import LookAhead, find_look_ahead
from windsock.features.view_sql import compute_view
from windsock.settings import REPO_ROOT
from windsock.spec import load_spec

NEWEST = DAY + timedelta(days=2)
BY = "partition by customer_id order by seen_at"
OTHERS = "select e.customer_id, e.seen_at as event_timestamp, "
A_DAY = "select customer_id, date_trunc('day', seen_at) as d, count(*) as n from events group by all"

LOOKING_AHEAD = {
    "lead": HEAD + f"lead(minutes, 2) over ({BY}) as f from events",
    "lead over everybody": HEAD + "lead(minutes) over (order by seen_at) as f from events",
    "a frame of rows that follow": HEAD + f"avg(minutes) over ({BY} rows between 2 preceding and 1 following) as f "
    "from events",
    "a frame of time that follows": HEAD + f"count(*) over ({BY} range between interval 6 hours preceding and "
    "interval 6 hours following) as f from events",
    "the own label in a frame": HEAD + f"sum(churned) over ({BY}) as f from history",
    "the own label": HEAD + "coalesce(churned, 0) as f from history",
    "the own label, joined": OTHERS + "coalesce(l.churned, 0) as f from events e left join labels l using (event_id)",
    "a join on the day": OTHERS + f"d.n as f from events e join ({A_DAY}) d "
    "on d.customer_id = e.customer_id and d.d = date_trunc('day', e.seen_at)",
    "a subquery over everything": OTHERS + "(select max(minutes) from events) as f from events e",
    "a subquery over what follows": OTHERS + "(select count(*) from events o where o.customer_id = e.customer_id "
    "and o.seen_at > e.seen_at) as f from events e",
    "an unordered aggregate over the day": HEAD + "avg(minutes) over (partition by customer_id, seen_at::date) as f "
    "from events",
    "the last value of the day": HEAD + f"last_value(minutes) over ({BY} rows between unbounded preceding and "
    "unbounded following) as f from events",
    "order turned round": HEAD + "row_number() over (partition by customer_id order by seen_at desc) as f from events",
    "a rank among all": HEAD + "percent_rank() over (order by minutes) as f from events",
    "a row that is there only if another follows": HEAD + f"minutes as f from events qualify lead(seen_at) over ({BY}) "
    "is not null",
    "a row that is there only if no other follows": HEAD
    + f"1 as f from events qualify lead(seen_at) over ({BY}) is null",
    "the last of each day": HEAD + "minutes as f from events qualify row_number() over (partition by customer_id, "
    "seen_at::date order by seen_at desc) = 1",
    "a row unless more follow soon": OTHERS + "e.minutes as f from events e where not exists (select 1 from events o "
    "where o.customer_id = e.customer_id and o.seen_at > e.seen_at and o.seen_at < e.seen_at + interval 8 hours)",
    "rows without a label of their own": HEAD + "minutes as f from history where churned is null",
    "a day told at its last event": "select customer_id, max(seen_at) as event_timestamp, sum(minutes) as f "
    "from events group by customer_id, seen_at::date",
    "a day told at its start": "select customer_id, date_trunc('day', seen_at) as event_timestamp, count(*) as f "
    "from events group by all",
}
HONEST = {
    "whole seconds where events have whole seconds": HEAD + "count(*) over (partition by customer_id "
    "order by epoch(seen_at)::bigint range between 604799 preceding and current row) as f from events",
    "microseconds": USAGE,
    "intervals": HEAD + f"sum(minutes) over ({BY} range between interval 1 day preceding and current row) as f "
    "from history",
    "lag": HEAD + f"lag(minutes) over ({BY}) as f from events",
    "labels before the row": HEAD + "sum(churned) over (partition by customer_id order by epoch_us(seen_at) "
    "range between unbounded preceding and 1 preceding) as f from history",
    "the row alone": HEAD + "minutes * 2 as f, hour(seen_at) as g from events",
    "a subquery over what went before": OTHERS + "(select count(*) from events o where o.customer_id = e.customer_id "
    "and o.seen_at <= e.seen_at) as f from events e",
    "a join with what went before": OTHERS + "count(o.event_id) as f, sum(o.minutes) as g from events e left join "
    "events o on o.customer_id = e.customer_id and o.seen_at < e.seen_at group by all",
    "a join on the day before": OTHERS + f"d.n as f from events e left join ({A_DAY}) d on d.customer_id = "
    "e.customer_id and d.d = date_trunc('day', e.seen_at) - interval 1 day",
    "a row number": HEAD + f"row_number() over ({BY}) as f from events",
    "the last event before": OTHERS + "o.minutes as f from events e asof left join events o "
    "on e.customer_id = o.customer_id and e.seen_at > o.seen_at",
    "an hour told at its end": "select customer_id, date_trunc('hour', seen_at) + interval 1 hour as event_timestamp, "
    "count(*) as f from events group by all",
    "a day told at its end": "select customer_id, seen_at::date + interval 1 day - interval 1 microsecond "
    "as event_timestamp, sum(minutes) as f from events group by all",
    "the first of each hour": HEAD + "minutes as f from events qualify row_number() over (partition by customer_id, "
    "date_trunc('hour', seen_at) order by seen_at) = 1",
    "a constant": HEAD + "1 as f from events",
}


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory) -> Churn:
    """Three days of a model whose labels are known at once."""
    churn = Churn.make(tmp_path_factory.mktemp("churn"), label__delay_days=0)
    for n in range(3):
        churn.ingest(delivery(DAY + timedelta(days=n)), DAY + timedelta(days=n))
    return churn


def tried(churn: Churn, sql: str) -> LookAhead | None:
    churn.write_sql(sql)
    return find_look_ahead(churn.spec, churn.view, *(churn.rows(name, days=3) for name in ("events", "labels")), NEWEST)


@pytest.mark.parametrize("sql", LOOKING_AHEAD.values(), ids=LOOKING_AHEAD)
def test_a_view_that_looks_ahead_is_found_by_trying(at_once: Churn, sql: str):
    found = tried(at_once, sql)
    assert found is not None
    assert found.feature == "f"
    assert found.value != found.other
    assert str(found.row["event_timestamp"]) >= "2026-03-03"


@pytest.mark.parametrize("sql", HONEST.values(), ids=HONEST)
def test_an_honest_view_passes(at_once: Churn, sql: str):
    assert tried(at_once, sql) is None


def test_lint_with_data_names_feature_row_and_both_values(at_once: Churn):
    at_once.write_sql(LOOKING_AHEAD["the own label"])
    assert at_once.lint() == []
    (fault,) = at_once.lint(data=True)
    assert re.match(
        r"usage\.sql: view 'usage': it looks ahead: f of customer_id \d+ at 2026-03-03 .* is [01], but [01] when the "
        r"label of 2026-03-03 .* is another",
        fault,
    )


def test_a_view_may_say_that_it_is_meant_as_of_the_end_of_the_day(at_once: Churn):
    at_once.write_sql(LOOKING_AHEAD["a join on the day"])
    view, days = at_once.view, 3
    found = find_look_ahead(at_once.spec, view, at_once.rows("events", days=days), None, NEWEST)
    assert found is not None
    assert (found.feature, found.value, found.other) == ("f", 5, 1)
    allowed = view.model_copy(update={"as_of": "end_of_day"})
    assert find_look_ahead(at_once.spec, allowed, at_once.rows("events", days=days), None, NEWEST) is None


def test_a_zero_label_that_is_added_up_is_found_too(at_once: Churn):
    at_once.write_sql(HEAD + f"coalesce(sum(churned) over ({BY}), 0) as f from history")
    events, labels = at_once.rows("events"), at_once.rows("labels")
    none = labels.set_column(1, "churned", pa.array([0] * len(labels)))
    assert find_look_ahead(at_once.spec, at_once.view, events, none, DAY) is not None


def test_rows_of_one_instant_stay_together_whatever_order_sql_takes_them_in(at_once: Churn):
    rows = delivery(NEWEST, rows=400)
    start = datetime(NEWEST.year, NEWEST.month, NEWEST.day)
    times = pa.array([start + timedelta(seconds=60 * (n // 40)) for n in range(400)])
    events = rows.set_column(1, "seen_at", times).append_column("known_at", pa.array([start] * 400)).drop("churned")
    for sql in (USAGE, HEAD + "lag(minutes) over (order by seen_at) as f from events"):
        at_once.write_sql(sql)
        assert find_look_ahead(at_once.spec, at_once.view, events, None, NEWEST) is None


def test_the_features_step_refuses_a_view_that_looks_ahead_on_its_first_day_and_publishes_nothing(tmp_path: Path):
    churn = Churn.make(tmp_path, LOOKING_AHEAD["the own label in a frame"], label__delay_days=0)
    churn.ingest(delivery())
    with pytest.raises(SpecError, match=r"looks ahead: f of customer_id \d+ at .* is \d+, but (\d+|NULL) when"):
        churn.step("features")
    assert churn.table.ledger(churn.store).get(DAY) is None


def test_a_definition_is_tried_on_its_first_day_and_weekly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from windsock.features import definition_checks

    tried: list[date] = []
    monkeypatch.setattr(definition_checks, "find_look_ahead", lambda *given: tried.append(given[-1]))
    churn = Churn.make(tmp_path, features__views=[{"name": "usage", "sql": "usage.sql", "lookback_days": 0}])
    churn.write_sql(USAGE.replace("customer_id, seen_at", "seen_at"))
    for n in range(9):
        churn.ingest(delivery(DAY + timedelta(days=n), rows=8), DAY + timedelta(days=n))
        churn.step("features", DAY + timedelta(days=n))
    weekly = [DAY + timedelta(days=n) for n in range(1, 9) if (DAY + timedelta(days=n)).toordinal() % 7 == 0]
    assert tried == [DAY, *weekly]


def test_a_definition_that_version_0_1_computed_is_only_warned_about(tmp_path: Path):
    churn = Churn.make(tmp_path, LOOKING_AHEAD["the own label in a frame"], label__delay_days=0)
    churn.ingest(delivery())
    churn.leave_features_of_0_1([DAY])

    second = DAY + timedelta(days=1)
    churn.ingest(delivery(second), second)
    (warning,) = churn.step("features", second)["warnings"]
    assert "looks ahead" in warning
    assert "It goes on for what uses it; nothing new is trained on it." in warning

    churn.write_sql(LOOKING_AHEAD["lead"])  # an edit is another definition
    third = second + timedelta(days=1)
    churn.ingest(delivery(third), third)
    with pytest.raises(SpecError, match="looks ahead"):
        churn.step("features", third)


REFERENCE = REPO_ROOT / "include" / "models" / "fraud"


def payments(*times: str) -> tuple[pa.Table, pa.Table]:
    """Return events and labels of one customer at one terminal, at ``HH:MM:SS`` of the 9th of March."""
    at = pa.array([datetime.fromisoformat(f"2026-03-09 {time}") for time in times], pa.timestamp("us"))
    ids = pa.array(range(len(times)))
    one = pa.array([1] * len(times))
    events = {"TRANSACTION_ID": ids, "TX_DATETIME": at, "CUSTOMER_ID": one, "TERMINAL_ID": one}
    amounts = {"TX_AMOUNT": pa.array([10.0 * (n + 1) for n in range(len(times))]), "known_at": at}
    labels = {"TRANSACTION_ID": ids, "TX_FRAUD": one, "event_time": at, "known_at": at}
    return pa.table({**events, **amounts}), pa.table(labels)


def test_the_reference_views_count_nothing_that_came_later_within_the_same_second(tmp_path: Path):
    spec = load_spec(REFERENCE / "model.yaml")
    spending = spec.features.views[0]
    events, labels = payments("10:00:01.7", "10:00:02.4")
    day = date(2026, 3, 9)

    rows = compute_view(spec, spending, events, labels, day)
    assert rows["CUSTOMER_ID_NB_TX_1DAY_WINDOW"].to_pylist() == [1, 2]
    assert find_look_ahead(spec, spending, events, labels, day) is None

    shutil.copytree(REFERENCE, tmp_path / "fraud")
    text = (REFERENCE / spending.sql).read_text()
    seconds = text.replace("epoch_us(TX_DATETIME)", "epoch(TX_DATETIME)::bigint").replace(
        "999999 preceding", " preceding"
    )
    (tmp_path / "fraud" / spending.sql).write_text(seconds)
    found = find_look_ahead(load_spec(tmp_path / "fraud" / "model.yaml"), spending, events, labels, day)
    assert found is not None
    assert (found.feature, found.value, found.other) == ("CUSTOMER_ID_NB_TX_1DAY_WINDOW", 2, 1)
    assert str(found).startswith(
        "it looks ahead: CUSTOMER_ID_NB_TX_1DAY_WINDOW of CUSTOMER_ID 1 at "
        "2026-03-09 10:00:01.700000 is 2, but 1 when what came after 2026-03-09 10:00:01.700000 is hidden."
    )
