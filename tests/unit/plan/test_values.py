"""``windsock plan --values``: by how much an edit moves the values of features on a recent day."""

from datetime import timedelta
from pathlib import Path

import pytest

from churn_model import DAY, delivery
from edited_model import RISK, Edited, copied, make_checkout, plans_of
from windsock import tables
from windsock.ingest.records import NO_SOURCE
from windsock.ingest.step import with_known_at
from windsock.ledger import DayRecord, Ledger
from windsock.plan.change import Change, ModelPlan
from windsock.plan.compare import Looks
from windsock.plan.report import as_text
from windsock.store import Store


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Edited:
    """A model with rows in its last five days."""
    edited = make_checkout(tmp_path_factory.mktemp("checkout"))
    settings, spec = edited.settings, edited.spec
    store, ledger = Store.of(settings), Ledger.of(settings, "churn", "ingest")
    for n in range(15, 20):
        day = DAY + timedelta(days=n)
        rows = delivery(day)
        rows = rows.append_column("n", rows["customer_id"])
        labels = rows.select(["event_id", "churned"]).append_column("event_time", rows["seen_at"])
        wanted = {"events": with_known_at(spec, day, rows), "labels": labels}
        outputs = {name: tables.write_day(store, "churn", name, day, table) for name, table in wanted.items()}
        ledger.publish(DayRecord(str(day), "published", outputs, detail={"source": dict(NO_SOURCE)}))
    return edited


def plan_of(edited: Edited) -> ModelPlan:
    before = edited.snapshot()
    [plan] = plans_of(edited, looks=Looks(values=True))
    assert edited.snapshot() == before, "a plan wrote something"
    assert "values are those of 2026-03-20" in plan.notes
    return plan


def change_of(plan: ModelPlan, part: str) -> Change:
    return next(change for change in plan.changes if change.part == part)


def test_a_view_is_compared_feature_by_feature(checkout: Edited, tmp_path: Path):
    edited = copied(checkout, tmp_path)
    edited.rewrite("usage.sql", "avg(minutes)", "2 * avg(minutes)")
    plan = plan_of(edited)

    count, mean = change_of(plan, "view usage").values
    assert (count.feature, count.rows, count.differs) == ("n_1d", 200, 0)
    assert (mean.feature, mean.rows, mean.differs) == ("mean_1d", 200, 1)
    assert mean.before is not None
    assert mean.after == pytest.approx(2 * mean.before)
    assert "mean_1d  100.0 % of 200 rows differ, mean " in as_text([plan])
    assert "1 others: none of 200 rows differs" in as_text([plan])


def test_rows_that_differ_are_counted(checkout: Edited, tmp_path: Path):
    edited = copied(checkout, tmp_path)
    edited.rewrite("usage.sql", "count(*) over w", "if(customer_id < 10, 0, count(*) over w)")
    count, _ = change_of(plan_of(edited), "view usage").values
    assert count.differs == 0.25


def test_an_equal_meaning_in_other_words_differs_nowhere(checkout: Edited, tmp_path: Path):
    edited = copied(checkout, tmp_path)
    edited.rewrite("usage.sql", "avg(minutes) over w", "(avg(minutes) over w)")
    plan = plan_of(edited)
    assert [each.differs for each in change_of(plan, "view usage").values] == [0, 0]
    assert "2 features: none of 200 rows differs" in as_text([plan])


def test_a_new_feature_is_shown_by_itself(checkout: Edited, tmp_path: Path):
    edited = copied(checkout, tmp_path)
    edited.rewrite("usage.sql", " from events", ", min(minutes) over w as least from events")
    *_, least = change_of(plan_of(edited), "view usage").values
    assert (least.feature, least.rows, least.differs) == ("least", 200, None)
    assert least.after is not None


def test_a_row_feature_is_compared_by_event(checkout: Edited, tmp_path: Path):
    edited = copied(checkout, tmp_path)
    edited.set("features.row.calls", "if(n < 20, n, n + 1)")
    [calls] = change_of(plan_of(edited), "row feature calls").values
    assert (calls.feature, calls.rows, calls.differs) == ("calls", 200, 0.5)
    assert calls.after == pytest.approx((calls.before or 0) + 0.5)


def test_a_longer_delay_shows_whom_it_reaches(checkout: Edited, tmp_path: Path):
    edited = copied(checkout, tmp_path)
    edited.set("label.delay_days", 4)
    [risk] = change_of(plan_of(edited), "label.delay_days").values
    assert risk.feature == "risk"
    assert risk.differs is not None
    assert risk.differs > 0.5


def test_a_view_that_looks_ahead_is_refused(checkout: Edited, tmp_path: Path):
    edited = copied(checkout, tmp_path)
    edited.rewrite("usage.sql", "86399999999 preceding and current row", "current row and 40000000000 following")
    plan = plan_of(edited)
    assert plan.exit_code == 64
    assert "it looks ahead: " in plan.refused[0]


def test_a_column_that_days_lack_is_refused_until_the_spec_says_since_when(checkout: Edited, tmp_path: Path):
    edited = copied(checkout, tmp_path)
    edited.set("events.columns.mcc", "int64")
    edited.set("features.row.mcc", "mcc")
    plan = plan_of(edited)
    assert plan.exit_code == 64
    assert "the rows of 2026-03-16..2026-03-18 do not have it" in plan.refused[0]
    assert "say `since:` which day" in plan.refused[0]

    edited.set("events.columns.mcc", {"type": "int64", "since": "2026-03-21"})
    assert plan_of(edited).exit_code == 2


def test_a_store_without_rows_says_so(tmp_path: Path):
    edited = make_checkout(tmp_path)
    (edited.folder / "risk.sql").write_text(RISK.replace("avg", "max"))
    [plan] = plans_of(edited, looks=Looks(values=True))
    assert "no values are compared: no day with events is ingested" in plan.notes
