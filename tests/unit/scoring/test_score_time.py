"""Scores know nothing of what comes after their day, and do not depend on the order in which days were run.

The world's feature SQL takes every label that it is offered, also of the event itself: that only known labels are
offered is not left to SQL.
"""

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from examples import examples
from feature_days import put_day
from training_world import AS_OF, FIRST, world_spec
from whole_chain import published, put_in_force
from windsock.days import day_range
from windsock.errors import NotReady
from windsock.features.frozen import definitions_of
from windsock.steps import run_step
from windsock.store import Store
from windsock.version_index import record_version, version_info

DAY = AS_OF
NAIVE_RISK = """
select TERMINAL_ID, TX_DATETIME as event_timestamp, coalesce(avg(TX_FRAUD) over before, 0) as RISK
from history window before as (partition by TERMINAL_ID order by TX_DATETIME)
"""
LARGE_PAYMENTS = """
select CUSTOMER_ID, TX_DATETIME as event_timestamp, TX_AMOUNT as LAST_LARGE_AMOUNT from history where TX_AMOUNT > 100
"""
VIEWS = {
    "risk": {"entity": "terminal", "sql": "naive_risk.sql", "lookback_days": 3, "ttl_days": 10},
    "large_payments": {"entity": "customer", "sql": "large_payments.sql", "lookback_days": 0, "ttl_days": 2},
}
PAYMENTS = st.lists(
    st.tuples(
        st.integers(0, 86_399),
        st.integers(0, 60),
        st.integers(0, 30),
        st.integers(1, 30_000).map(lambda cents: cents / 100),
        st.sampled_from([0, 0, 1, None]),
    ),
    min_size=1,
    max_size=40,
)


def payments(day):
    """A day on which most payments at the first five terminals are frauds."""
    rng = np.random.default_rng(day.toordinal())
    seconds, customers, terminals = (rng.integers(0, n, 150) for n in (86400, 60, 30))
    frauds = rng.random(150) < np.where(terminals < 5, 0.8, 0.02)
    amounts = rng.exponential(60, 150).round(2) + 0.01
    return list(zip(*(v.tolist() for v in (seconds, customers, terminals, amounts, frauds.astype(int))), strict=True))


def flipped(day):
    return [(*payment[:4], 1 - payment[4]) for payment in payments(day)]


def copy_of(home, target, views=("risk",)):
    if home is not None:
        shutil.copytree(home, target, dirs_exist_ok=True)
    folder = target / "models" / "fraud"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "naive_risk.sql").write_text(NAIVE_RISK)
    (folder / "large_payments.sql").write_text(LARGE_PAYMENTS)
    row = {"TX_AMOUNT": "TX_AMOUNT", "TX_DURING_NIGHT": "(hour(TX_DATETIME) <= 6)::integer"}
    return world_spec(target, features={"row": row, "views": [{"name": name, **VIEWS[name]} for name in views]})


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A world whose champion goes by the known risk of a terminal."""
    home = tmp_path_factory.mktemp("watched")
    conf, spec = copy_of(None, home)
    for day in day_range(FIRST, DAY):
        put_day(conf, spec, day, payments(day))
        run_step("features", model="fraud", key=str(day), settings=conf)
    run = run_step("assemble", model="fraud", settings=conf)["run"]
    run_step("fit", model="fraud", settings=conf, options={"run": run})
    run_step("choose", model="fraud", settings=conf, options={"run": run})
    put_in_force(conf, spec, "1", run, FIRST, AS_OF)
    return home


def compute(conf, day=DAY):
    """Compute a day's features and scores anew, whatever is there, and return them."""
    forget(conf, day, "features", "score")
    for stage in ("features", "score"):
        run_step(stage, model="fraud", key=str(day), settings=conf)
    return {stage: published(conf, stage)[str(day)] for stage in ("features", "score")}


def forget(conf, day, *stages):
    """Remove a day's records of some stages, of every table of features for ``features``."""
    for stage in stages:
        for record in Path(Store.of(conf).path("fraud", "ledger", stage)).glob(f"**/{day}.json"):
            record.unlink()


def files_of(computed):
    return {stage: files for stage, (_, _, files) in computed.items()}


@pytest.fixture(scope="module")
def known(watched, tmp_path_factory):
    """What is computed for the day when it is the last there is."""
    return compute(copy_of(watched, tmp_path_factory.mktemp("known"))[0])


@examples(4, suppress=[HealthCheck.too_slow])
@given(later=st.lists(PAYMENTS, min_size=1, max_size=2))
def test_what_happens_or_is_learnt_after_a_day_changes_neither_its_features_nor_its_scores(
    watched, known, tmp_path_factory, later
):
    conf, spec = copy_of(watched, tmp_path_factory.mktemp("later"))
    following = [DAY + timedelta(days=n + 1) for n in range(len(later))]
    for day, rows in zip(following, later, strict=True):
        put_day(conf, spec, day, rows)
        compute(conf, day)
    assert compute(conf) == known

    for n in range(spec.label.delay_days):
        put_day(conf, spec, DAY - timedelta(days=n), flipped(DAY - timedelta(days=n)))
    assert files_of(compute(conf)) == files_of(known)


def test_what_is_learnt_by_the_end_of_the_day_does_count(watched, known, tmp_path):
    conf, spec = copy_of(watched, tmp_path)
    learnt = DAY - timedelta(days=spec.label.delay_days)
    put_day(conf, spec, learnt, flipped(learnt))

    now = compute(conf)

    assert all(files_of(now)[stage] != files_of(known)[stage] for stage in now)


def test_rows_that_take_features_from_older_days_wait_until_those_are_computed(watched, tmp_path):
    conf, spec = copy_of(watched, tmp_path, views=("risk", "large_payments"))
    record_version(conf, replace(version_info(conf, spec, "1"), definitions=definitions_of(spec)))
    missing = DAY - timedelta(days=1)
    for day in day_range(FIRST, DAY):
        run_step("features", model="fraud", key=str(day), settings=conf)
    forget(conf, missing, "features")

    with pytest.raises(NotReady, match=rf"features/\S+ of 1 of \d+ needed days is still missing: {missing}"):
        run_step("score", model="fraud", key=str(DAY), settings=conf)

    run_step("features", model="fraud", key=str(missing), settings=conf)
    assert run_step("score", model="fraud", key=str(DAY), settings=conf)["status"] == "published"
