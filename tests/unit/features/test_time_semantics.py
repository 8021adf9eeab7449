"""No look-ahead, any order, complete or not at all, and what a changed day makes stale."""

import hashlib
import random
from datetime import date, datetime, time, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from examples import examples
from feature_days import Payment, put_day, put_days
from feature_tables import feature_days, table_of
from small_model import features_of_views, small_fraud
from windsock.completeness import stale_days
from windsock.days import day_range, last_instant
from windsock.errors import NotReady
from windsock.features import step
from windsock.features.view_sql import compute_view
from windsock.ledger import DayRecord, Ledger
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.steps import StepContext
from windsock.store import Store

FIRST = date(2026, 3, 1)

PAYMENTS = st.lists(
    st.tuples(
        st.integers(0, 86_399),
        st.integers(0, 3),
        st.integers(0, 3),
        st.floats(0.01, 300).map(lambda x: round(x, 2)),
        st.sampled_from([0, 0, 0, 1, None]),
    ),
    min_size=1,
    max_size=12,
)


def compute(conf: Settings, spec: ModelSpec, day: date) -> dict:
    return step.run(StepContext(conf, spec, day.isoformat()))


def feature_bytes(conf: Settings, spec: ModelSpec) -> dict[str, list[str]]:
    store = Store.of(conf)
    return {
        f"{day}/{name}": [hashlib.sha256(store.read_bytes(f)).hexdigest() for f in output.files]
        for days in feature_days(conf, spec).values()
        for day, record in days.items()
        for name, output in record.outputs.items()
    }


def random_days(count: int, seed: int, per_day: int = 30) -> dict[date, list[Payment]]:
    dice = random.Random(seed)
    return {
        FIRST + timedelta(days=n): [
            (
                dice.randrange(86_400),
                dice.randrange(8),
                dice.randrange(8),
                round(dice.uniform(1, 300), 2),
                dice.choice([0, 0, 0, 1, None]),
            )
            for _ in range(per_day)
        ]
        for n in range(count)
    }


@examples(12, suppress=[HealthCheck.too_slow])
@given(later=st.lists(PAYMENTS, min_size=2, max_size=2), rewritten=PAYMENTS, seed=st.integers(0, 50))
def test_nothing_that_happens_after_a_day_changes_what_was_computed_for_it(
    tmp_path_factory, later: list[list[Payment]], rewritten: list[Payment], seed: int
):
    days = random_days(10, seed)
    target = max(days)
    conf, spec = small_fraud(tmp_path_factory.mktemp("home"))
    put_days(conf, spec, days)
    compute(conf, spec, target)
    before = feature_bytes(conf, spec)
    put_days(conf, spec, {target + timedelta(days=n): payments for n, payments in enumerate(later, 1)})
    compute(conf, spec, target)
    assert feature_bytes(conf, spec) == before

    # Labels that become known only after the day: flipping them changes nothing either.
    unknown_from = target - timedelta(days=spec.label.delay_days - 1)
    flipped = {
        day: [(*p[:4], None if p[4] is None else 1 - p[4]) for p in payments]
        for day, payments in days.items()
        if day >= unknown_from
    }
    put_days(conf, spec, flipped)
    compute(conf, spec, target)
    assert feature_bytes(conf, spec) == before


def test_days_in_any_order_give_the_bytes_of_days_in_sequence(tmp_path: Path):
    days = random_days(9, seed=1)
    stores = []
    for name, order in (("a", sorted(days)), ("b", random.Random(5).sample(sorted(days), len(days)))):
        conf, spec = small_fraud(tmp_path / name)
        waiting: list[date] = []
        for day in order:
            put_day(conf, spec, day, days[day])
            waiting.append(day)
            for waiter in list(waiting):
                try:
                    compute(conf, spec, waiter)
                    waiting.remove(waiter)
                except NotReady:
                    pass
        assert not waiting
        stores.append(feature_bytes(conf, spec))
    assert stores[0] == stores[1]
    assert len(stores[0]) == 18


def test_a_day_waits_until_its_lookback_is_settled_and_names_what_is_missing(tmp_path: Path):
    conf, spec = small_fraud(tmp_path)
    days = random_days(6, seed=2)
    put_days(conf, spec, {d: p for d, p in days.items() if d not in (date(2026, 3, 2), date(2026, 3, 3))})
    with pytest.raises(NotReady, match=r"2 of 6 .*2026-03-02\.\.2026-03-03.*backfill fraud_ingest"):
        compute(conf, spec, date(2026, 3, 6))


def test_a_rejected_day_does_not_block_the_days_after_it(tmp_path: Path):
    conf, spec = small_fraud(tmp_path)
    days = random_days(5, seed=3)
    put_days(conf, spec, {d: p for d, p in days.items() if d != date(2026, 3, 2)})
    Ledger.of(conf, "fraud", "ingest").publish(DayRecord("2026-03-02", "rejected", detail={"reasons": ["unreadable"]}))
    assert compute(conf, spec, date(2026, 3, 5))["status"] == "published"
    assert compute(conf, spec, date(2026, 3, 2))["status"] == "rejected"


def test_an_empty_day_has_no_features_and_hurts_nobody(tmp_path: Path):
    conf, spec = small_fraud(tmp_path)
    days = random_days(4, seed=4) | {FIRST + timedelta(days=1): []}
    put_days(conf, spec, days)
    assert compute(conf, spec, FIRST + timedelta(days=1))["status"] == "empty"
    assert compute(conf, spec, FIRST + timedelta(days=3))["status"] == "published"


def test_computing_a_day_again_changes_no_byte_and_makes_no_commit(tmp_path: Path):
    conf, spec = small_fraud(tmp_path)
    put_days(conf, spec, random_days(5, seed=6))
    day = FIRST + timedelta(days=4)
    assert compute(conf, spec, day)["changed"]
    before, records = feature_bytes(conf, spec), feature_days(conf, spec)
    assert not compute(conf, spec, day)["changed"]
    assert feature_bytes(conf, spec) == before
    assert feature_days(conf, spec) == records


def test_a_changed_day_makes_exactly_the_later_days_within_the_lookback_stale(tmp_path: Path):
    features = features_of_views(lookback_days=4)
    conf, spec = small_fraud(tmp_path, features=features)
    reach = spec.features.lookback_days
    days = random_days(reach + 5, seed=7, per_day=6)
    put_days(conf, spec, days)
    for day in days:
        compute(conf, spec, day)
    changed = FIRST + timedelta(days=2)
    put_day(conf, spec, changed, [*days[changed], (5, 1, 1, 999.0, 0)])
    expected = day_range(changed + timedelta(days=1), changed + timedelta(days=reach))
    assert stale_days(conf, spec, changed) == expected
    for day in [changed, *expected]:
        compute(conf, spec, day)
    assert stale_days(conf, spec, changed) == []

    fresh, _ = small_fraud(tmp_path / "fresh", features=features)
    put_days(fresh, spec, {**days, changed: [*days[changed], (5, 1, 1, 999.0, 0)]})
    for day in days:
        compute(fresh, spec, day)
    assert feature_bytes(conf, spec) == feature_bytes(fresh, spec)


def test_the_same_content_again_makes_nothing_stale(tmp_path: Path):
    conf, spec = small_fraud(tmp_path)
    days = random_days(5, seed=8)
    put_days(conf, spec, days)
    for day in days:
        compute(conf, spec, day)
    put_day(conf, spec, FIRST, days[FIRST])
    assert stale_days(conf, spec, FIRST) == []


def test_days_whose_lookback_reaches_before_the_first_day_are_marked(tmp_path: Path):
    conf, spec = small_fraud(tmp_path, features=features_of_views(lookback_days=5))
    put_days(conf, spec, random_days(6, seed=9, per_day=2))
    assert not compute(conf, spec, FIRST + timedelta(days=4))["warm"]
    assert compute(conf, spec, FIRST + timedelta(days=5))["warm"]


@pytest.mark.parametrize(("late", "seen"), [(timedelta(0), True), (timedelta(microseconds=1), False)])
def test_a_label_is_seen_from_the_day_on_by_whose_end_it_is_known(tmp_path: Path, late: timedelta, seen: bool):
    _, spec = small_fraud(tmp_path)
    view = next(view for view in spec.features.views if view.name == "terminal_risk")
    day = FIRST + timedelta(days=9)
    times = [datetime.combine(d, time(12)) for d in (FIRST, day)]
    ids = {name: [1, 2] for name in ("TRANSACTION_ID", "CUSTOMER_ID")}
    events = pa.table({**ids, "TX_DATETIME": times, "TERMINAL_ID": [7, 7], "TX_AMOUNT": [1.0, 1.0], "known_at": times})
    known_at = [last_instant(day) + late]
    labels = pa.table({"TRANSACTION_ID": [1], "TX_FRAUD": [1], "event_time": times[:1], "known_at": known_at})

    (row,) = compute_view(spec, view, events, labels, day).to_pylist()

    assert (row["TERMINAL_ID_RISK_30DAY_WINDOW"] == 1) == seen


def test_a_missing_label_is_unknown_and_not_honest(tmp_path: Path):
    conf, spec = small_fraud(tmp_path)
    put_day(conf, spec, FIRST, [(10, 1, 1, 5.0, 1), (20, 1, 1, 5.0, None)])
    for n in range(1, 9):
        put_day(conf, spec, FIRST + timedelta(days=n), [(43_200, 1, 1, 5.0, 0)])
    compute(conf, spec, FIRST + timedelta(days=7))
    table = table_of(spec, "terminal_risk")
    row = table.read(Store.of(conf), [feature_days(conf, spec)[table.name][FIRST + timedelta(days=7)]]).to_pylist()[0]
    assert row["TERMINAL_ID_NB_TX_1DAY_WINDOW"] == 2
    assert row["TERMINAL_ID_RISK_1DAY_WINDOW"] == 1.0
