from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from small_model import small_fraud
from windsock.dataset.time_split import time_folds, windows_of
from windsock.days import day_range
from windsock.errors import DataContractError


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    return small_fraud(tmp_path_factory.mktemp("m"), first_day="2018-04-01")[1]


def test_the_handbooks_protocol_follows_from_its_last_known_day(spec):
    windows = windows_of(spec, date(2018, 8, 21))

    assert (windows.train[0], windows.train[-1]) == (date(2018, 7, 25), date(2018, 7, 31))
    assert (windows.gap[0], windows.gap[-1]) == (date(2018, 8, 1), date(2018, 8, 7))
    assert (windows.holdout[0], windows.holdout[-1]) == (date(2018, 8, 8), date(2018, 8, 14))
    assert windows.days == day_range(date(2018, 7, 25), date(2018, 8, 14))


def test_warm_up_days_of_the_window_are_left_out(spec):
    # First warm day 2018-05-08; a window of 05-05..05-11 keeps its last four days.
    windows = windows_of(spec, date(2018, 6, 1))

    assert windows.train == tuple(day_range(date(2018, 5, 8), date(2018, 5, 11)))
    assert windows.warm_up == tuple(day_range(date(2018, 5, 5), date(2018, 5, 7)))


def test_too_little_history_says_what_is_needed_and_from_when_on(spec):
    with pytest.raises(DataContractError) as caught:
        windows_of(spec, date(2018, 5, 31))

    text = str(caught.value)
    assert "2018-05-04..2018-05-10" in text
    assert "2018-05-08 is the first day with whole features" in text
    assert "as of 2018-06-01 with 4 of them, as of 2018-06-04 with all" in text
    assert len(windows_of(spec, date(2018, 6, 1)).train) == 4
    assert len(windows_of(spec, date(2018, 6, 4)).train) == 7


def test_warm_up_days_are_used_if_the_spec_says_so(tmp_path):
    _, spec = small_fraud(tmp_path, first_day="2018-04-01")
    loose = spec.model_copy(update={"training": spec.training.model_copy(update={"include_warm_up": True})})

    assert windows_of(loose, date(2018, 4, 28)).train[0] == date(2018, 4, 1)
    with pytest.raises(DataContractError, match="data starts on 2018-04-01"):
        windows_of(loose, date(2018, 4, 20))


@examples(100)
@given(days=st.integers(1, 120), folds=st.integers(1, 6), gap=st.integers(0, 14))
def test_folds_learn_from_the_past_only_and_judge_each_day_once(days, folds, gap):
    window = day_range(date(2026, 1, 1), date(2026, 1, 1) + timedelta(days=days - 1))
    made = time_folds(window, folds=folds, gap_days=gap)

    assert bool(made) == (days > 1)
    judged = [d for f in made for d in f.judge]
    assert len(judged) == len(set(judged))
    assert not judged or judged[-1] == window[-1]
    for fold in made:
        assert fold.learn
        assert fold.judge[0] - fold.learn[-1] == timedelta(days=fold.gap_days + 1)
        assert set(fold.learn) | set(fold.judge) <= set(window)
        if days > (folds + 1) * 2 * (gap + 1):
            assert fold.gap_days == gap
