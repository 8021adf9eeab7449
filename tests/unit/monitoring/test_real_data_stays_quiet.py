"""On real transactions from May to August nothing drifts; doubled amounts do."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from examples import thorough
from shared_data import shared_data
from windsock.features.frame import feature_names
from windsock.monitoring.drift import Drift, find_drift
from windsock.monitoring.window import Samples
from windsock.settings import REPO_ROOT
from windsock.spec import ModelSpec, load_spec

REFERENCE_END = date(2018, 7, 31)


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return load_spec(REPO_ROOT / "include" / "models" / "fraud" / "model.yaml")


@pytest.fixture(scope="module")
def features(spec: ModelSpec) -> pd.DataFrame:
    """Return every transaction with its features, by the model's own SQL."""
    import duckdb

    source = shared_data("fraud_handbook") / "transactions_2018-04-01_2018-08-14.parquet"
    with duckdb.connect() as db:
        db.execute("set threads = 2")
        db.execute(f"create table history as select * from '{source}'")
        row = ", ".join(f"({sql}) as {name}" for name, sql in spec.features.row.items() if name != "TX_AMOUNT")
        joins = "\n".join(
            f"asof join (select distinct * from ({spec.sql_of(view)})) {view.name} on "
            f"h.{spec.entities[str(view.entity)]} = {view.name}.{spec.entities[str(view.entity)]} "
            f"and h.TX_DATETIME >= {view.name}.event_timestamp"
            for view in spec.features.views
        )
        names = ", ".join(n for n in feature_names(spec) if n not in spec.features.row)
        frame = db.execute(
            f"select h.TX_DATETIME, h.TX_FRAUD, h.TX_AMOUNT, {row}, {names} from history h {joins} "
            "where h.TX_DATETIME >= '2018-05-07'"
        ).df()
    return frame


@pytest.fixture(scope="module")
def booster(spec: ModelSpec, features: pd.DataFrame) -> Any:
    """Train as the reference model is trained, with the label delay as the gap before the reference."""
    import lightgbm as lgb

    learn = week(features, REFERENCE_END - timedelta(weeks=2), rows=100_000)
    own = spec.training.estimator("lightgbm").params
    params = {**own, "objective": "binary", "num_threads": 1, "verbose": -1, "seed": 7}
    return lgb.train(params, lgb.Dataset(learn[feature_names(spec)], learn["TX_FRAUD"]), 60)


def week(features: pd.DataFrame, last: date, rows: int = 5000) -> pd.DataFrame:
    stop = pd.Timestamp(last) + pd.Timedelta(days=1)
    times = features["TX_DATETIME"]
    chosen = features[(times < stop) & (times >= stop - pd.Timedelta(days=7))]
    return chosen.sample(min(rows, len(chosen)), random_state=last.toordinal())


def compared(spec: ModelSpec, booster: Any, current: pd.DataFrame, reference: pd.DataFrame) -> Drift:
    names = feature_names(spec)
    sides = [side[names].assign(score=booster.predict(side[names])) for side in (current, reference)]
    rows = Samples(sides[0], sides[1], {}, (), (), {})
    return find_drift(spec, rows, np.random.default_rng(0))


@pytest.mark.parametrize("weeks", [2, -1, -2, -4, -6, -8, -10, -11] if thorough() else [2, -4, -11])
def test_no_week_from_may_to_august_looks_drifted(
    weeks: int, spec: ModelSpec, features: pd.DataFrame, booster: Any
) -> None:
    found = compared(
        spec, booster, week(features, REFERENCE_END + timedelta(weeks=weeks)), week(features, REFERENCE_END)
    )

    assert not found.drifted
    assert found.share == 0, {n: f for n, f in found.columns.items() if f["drifted"]}
    assert not found.prediction["drifted"]


def test_windows_that_roll_by_days_stay_quiet_too(spec: ModelSpec, features: pd.DataFrame, booster: Any) -> None:
    for day in range(1, 7, 2):
        found = compared(
            spec, booster, week(features, REFERENCE_END + timedelta(days=7 + day)), week(features, REFERENCE_END)
        )

        assert not found.drifted
        assert found.share == 0


def test_doubled_amounts_are_seen_on_the_first_day(spec: ModelSpec, features: pd.DataFrame, booster: Any) -> None:
    last = REFERENCE_END + timedelta(weeks=2)
    current = week(features, last).copy()
    doubled = current["TX_DATETIME"] >= pd.Timestamp(last)
    for name in ("TX_AMOUNT", "CUSTOMER_ID_AVG_AMOUNT_1DAY_WINDOW"):
        current.loc[doubled, name] *= 2

    found = compared(spec, booster, current, week(features, REFERENCE_END))

    assert found.columns["TX_AMOUNT"]["drifted"]
    assert found.drifted


def test_the_published_features_stay_quiet(spec: ModelSpec, booster: Any) -> None:
    name = "features_reference_2018-07-25_2018-08-14.parquet"
    published = pd.read_parquet(Path(shared_data("fraud_handbook")) / name)
    reference = week(published, REFERENCE_END)

    for weeks in (1, 2):
        found = compared(spec, booster, week(published, REFERENCE_END + timedelta(weeks=weeks)), reference)

        assert found.share == 0
        assert not found.drifted
