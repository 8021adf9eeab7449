"""Which lengths of a window there are, on what they are compared, and who gets which."""

from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from examples import examples
from small_model import small_fraud
from windsock.dataset.step import with_overrides
from windsock.dataset.time_split import folds_by_window, time_folds, windows_of
from windsock.days import day_range
from windsock.spec.modelling import TrainingSpec

LENGTHS = {"window_days": 21, "windows": [7, 14, 21], "metric": "average_precision"}
FIRST = date(2018, 4, 1)


@pytest.mark.parametrize("windows", [[14, 7, 21], [7, 7, 21], [7, 14], [7, 14, 28], [0, 21]])
def test_lengths_that_do_not_ascend_to_the_longest_are_refused(windows: list[int]) -> None:
    with pytest.raises(ValidationError, match=r"windows is|greater than 0"):
        TrainingSpec.model_validate({**LENGTHS, "windows": windows})


@examples(100)
@example(days=1, older=2, folds=2, gap=0, lengths={1})
@example(days=2, older=30, folds=4, gap=3, lengths={1, 7})
@given(
    days=st.integers(1, 60), older=st.integers(0, 60), folds=st.integers(1, 4), gap=st.integers(0, 14),
    lengths=st.sets(st.integers(1, 40), min_size=1, max_size=4),
)  # fmt: skip
def test_every_length_is_judged_on_the_same_days_and_learns_from_its_last_ones_before_the_gap(
    days: int, older: int, folds: int, gap: int, lengths: set[int]
) -> None:
    window = day_range(FIRST, FIRST + timedelta(days=days - 1))
    before = day_range(FIRST - timedelta(days=older), FIRST - timedelta(days=1))
    spec = TrainingSpec(
        window_days=max(lengths), windows=tuple(sorted(lengths)), folds=folds, metric="average_precision"
    )

    found = folds_by_window(window, before, spec, gap)

    assert set(found) == ({n for n in lengths if n <= days} or {days})
    assert len({tuple((f.judge, f.gap_days) for f in each) for each in found.values()}) == 1
    for length, each in found.items():
        for fold in each:
            assert set(fold.judge) <= set(window)
            assert fold.learn[-1] == fold.judge[0] - timedelta(days=fold.gap_days + 1)
            all_there = (fold.learn[-1] - min([*before[:1], *window])).days + 1
            assert len(fold.learn) == min(length, all_there)


def test_enough_older_days_are_read_that_each_fold_has_the_longest_window_whole(tmp_path: Any) -> None:
    _, spec = small_fraud(tmp_path, first_day="2018-04-01", training={**LENGTHS, "folds": 2})

    windows = windows_of(spec, date(2018, 8, 21))

    assert len(windows.train) == 21
    assert len(windows.older) == 7 + 2 * 7
    folds = folds_by_window(windows.train, windows.older, spec.training, spec.gap_days)
    assert {length: [len(f.learn) for f in each] for length, each in folds.items()} == {
        7: [7, 7],
        14: [14, 14],
        21: [21, 21],
    }
    assert {f.gap_days for each in folds.values() for f in each} == {7}
    assert windows.days[0] == windows.older[0]
    assert windows.known_since == windows.train[0]


def test_a_young_project_begins_as_early_as_its_shortest_window_lets_it(tmp_path: Any) -> None:
    short = small_fraud(tmp_path / "a", first_day="2018-04-01", training={**LENGTHS, "window_days": 7, "windows": []})[
        1
    ]
    several = small_fraud(tmp_path / "b", first_day="2018-04-01", training=LENGTHS)[1]

    for as_of in (date(2018, 6, 1), date(2018, 6, 4)):
        assert windows_of(several, as_of).train == windows_of(short, as_of).train
        assert windows_of(several, as_of).older == ()


def test_one_length_that_is_asked_for_is_taken_and_after_a_change_the_shortest(tmp_path: Any) -> None:
    _, spec = small_fraud(tmp_path, first_day="2018-04-01", training=LENGTHS)

    def asked(**options: Any) -> tuple[int, tuple[int, ...]]:
        training = with_overrides(spec, options).training
        return training.window_days, training.windows

    assert (
        asked() == asked(window_days=21) == asked(trigger="schedule") == (21, (7, 14, 21))
    )  # the form says the spec's
    assert asked(window_days=10) == (10, ())
    assert asked(trigger="drift", window_days=21) == asked(trigger="loss") == (7, ())


def test_without_lengths_folds_are_what_they_were() -> None:
    window = day_range(FIRST, FIRST + timedelta(days=20))

    assert [(f.learn[0], len(f.learn), len(f.judge), f.gap_days) for f in time_folds(window, folds=2, gap_days=7)] == [
        (FIRST, 4, 7, 3),
        (FIRST, 7, 7, 7),
    ]
