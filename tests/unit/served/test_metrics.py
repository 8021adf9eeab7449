import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from small_model import small_fraud
from windsock.errors import DataContractError
from windsock.served import metrics as m

scored = st.integers(2, 60).flatmap(
    lambda n: st.tuples(
        st.lists(st.sampled_from([0.0, 1.0]), min_size=n, max_size=n),
        st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), min_size=n, max_size=n),
    )
)


@settings(max_examples=80, deadline=None)
@given(scored)
def test_binary_metrics_are_what_their_definitions_say_also_with_ties(rows):
    y, p = np.array(rows[0]), np.array(rows[1])
    if y.any():
        steps = [(y[p >= t].mean(), y[p == t].sum() / y.sum()) for t in np.unique(p)]
        assert m.measure("average_precision", y, p) == pytest.approx(sum(a * b for a, b in steps), rel=1e-12)
    if y.any() and not y.all():
        pairs = p[y == 1][:, None] - p[y == 0]
        assert m.measure("roc_auc", y, p) == pytest.approx(
            np.mean((pairs > 0) + 0.5 * (pairs == 0)), rel=1e-12, abs=1e-12
        )
    clipped = np.clip(p, 1e-15, 1 - 1e-15)
    assert m.measure("log_loss", y, p) == pytest.approx(
        -np.log(np.where(y == 1, clipped, 1 - clipped)).mean(), rel=1e-12
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=2, max_size=30))
def test_regression_metrics_are_what_their_definitions_say(rows):
    y, p = np.array(rows).T
    assert m.measure("mean_absolute_error", y, p) == pytest.approx(np.abs(y - p).mean())
    assert m.measure("root_mean_squared_error", y, p) == pytest.approx(np.sqrt(((y - p) ** 2).mean()))
    if np.ptp(y) > 1e-3:
        assert m.measure("r2", y, p) == pytest.approx(
            1 - ((y - p) ** 2).sum() / ((y - y.mean()) ** 2).sum(), rel=1e-9, abs=1e-9
        )


def handbook_card_precision(frame: pd.DataFrame, k: int) -> float:
    """The handbook's card precision top-k, written out with pandas."""
    found, shares = set(), []
    for _, day in frame.groupby("day"):
        cards = day[~day["card"].isin(found)].groupby("card")[["score", "fraud"]].max().reset_index()
        top = cards.sort_values(["score", "card"], ascending=[False, True]).head(k)
        shares.append(top["fraud"].mean())
        found |= set(top[top["fraud"] == 1]["card"])
    return float(np.mean(shares))


@pytest.mark.parametrize("seed", range(5))
def test_precision_at_k_is_the_handbooks_card_precision(seed):
    rng = np.random.default_rng(seed)
    n = 500
    frame = pd.DataFrame(
        {
            "day": rng.integers(0, 4, n),
            "card": rng.integers(0, 40, n),
            "score": rng.choice([0.1, 0.3, 0.31, 0.8], n),
            "fraud": (rng.random(n) < 0.1).astype(float),
        }
    )
    columns = [frame[c].to_numpy() for c in ("fraud", "score", "day", "card")]

    assert m.precision_at_k(*columns, k=7) == pytest.approx(handbook_card_precision(frame, 7))


def test_a_detected_card_is_taken_off_later_lists():
    y, p, days = np.array([1.0, 0, 1, 0]), np.array([0.9, 0.1, 0.9, 0.2]), np.array([1, 1, 2, 2])
    cards = np.array(["a", "b", "a", "c"])

    assert m.precision_at_k(y, p, days, cards, k=1) == 0.5  # day 1 finds a; on day 2 only c is left


def test_what_cannot_be_computed_is_none():
    none, some = np.zeros(3), np.array([0.1, 0.2, 0.3])

    assert m.measure("average_precision", none, some) is None
    assert m.measure("roc_auc", none, some) is None
    assert m.measure("log_loss", np.empty(0), np.empty(0)) is None
    assert m.precision_at_k(np.empty(0), np.empty(0), np.empty(0), None, k=3) is None
    assert m.measure("r2", np.ones(3), some) is None
    assert m.measure("r2", np.full(3, 0.1), some) is None  # whose mean is not quite 0.1
    assert m.measure("average_precision", np.empty(0), np.empty(0)) is None
    assert m.measure("roc_auc", np.ones(3), some) is None
    assert m.measure("roc_auc", np.empty(0), np.empty(0)) is None
    assert m.measure("root_mean_squared_error", np.empty(0), np.empty(0)) is None
    assert m.measure("mean_absolute_error", np.empty(0), np.empty(0)) is None


@pytest.fixture
def spec(tmp_path):
    return small_fraud(tmp_path)[1]


def frame(**columns):
    rows = len(next(iter(columns.values())))
    times = pa.array(np.array(["2026-03-01T10:00:00"] * rows, dtype="datetime64[us]"))
    return pa.table({"event_timestamp": times, "CUSTOMER_ID": list(range(rows)), **columns})


def test_unlabelled_rows_and_known_positives_are_left_out_and_counted(spec):
    judged = m.evaluate(
        spec,
        frame(TX_FRAUD=[1, 0, None, 1, 0], known_positive=[False, False, False, True, True]),
        np.array([0.9, 0.1, 0.99, 0.0, 0.95]),
    )

    assert (judged["rows"], judged["positives"], judged["unlabelled"], judged["known_positive"]) == (2, 1, 1, 2)
    assert judged["metrics"]["average_precision"] == 1.0
    assert judged["per_day"] == [{"ds": "2026-03-01", "rows": 2, "positives": 1, "average_precision": 1.0}]


def test_predictions_that_are_no_numbers_are_refused(spec):
    with pytest.raises(DataContractError, match="1 of 2 predictions are not finite"):
        m.evaluate(spec, frame(TX_FRAUD=[1, 0]), np.array([np.nan, 0.1]))


def test_no_rows_give_no_metrics_instead_of_an_error(spec):
    judged = m.evaluate(spec, frame(TX_FRAUD=[1, 0]).slice(0, 0), np.empty(0))

    assert judged["rows"] == 0
    assert set(judged["metrics"].values()) == {None}
