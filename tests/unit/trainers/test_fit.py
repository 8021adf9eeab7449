from datetime import date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from fitted import fit
from training_world import TRAINING, world_spec
from windsock.days import day_range
from windsock.errors import DataContractError, SpecError

DAYS = day_range(date(2026, 3, 4), date(2026, 3, 10))
FEATURES = ["TX_AMOUNT", "TX_DURING_NIGHT"]


def rows(days, seed=0, per_day=120):
    rng = np.random.default_rng(seed)
    n = len(days) * per_day
    times = [
        datetime.combine(days[i // per_day], datetime.min.time()) + timedelta(minutes=i % per_day) for i in range(n)
    ]
    amount = rng.exponential(60, n)
    return pa.table(
        {
            "TRANSACTION_ID": np.arange(n),
            "event_timestamp": pa.array(times, pa.timestamp("us")),
            "CUSTOMER_ID": rng.integers(0, 50, n),
            "TX_AMOUNT": amount,
            "TX_DURING_NIGHT": rng.integers(0, 2, n),
            "TX_FRAUD": (amount + rng.normal(0, 20, n) > 150).astype(np.int64),
        }
    )


@pytest.fixture
def request_for(tmp_path):
    def make(**training):
        _, spec = world_spec(tmp_path, training={**TRAINING, **training})
        return {
            "spec": spec.model_dump(mode="json"),
            "features": FEATURES,
            "train_days": [d.isoformat() for d in DAYS],
            "gap_days": 2,
        }

    return make


TRAIN, LATER = rows(DAYS), rows([date(2026, 3, 13), date(2026, 3, 14)], seed=1)


def test_learns_what_can_be_learnt_and_says_how(request_for):
    fitted = fit(request_for(), TRAIN, LATER)

    assert fitted.metrics["metrics"]["average_precision"] > 0.8
    assert fitted.metrics["importance"]["TX_AMOUNT"] > 0.9
    assert fitted.metrics["holdout"]["rows"] == LATER.num_rows
    assert len(fitted.metrics["trials"]) == 3
    assert fitted.metrics["trials"][0]["params"] == {}  # the spec's own parameters come first
    assert [f["gap_days"] for f in fitted.metrics["folds"]] == [1, 2]
    assert fitted.holdout_scores["score"].to_pylist() == fitted.model.predict(LATER).tolist()


def test_equal_input_gives_equal_bytes(request_for, monkeypatch):
    first = fit(request_for(), TRAIN, LATER)
    monkeypatch.setenv("WINDSOCK_THREADS", "1")
    second = fit(request_for(), TRAIN, LATER)

    assert first.model.content == second.model.content
    assert first.metrics == second.metrics
    assert first.reference.equals(second.reference)


def test_the_order_of_row_features_survives_sorted_json(request_for):
    request = request_for()
    request["spec"]["features"]["row"] = dict(reversed(request["spec"]["features"]["row"].items()))

    assert fit(request, TRAIN, LATER).model.feature_names == tuple(FEATURES)


def test_the_reference_holds_rows_of_both_parts_in_their_order(request_for):
    reference = fit(request_for(), TRAIN, LATER).reference

    assert reference.column_names == ["event_timestamp", *FEATURES, "score", "part", "__cluster"]
    assert reference["part"].unique().to_pylist() == ["train", "holdout"]
    times = reference["event_timestamp"].to_pylist()
    assert times == sorted(times)


def test_found_parameters_replace_the_specs_own_only_if_they_win_most_folds(request_for):
    for seed in range(3):
        metrics = fit(request_for(seed=seed), TRAIN, LATER).metrics
        own, chosen = metrics["trials"][0], metrics["trials"][metrics["chosen"]["trial"]]
        if chosen is not own:
            wins = sum(a > b for a, b in zip(chosen["folds"], own["folds"], strict=True))
            assert chosen["score"] > own["score"]
            assert 2 * wins > len(own["folds"])


def test_one_class_is_refused(request_for):
    honest = TRAIN.set_column(5, "TX_FRAUD", [[0] * TRAIN.num_rows])

    with pytest.raises(DataContractError, match="needs rows of both classes"):
        fit(request_for(), honest, LATER)


def test_a_holdout_without_positives_gives_no_number_that_looks_fine(request_for):
    honest = LATER.set_column(5, "TX_FRAUD", [[0] * LATER.num_rows])

    assert fit(request_for(), TRAIN, honest).metrics["metrics"]["average_precision"] is None


def test_a_window_without_folds_uses_the_specs_own_parameters(request_for):
    first_day = TRAIN.slice(0, 120)
    request = request_for() | {"train_days": [DAYS[0].isoformat()]}

    metrics = fit(request, first_day, LATER).metrics

    assert metrics["trials"] == []
    assert metrics["chosen"]["rounds"] == 20
    assert "no usable fold" in metrics["chosen"]["note"]


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({"n_estimators": 10}, "training.estimator.rounds"),
        ({"seed": 1}, "training.seed"),
        ({"boosting": "nonsense"}, "LightGBM refuses"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_with_their_place(request_for, params, names):
    with pytest.raises(SpecError, match=names):
        fit(request_for(estimator={**TRAINING["estimator"], "params": params}), TRAIN, LATER)


def test_a_regression_is_trained_and_judged_the_same_way(tmp_path):
    label = {"column": "TX_FRAUD", "task": "regression", "delay_days": 2}
    training = {**TRAINING, "metric": "mean_absolute_error", "evaluation": {}}
    gate = {"floors": {"mean_absolute_error": 1}}
    _, spec = world_spec(tmp_path, label=label, training=training, gate=gate)
    train, later = (
        t.set_column(5, "TX_FRAUD", pa.array(t["TX_AMOUNT"].to_numpy() * 2 + 1, pa.float64())) for t in (TRAIN, LATER)
    )
    days = [d.isoformat() for d in DAYS]

    fitted = fit(
        {"spec": spec.model_dump(mode="json"), "features": FEATURES, "train_days": days, "gap_days": 2}, train, later
    )

    spread = float(np.abs(later["TX_FRAUD"].to_numpy() - later["TX_FRAUD"].to_numpy().mean()).mean())
    assert fitted.metrics["metrics"]["mean_absolute_error"] < 0.5 * spread
    assert fitted.metrics["train"]["positives"] is None
