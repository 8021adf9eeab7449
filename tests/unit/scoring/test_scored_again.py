"""A champion is judged on days that it did not score: with the scores that it would have given, on no row it knows."""

from datetime import timedelta

import numpy as np
import pytest

from feature_days import put_day
from feature_tables import table_of
from training_world import AS_OF, HOLDOUT, payments
from windsock.days import day_range
from windsock.ledger import Ledger
from windsock.monitoring.performance import measure_performance
from windsock.monitoring.scored import Past, judged_from, scored_by
from windsock.promotions import Promotion, append, current
from windsock.steps import run_step
from windsock.store import Store
from windsock.tables import read
from windsock.version_index import version_info

LAST = AS_OF + timedelta(days=6)


@pytest.fixture
def replaced(scored_world):
    """Version 1 scored every day; version 2, trained as of the same day, is champion since yesterday."""
    settings, spec = scored_world
    for day in day_range(AS_OF + timedelta(days=1), LAST):
        put_day(settings, spec, day, payments(day))
        run_step("features", model="fraud", key=str(day), settings=settings)
    for day in day_range(AS_OF, LAST):
        run_step("score", model="fraud", key=str(day), settings=settings)
    run = version_info(settings, spec, "2").run
    entry = Promotion(0, "promote", "2", run, None, LAST, AS_OF, "test")
    return settings, spec, append(settings, spec, entry, after=current(settings, spec))


def test_its_scores_are_those_that_it_would_have_given_and_decide_where_they_say_enough(replaced):
    settings, spec, champion = replaced
    found = measure_performance(settings, spec, LAST, champion, np.random.default_rng(1)).performance
    assert (found["basis"], list(found["versions"])) == ("re-scored", ["1"])
    assert found["days"] == found["rescored"]["days"] == [str(d) for d in found["rescored"]["anew"]]
    assert found["value"] is not None
    assert found["production"]["days"] == [str(d) for d in day_range(AS_OF, LAST - timedelta(days=2))]
    past = Past.of(settings, spec, LAST)

    rows, anew = scored_by(past, champion)

    assert judged_from(Store.of(settings), spec, champion) == HOLDOUT[1] + timedelta(days=1)
    assert anew == day_range(HOLDOUT[1] + timedelta(days=1), past.matured), "none of its holdout, none before"
    day = anew[-1]
    run_step("score", model="fraud", key=str(day), settings=settings, options={"model_version": "2"})
    record = Ledger.of(settings, "fraud", "score").get(day)
    given = read(Store.of(settings), [record], "predictions").to_pandas().set_index("TRANSACTION_ID")["score"]
    again = rows.to_pandas()
    again = again[again["event_timestamp"].dt.date == day].set_index("TRANSACTION_ID")["score"]
    assert len(again) == len(given) > 100
    np.testing.assert_array_equal(again.sort_index(), given.sort_index())


def test_without_its_features_it_waits_and_the_rest_is_judged(replaced):
    settings, spec, champion = replaced
    ledger = table_of(spec, "customer_spending").ledger(Store.of(settings))
    ledger.void(AS_OF - timedelta(days=1), "test")

    judgement = measure_performance(settings, spec, LAST, champion, np.random.default_rng(1))

    assert judgement.performance["basis"] == "production"
    assert any("version 2 was not judged on days before it: " in remark for remark in judgement.remarks)
