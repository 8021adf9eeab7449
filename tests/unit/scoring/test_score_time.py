"""Scores know nothing of what comes after their day, and do not depend on which older days came first."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_days import put_day
from training_world import AS_OF, payments, world_spec
from whole_chain import published
from windsock.errors import NotReady
from windsock.steps import run_step
from windsock.store import Store

DAY = AS_OF
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


def forget(conf, stage, day):
    """Remove a day's record, so that it is computed and not only found to be there."""
    Path(Store.of(conf).path("fraud", "ledger", stage, f"{day}.json")).unlink(missing_ok=True)


def score(conf, day=DAY):
    for stage in ("features", "score"):
        forget(conf, stage, day)
        run_step(stage, model="fraud", key=str(day), settings=conf)
    return {stage: published(conf, stage)[str(day)] for stage in ("features", "score")}


@pytest.fixture(scope="module")
def known(trained, tmp_path_factory):
    """What is computed for the day when it is the last there is."""
    home = tmp_path_factory.mktemp("known")
    shutil.copytree(trained, home, dirs_exist_ok=True)
    return score(world_spec(home)[0])


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(later=st.lists(PAYMENTS, min_size=1, max_size=3), flip=st.booleans())
def test_what_happens_or_is_learnt_after_a_day_changes_neither_its_features_nor_its_scores(
    trained, known, tmp_path_factory, later, flip
):
    home = tmp_path_factory.mktemp("later")
    shutil.copytree(trained, home, dirs_exist_ok=True)
    conf, spec = world_spec(home)
    following = [DAY + timedelta(days=n + 1) for n in range(len(later))]
    for day, rows in zip(following, later, strict=True):
        put_day(conf, spec, day, rows)
    for day in following:
        score(conf, day)
    unlearnt = [DAY - timedelta(days=n) for n in range(spec.label.delay_days)] if flip else []
    for day in unlearnt:
        put_day(conf, spec, day, [(*p[:4], None if p[4] is None else 1 - p[4]) for p in payments(day)])

    now = score(conf)

    assert [files for *_, files in now.values()] == [files for *_, files in known.values()]
    if not flip:  # else the record names its inputs by their contents, which are others
        assert now == known


LARGE_PAYMENTS = """
select CUSTOMER_ID, TX_DATETIME as event_timestamp, TX_AMOUNT as LAST_LARGE_AMOUNT from history where TX_AMOUNT > 100
"""


def test_rows_that_take_features_from_older_days_wait_until_those_are_computed(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (tmp_path / "models" / "fraud" / "large_payments.sql").write_text(LARGE_PAYMENTS)
    features = world_spec(tmp_path)[1].features.model_dump(mode="json")
    view = {"name": "large_payments", "entity": "customer", "sql": "large_payments.sql", "lookback_days": 0}
    conf, _ = world_spec(tmp_path, features={**features, "views": [*features["views"], {**view, "ttl_days": 2}]})
    for day in (DAY - timedelta(days=n) for n in (2, 0)):
        run_step("features", model="fraud", key=str(day), settings=conf)
    missing = DAY - timedelta(days=1)
    forget(conf, "features", missing)

    with pytest.raises(NotReady, match=f"features of 1 of 11 needed days is still missing: {missing}"):
        run_step("score", model="fraud", key=str(DAY), settings=conf)

    run_step("features", model="fraud", key=str(missing), settings=conf)
    assert run_step("score", model="fraud", key=str(DAY), settings=conf)["status"] == "published"
