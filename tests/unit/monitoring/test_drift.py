"""Odd columns and tiny windows give a sentence and no crash; weekdays fool nobody."""

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from small_model import small_fraud
from windsock.monitoring.drift import Drift, find_drift
from windsock.monitoring.performance import relative_loss
from windsock.monitoring.window import Samples, _comparable, calendar_features, same_mix
from windsock.spec import ModelSpec

N = 1000


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    return small_fraud(tmp_path)[1]


def find(spec: ModelSpec, current: dict[str, Any], reference: dict[str, Any], **left_out: str) -> Drift:
    rng = np.random.default_rng(1)
    sides = [pd.DataFrame(s) for s in (current, reference)]
    for side in sides:
        if "score" not in side:
            side["score"] = rng.random(len(side))
    return find_drift(spec, Samples(sides[0], sides[1], left_out, (), (), {}), np.random.default_rng(0))


def normal(n: int = N, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, n)


def test_constant_columns_are_quiet_until_they_change(spec: ModelSpec) -> None:
    same = find(spec, {"a": np.ones(N)}, {"a": np.ones(N)})
    changed = find(spec, {"a": np.full(N, 2.0)}, {"a": np.ones(N)})

    assert (same.columns["a"]["value"], same.drifted) == (0.0, False)
    assert changed.columns["a"]["drifted"]


@pytest.mark.parametrize("empty", [np.full(N, np.nan), np.full(N, None), pd.Series([pd.NA] * N, dtype="Int64")])
def test_columns_without_values_are_told_and_not_compared(empty: Any, spec: ModelSpec) -> None:
    both = find(spec, {"a": empty, "b": normal()}, {"a": empty, "b": normal(seed=1)})
    gone = find(spec, {"a": empty, "b": normal()}, {"a": normal(), "b": normal(seed=1)})

    assert both.columns["a"]["value"] is None
    assert both.columns["a"]["missing"] == {"current": 1.0, "reference": 1.0}
    assert not both.columns["a"]["drifted"]
    assert "too few rows" in both.columns["a"]["why"]
    assert gone.columns["a"]["drifted"]
    assert gone.columns["a"]["why"] == "missing values went from 0% to 100%"


@pytest.mark.parametrize("rows", [0, 1, 2, 30, 99])
def test_tiny_windows_are_not_judged(rows: int, spec: ModelSpec) -> None:
    found = find(spec, {"a": normal(rows, shift=9)}, {"a": normal()})

    assert not found.judged
    assert not found.drifted
    assert "too few rows" in found.columns["a"]["why"]


def test_small_windows_do_not_take_chance_for_drift(spec: ModelSpec) -> None:
    rng = np.random.default_rng(5)
    sparse = np.where(rng.random(10_000) < 0.02, rng.random(10_000), 0.0)
    alarms = 0
    for seed in range(20):
        draw = np.random.default_rng(seed)
        now, then = draw.choice(sparse, 150), draw.choice(sparse, 3000)
        alarms += find(spec, {"a": now}, {"a": then}).columns["a"]["drifted"]

    assert alarms <= 2


def test_a_raised_threshold_is_explained(spec: ModelSpec) -> None:
    found = find(spec, {"a": normal(120)}, {"a": normal(120, seed=1)})

    assert found.columns["a"]["threshold"] > 0.1
    assert "chance alone" in found.columns["a"]["why"]


def test_infinite_values_count_as_missing(spec: ModelSpec) -> None:
    values = normal()
    values[:200] = np.inf
    found = find(spec, {"a": values}, {"a": normal(seed=1)})

    assert found.columns["a"]["missing"]["current"] == 0.2
    assert found.columns["a"]["drifted"]


def test_text_and_flags_are_categories(spec: ModelSpec) -> None:
    rng = np.random.default_rng(0)
    reference = {"t": rng.choice(["x", "y"], N), "f": rng.random(N) < 0.3, "n": rng.integers(0, 400, N).astype(str)}
    current = {"t": rng.choice(["x", "z"], N), "f": rng.random(N) < 0.3, "n": rng.integers(0, 400, N).astype(str)}
    found = find(spec, current, reference)

    assert {f["method"] for f in found.columns.values()} == {"jensenshannon"}
    assert [n for n, f in found.columns.items() if f["drifted"]] == ["t"]


def test_flags_compare_equal_however_they_are_stored(spec: ModelSpec) -> None:
    flags = np.random.default_rng(0).random(N) < 0.3
    found = find(spec, {"TX_DURING_NIGHT": flags.astype(float)}, {"TX_DURING_NIGHT": flags.astype("int64")})

    assert found.columns["TX_DURING_NIGHT"]["value"] == 0


def test_times_are_not_compared_and_say_so(spec: ModelSpec) -> None:
    times = pd.date_range("2026-03-01", periods=N, freq="h")

    assert "times" in find(spec, {"a": times}, {"a": times}).columns["a"]["why"]


@pytest.mark.parametrize("method", ["jensenshannon", "psi", "wasserstein"])
def test_every_method_is_quiet_on_equals_and_sees_a_shift(method: str, tmp_path: Path) -> None:
    _, spec = small_fraud(tmp_path, monitoring={"numeric_method": method})

    assert not find(spec, {"a": normal(5000)}, {"a": normal(5000, seed=1)}).drifted
    assert find(spec, {"a": normal(5000, shift=1)}, {"a": normal(5000)}).drifted


def test_one_drifted_feature_matters_only_if_it_moves_the_predictions(spec: ModelSpec) -> None:
    reference = {c: normal(seed=i) for i, c in enumerate("abcdefgh")}
    current = {c: normal(seed=10 + i, shift=2.0 * (c == "a")) for i, c in enumerate("abcdefgh")}

    alone = find(spec, current, reference)
    moving = find(spec, current | {"score": normal(shift=1)}, reference | {"score": normal(seed=1)})

    assert (alone.share, alone.drifted) == (0.125, False)
    assert moving.drifted


def test_columns_left_out_are_neither_judged_nor_counted(spec: ModelSpec) -> None:
    found = find(spec, {"a": normal(shift=5), "b": normal()}, {"a": normal(), "b": normal(seed=1)}, a="not today")

    assert found.columns["a"]["why"] == "not today"
    assert found.share == 0


def test_calendar_features_are_those_of_the_time_alone(spec: ModelSpec) -> None:
    assert calendar_features(spec) == ["TX_DURING_WEEKEND", "TX_DURING_NIGHT"]


def rows_of(days: list[date], per_day: int = 300) -> pa.Table:
    times = [datetime(d.year, d.month, d.day, 12) for d in days for _ in range(per_day)]
    weekend = [int(t.weekday() >= 5) for t in times]
    return pa.table({"event_timestamp": pa.array(times, pa.timestamp("us")), "TX_DURING_WEEKEND": weekend})


def days_from(start: date, n: int) -> list[date]:
    return [start + timedelta(days=i) for i in range(n)]


MONDAY = date(2026, 3, 2)


def test_part_of_a_week_is_compared_with_the_same_weekdays(spec: ModelSpec) -> None:
    window = days_from(MONDAY + timedelta(days=33), 3)  # Saturday to Monday
    current, reference, left_out, remarks = _comparable(
        spec, window, rows_of(window), rows_of(days_from(MONDAY, 7)), np.random.default_rng(0)
    )

    shares = [np.mean(t["TX_DURING_WEEKEND"].to_numpy()) for t in (current, reference)]
    assert shares[0] == pytest.approx(shares[1], abs=0.01)
    assert left_out == {}
    assert "not whole weeks" in remarks[0]


def test_weekdays_that_the_reference_lacks_are_left_out(spec: ModelSpec) -> None:
    window = days_from(MONDAY, 7)
    current, reference, _, remarks = _comparable(
        spec, window, rows_of(window), rows_of(days_from(MONDAY, 5)), np.random.default_rng(0)
    )

    assert sum(current["TX_DURING_WEEKEND"].to_pylist()) == 0
    assert sum(reference["TX_DURING_WEEKEND"].to_pylist()) == 0
    assert len(remarks) == 2


def test_without_days_in_the_reference_calendar_features_wait_for_whole_weeks(spec: ModelSpec) -> None:
    undated = rows_of(days_from(MONDAY, 7)).drop_columns(["event_timestamp"])
    part, week = days_from(MONDAY, 3), days_from(MONDAY, 7)

    *_, left_out, _ = _comparable(spec, part, rows_of(part), undated, np.random.default_rng(0))
    assert list(left_out) == ["TX_DURING_WEEKEND", "TX_DURING_NIGHT"]
    *_, left_out, _ = _comparable(spec, week, rows_of(week), undated, np.random.default_rng(0))
    assert left_out == {}


@examples(60)
@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=200),
    st.lists(st.integers(0, 6), min_size=1, max_size=200),
    st.integers(1, 300),
)
def test_same_mix_draws_each_row_once_and_follows_the_shares(now: list[int], then: list[int], size: int) -> None:
    a, b = np.array(now), np.array(then)
    drawn = same_mix(a, b, size, np.random.default_rng(0))

    assert len(set(drawn.tolist())) == len(drawn) <= size + 7
    common = set(now) & set(then)
    assert set(b[drawn].tolist()) <= common
    for weekday in common:
        share = np.mean(a[np.isin(a, list(common))] == weekday)
        assert abs(np.sum(b[drawn] == weekday) - share * len(drawn)) <= 4


def test_a_loss_is_relative_and_knows_which_way_is_worse() -> None:
    assert relative_loss("average_precision", 0.45, 0.6) == pytest.approx(0.25)
    assert relative_loss("mean_absolute_error", 75.0, 60.0) == pytest.approx(0.25)
    assert relative_loss("average_precision", 0.7, 0.6) < 0
