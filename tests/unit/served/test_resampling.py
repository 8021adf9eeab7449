import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windsock.served import metrics
from windsock.served.resampling import ClusteredRows, weighted_metric

BINARY = ("average_precision", "roc_auc", "log_loss")
REGRESSION = ("mean_absolute_error", "root_mean_squared_error", "r2")


def rows_of(seed: int, n: int = 300, *, binary: bool = True) -> tuple[ClusteredRows, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.2).astype(float) if binary else rng.normal(10, 3, n)
    if binary:
        label[:2] = 0, 1
    score = np.clip(np.round(0.3 * label + 0.5 * rng.random(n), 2), 0.01, 0.99)  # rounded: many ties
    entity = np.unique(rng.integers(0, 40, n), return_inverse=True)[1]
    day = np.sort(rng.integers(0, 5, n))
    return ClusteredRows(label, day, entity, entity, "entity"), score


@pytest.mark.parametrize("name", BINARY)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_with_weights_one_every_binary_metric_is_the_protocols_own(name: str, seed: int) -> None:
    rows, score = rows_of(seed)

    value = weighted_metric(name, rows, score)(np.ones((1, rows.rows)))[0]

    assert value == pytest.approx(metrics.measure(name, rows.label, score), rel=1e-9)


@pytest.mark.parametrize("name", REGRESSION)
def test_with_weights_one_every_regression_metric_is_the_protocols_own(name: str) -> None:
    rows, score = rows_of(3, binary=False)

    value = weighted_metric(name, rows, score)(np.ones((1, rows.rows)))[0]

    assert value == pytest.approx(metrics.measure(name, rows.label, score), rel=1e-9)


@given(seed=st.integers(0, 10_000), k=st.sampled_from([1, 3, 10, 100]))
@settings(max_examples=40, deadline=None)
def test_with_weights_one_precision_at_k_is_the_protocols_own(seed: int, k: int) -> None:
    rows, score = rows_of(seed)

    value = weighted_metric("precision_at_k", rows, score, k=k)(np.ones((1, rows.rows)))[0]

    assert value == pytest.approx(metrics.precision_at_k(rows.label, score, rows.day, rows.entity, k=k), rel=1e-9)


@pytest.mark.parametrize("name", ["average_precision", "roc_auc", "log_loss", "mean_absolute_error"])
def test_a_whole_weight_counts_a_row_that_many_times(name: str) -> None:
    rows, score = rows_of(5)
    times = np.random.default_rng(1).integers(0, 4, rows.rows)
    times[:2] = 1

    weighted = weighted_metric(name, rows, score)(times[None, :].astype(float))[0]
    repeated = metrics.measure(name, np.repeat(rows.label, times), np.repeat(score, times))

    assert weighted == pytest.approx(repeated, rel=1e-9)


def test_many_weightings_at_once_give_the_same_as_one_by_one() -> None:
    rows, score = rows_of(9)
    weights = np.random.default_rng(2).standard_exponential((7, rows.rows))
    for name in (*BINARY, "precision_at_k"):
        value = weighted_metric(name, rows, score, k=5)

        together, alone = value(weights), [value(w[None, :])[0] for w in weights]

        np.testing.assert_allclose(together, alone, rtol=1e-12)
