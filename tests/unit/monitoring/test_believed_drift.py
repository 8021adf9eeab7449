"""Drift that one believes: quiet where the world moves as it always did, loud where one thing that matters changes."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from small_model import small_fraud
from windsock.distance import Cells, cells_of
from windsock.monitoring import broken, drift
from windsock.monitoring.drift import Drift, find_drift
from windsock.monitoring.page import MOST_COLUMNS, draw_page, drift_sentence
from windsock.monitoring.second_look import Look
from windsock.monitoring.window import History, Samples
from windsock.spec import ModelSpec

WEEK = 7


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    return small_fraud(tmp_path)[1]


def night(
    frame: pd.DataFrame, last: int, learnt_days: int, weights: Mapping[str, float] | None = None, lookback: int = 0
) -> Samples:
    """Return what the monitor compares on a day of a made-up world that begins on day 0.

    The champion learnt from the first days, and the week after these was held out. ``day`` and ``entity`` are columns.
    """
    features = [c for c in frame.columns if c not in ("day", "entity")]
    day = frame["day"].to_numpy()
    own = day < learnt_days + WEEK
    history = History(
        frame.loc[own, features],
        day[own],
        day[own] < learnt_days,
        frame.loc[own, "entity"].to_numpy(dtype=np.intp) if "entity" in frame else None,
        dict.fromkeys(features, lookback),
    )
    current, reference = (day > last - WEEK) & (day <= last), own & (day >= learnt_days)
    return Samples(
        frame.loc[current, features], frame.loc[reference, features], {}, (), (), {}, day[current], history, weights
    )


def rows(days: int, a_day: int, seed: int = 0) -> tuple[pd.DataFrame, np.random.Generator]:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"day": np.repeat(np.arange(days), a_day), "score": rng.random(days * a_day)})
    return frame, rng


def judged(spec: ModelSpec, samples: Samples) -> Drift:
    return find_drift(spec, samples, np.random.default_rng(0))


def named(drift: Drift) -> list[str]:
    return [name for name, found in drift.columns.items() if found["drifted"]]


def of_entities(rng: np.random.Generator, days: int, entities: int) -> np.ndarray:
    """Return a rolling mean of each entity, which moves from day to day by a little."""
    daily = np.cumsum(rng.normal(size=(days + WEEK, entities)), axis=0)
    return (daily[WEEK:] - daily[:-WEEK]) / np.sqrt(WEEK)


def test_few_entities_with_rolling_features_are_quiet_on_stationary_data(spec: ModelSpec) -> None:
    for entities in (12, 40):
        frame, rng = rows(60, 200, seed=entities)
        frame["entity"] = rng.integers(0, entities, len(frame))
        for name in ("n_7d", "mean_7d", "max_7d"):
            frame[name] = of_entities(rng, 60, entities)[frame["day"], frame["entity"]]
        found = [judged(spec, night(frame, last, WEEK, lookback=WEEK)) for last in range(20, 60, 4)]

        assert sum(d.drifted for d in found) == 0


def test_entities_that_differ_much_hide_no_change_of_all_of_them(spec: ModelSpec) -> None:
    frame, rng = rows(22, 700)
    level = rng.uniform(5, 100, 1000)
    frame["entity"] = rng.integers(0, 1000, len(frame))
    frame["amount"] = np.abs(rng.normal(level[frame["entity"]], level[frame["entity"]] / 2))
    frame.loc[frame["day"] >= 20, "amount"] *= 2
    nights = [judged(spec, night(frame, last, WEEK, {"amount": 1.0})) for last in (19, 20, 21)]

    assert [(d.drifted, named(d)) for d in nights] == [(False, []), (True, ["amount"]), (True, ["amount"])]


def weather(days: int, seed: int = 0) -> tuple[pd.DataFrame, np.random.Generator]:
    """Return hourly readings that drift slowly, beside one sensor that stands still until day 100."""
    frame, rng = rows(days, 24, seed)
    level = np.zeros(days)
    for day in range(1, days):
        level[day] = 0.9 * level[day - 1] + rng.normal()
    frame["temperature"] = level[frame["day"]] + rng.normal(0, 0.5, len(frame))
    frame["transfer"] = np.where(frame["day"] < 100, 0.4, 0.4 + rng.random(len(frame)))
    return frame, rng


def test_slow_weather_is_quiet_and_a_switch_is_seen_on_its_first_day(spec: ModelSpec) -> None:
    frame, _ = weather(110)
    nights = {last: named(judged(spec, night(frame, last, 56))) for last in range(70, 101)}

    assert {last: found for last, found in nights.items() if found} == {100: ["transfer"]}


def test_chance_of_rows_alone_would_have_cried_every_night(spec: ModelSpec) -> None:
    frame, _ = weather(100)
    alone = [judged(spec, replace(night(frame, last, 56), history=None)) for last in range(70, 100)]

    assert sum(bool(named(d)) for d in alone) > 15, "this world is too still to prove anything"


def test_a_holiday_that_looks_like_a_sunday_is_quiet(spec: ModelSpec) -> None:
    frame, rng = rows(60, 300)
    sunday = (frame["day"] % WEEK == 6) | (frame["day"] == 50)
    frame["basket"] = np.where(sunday, 2.0, 0.0) + rng.normal(size=len(frame))

    assert [last for last in range(41, 60) if named(judged(spec, night(frame, last, 28)))] == []


def test_hundreds_of_columns_bring_no_false_discovery_and_one_that_moved_is_named(spec: ModelSpec) -> None:
    frame, rng = rows(22, 200)
    columns = pd.DataFrame(rng.normal(size=(len(frame), 300)), columns=[f"c{n}" for n in range(300)])
    frame = pd.concat([frame, columns], axis=1)
    weights = {f"c{n}": 0.5 * (n == 7) + 0.5 / 300 for n in range(300)}
    quiet = judged(spec, night(frame, 20, WEEK, weights))
    frame.loc[frame["day"] >= 20, ["c7", "c8"]] += 2.0
    samples = night(frame, 21, WEEK, weights)
    loud = judged(spec, samples)
    page = draw_page(spec, samples, loud, "two moved")

    assert named(quiet) == []
    assert (loud.drifted, named(loud)) == (True, ["c7", "c8"])
    assert page is not None
    assert len(page.html) < 12_000_000, "Evidently drew every column"
    body = page.html[page.html.index(b"<body") :]
    assert body.index(b"two moved") < body.index(b"c299") < 200_000, "the table does not come first"
    assert page.json.count(b"ValueDrift(") <= 2 * MOST_COLUMNS


@pytest.mark.parametrize(("weight", "alarm"), [(0.4, True), (0.02, False)])
def test_one_input_alone_is_an_alarm_if_the_champion_makes_much_of_it(
    weight: float, alarm: bool, spec: ModelSpec
) -> None:
    frame, rng = rows(22, 200)
    for name in "abcdefgh":
        frame[name] = rng.normal(size=len(frame))
    frame.loc[frame["day"] >= 20, "a"] += 2.0
    weights = {"a": weight, **dict.fromkeys("bcdefgh", (1 - weight) / 7)}
    found = judged(spec, night(frame, 21, WEEK, weights))
    sentence = drift_sentence("3", found, weights)

    assert (found.drifted, named(found)) == (alarm, ["a"])
    assert "a (wasserstein" in sentence
    assert sentence.startswith("no drift that matters") != alarm


BREAKS: dict[str, tuple[str, Callable[[pd.Series, Any], Any]]] = {
    "gone constant": ("constant", lambda a, rng: 3.0),
    "90 % null": ("missing", lambda a, rng: a.where(rng.random(len(a)) < 0.1)),
    "all null": ("missing", lambda a, rng: np.nan),
    "all infinite": ("missing", lambda a, rng: np.inf),
    "60 % infinite": ("missing", lambda a, rng: a.where(rng.random(len(a)) < 0.4, np.inf)),
    **{f"times {f:g}": ("factor", lambda a, rng, f=f: a * f) for f in (10, 100, 1000, 0.1, 0.01, 0.001)},
}


@pytest.mark.parametrize("how", BREAKS)
def test_broken_data_is_told_apart_from_a_changed_world(how: str, spec: ModelSpec) -> None:
    what, spoil = BREAKS[how]
    frame, rng = rows(24, 200)
    frame["amount"] = rng.exponential(50, len(frame))
    frame["other"] = rng.normal(size=len(frame))
    at = frame["day"] == 21
    frame.loc[at, "amount"] = spoil(frame.loc[at, "amount"], rng)
    spoilt, after = (judged(spec, night(frame, last, WEEK)) for last in (21, 22))

    assert [(b.column, b.what) for b in spoilt.broken] == [("amount", what)]
    assert (spoilt.drifted, spoilt.judged) == (False, False)
    assert (list(after.broken), after.drifted, after.judged, named(after)) == ([], False, True, [])


def test_a_broken_column_is_found_among_so_many_rows_that_columns_are_looked_at_one_by_one(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broken, "_AT_ONCE", 1)
    frame, rng = rows(24, 200)
    for name in ("amount", "other", "third"):
        frame[name] = rng.exponential(50, len(frame))
    frame.loc[frame["day"] == 21, "other"] *= 100
    assert [(b.column, b.what) for b in judged(spec, night(frame, 21, WEEK)).broken] == [("other", "factor")]


def test_text_where_numbers_were_is_broken_data(spec: ModelSpec) -> None:
    frame, rng = rows(24, 200)
    frame["amount"] = rng.exponential(50, len(frame))
    samples = night(frame, 21, WEEK)
    as_text = samples.current.assign(amount=samples.current["amount"].map("{:.2f} EUR".format))
    found = judged(spec, replace(samples, current=as_text))

    assert [(b.column, b.what) for b in found.broken] == [("amount", "type")]
    assert (found.drifted, found.judged) == (False, False)


@pytest.mark.parametrize("missing", [range(17), range(17, 24)])
def test_flags_of_which_some_are_missing_or_are_so_no_more_are_flags_as_before(missing: range, spec: ModelSpec) -> None:
    frame, rng = rows(24, 200)
    flag = pd.Series(rng.random(len(frame)) < 0.3).astype(object)
    frame["flag"] = flag.mask(frame["day"].isin(missing) & (rng.random(len(frame)) < 0.02), None)
    samples = night(frame, 23, WEEK)
    sides = {name: getattr(samples, name).infer_objects() for name in ("current", "reference")}
    assert {side["flag"].dtype.kind for side in sides.values()} == {"b", "O"}
    found = judged(spec, replace(samples, **sides))
    assert (list(found.broken), found.drifted, found.judged) == ([], False, True)


@pytest.mark.parametrize("share", [0.2, 1.0])
@pytest.mark.parametrize("values", [40, 200])
def test_new_values_are_found_among_however_many_and_rare_ones_are_no_news(
    values: int, share: float, spec: ModelSpec
) -> None:
    frame, rng = rows(28, 600)
    chances = 1 / np.arange(1, values + 1) ** 0.7
    frame["code"] = [f"code {n}" for n in rng.choice(values, len(frame), p=chances / chances.sum())]
    quiet = [judged(spec, night(frame, last, WEEK, {"code": 1.0})) for last in range(14, 28)]
    changed = (frame["day"] >= 21) & (rng.random(len(frame)) < share)
    frame.loc[changed, "code"] = "new " + frame.loc[changed, "code"]
    found = judged(spec, night(frame, 22, WEEK, {"code": 1.0}))

    assert [named(each) for each in quiet] == [[]] * 14
    assert named(found) == ["code"]
    assert "of rows hold values that none of the champion's own days held" in found.columns["code"]["why"]


TURNOVER: dict[str, Callable[[pd.DataFrame, Any], Any]] = {
    "new ids every day": lambda f, rng: 40 * f["day"] + rng.integers(0, 2000, len(f)),
    "ids that live for three days": lambda f, rng: 1000 * (f["day"] // 3) + rng.integers(0, 50, len(f)),
    "days that lie behind": lambda f, rng: f["day"] - rng.integers(0, 30, len(f)),
    "ids of which many come once": lambda f, rng: np.minimum(rng.zipf(1.3, len(f)), 10**9),
}


@pytest.mark.parametrize("how", TURNOVER)
def test_values_that_come_and_go_by_themselves_are_no_news(how: str, spec: ModelSpec) -> None:
    frame, rng = rows(45, 400)
    frame["id"] = [f"id {n}" for n in TURNOVER[how](frame, rng)]
    assert [named(judged(spec, night(frame, last, WEEK, {"id": 1.0}))) for last in range(14, 45)] == [[]] * 31


def test_a_second_look_that_is_chance_does_not_stand_in_for_the_first(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "_second_look", weak_look)
    frame, rng = rows(28, 400)
    frame["amount"] = rng.exponential(50, len(frame))
    frame.loc[frame["day"] >= 21, "amount"] += 50
    found = judged(spec, night(frame, 23, WEEK, {"amount": 1.0}))
    assert named(found) == ["amount"]
    assert found.columns["amount"].get("why") != "?"


def weak_look(pair: Any, rows: Samples, name: str) -> Look:
    """A look at very few rows, of which most have changed."""
    return Look(Cells("jensenshannon", categories={"known": 0}), np.array([2.0, 2.0]), np.array([3.0, 1.0]), None, "?")


def test_huge_ids_that_differ_in_their_last_digits_are_the_same_ones_night_after_night(spec: ModelSpec) -> None:
    frame, rng = rows(28, 400)
    frame["id"] = 2**60 + rng.integers(0, 1000, len(frame))
    assert [named(judged(spec, night(frame, last, WEEK, {"id": 1.0}))) for last in range(14, 28)] == [[]] * 14


def test_skewed_amounts_that_double_are_found_within_three_days(spec: ModelSpec) -> None:
    for seed in range(6):
        frame, rng = rows(28, 600, seed)
        frame["amount"] = np.exp(rng.normal(0, 2, len(frame)))
        quiet = [named(judged(spec, night(frame, last, WEEK, {"amount": 1.0}))) for last in range(14, 28)]
        frame.loc[frame["day"] >= 21, "amount"] *= 2
        found = [named(judged(spec, night(frame, last, WEEK, {"amount": 1.0}))) for last in range(21, 24)]
        assert (quiet, found[-1]) == ([[]] * 14, ["amount"])


CHANGES: dict[str, Callable[[pd.Series], Any]] = {
    "doubled": lambda a: a * 2,
    "a quarter": lambda a: a / 4,
    "shifted": lambda a: a + 50,
    "ten times as large, and all alike": lambda a: 10 * a.median() + a / 50,
    "ten times in the half of all rows": lambda a: a * np.where(np.arange(len(a)) % 2, 10, 1),
}


@pytest.mark.parametrize("how", CHANGES)
def test_a_changed_world_is_not_called_broken(how: str, spec: ModelSpec) -> None:
    frame, rng = rows(24, 200)
    frame["amount"] = rng.exponential(50, len(frame))
    frame.loc[frame["day"] >= 21, "amount"] = CHANGES[how](frame.loc[frame["day"] >= 21, "amount"])
    found = judged(spec, night(frame, 23, WEEK, {"amount": 1.0}))

    assert (list(found.broken), named(found), found.drifted) == ([], ["amount"], True)


def test_a_column_that_is_constant_or_empty_on_some_days_by_nature_is_not_broken(spec: ModelSpec) -> None:
    frame, rng = rows(24, 200)
    frame["weekend"] = (frame["day"] % WEEK >= 5).astype(int)
    frame["promotion"] = np.where(frame["day"] % 3 == 0, rng.random(len(frame)), np.nan)
    frame["rare"] = (rng.random(len(frame)) < 0.001).astype(int)

    assert [judged(spec, night(frame, last, WEEK)).broken for last in range(20, 24)] == [()] * 4


def test_a_new_category_of_a_fifth_of_the_rows_is_drift(spec: ModelSpec) -> None:
    frame, rng = rows(24, 300)
    frame["kind"] = rng.choice(["x", "y", "z"], len(frame)).astype(object)
    frame.loc[(frame["day"] >= 21) & (rng.random(len(frame)) < 0.2), "kind"] = "new"
    found = judged(spec, night(frame, 22, WEEK, {"kind": 1.0}))

    assert (named(found), found.drifted) == (["kind"], True)


def test_the_size_of_a_columns_unit_changes_nothing(spec: ModelSpec) -> None:
    frame, rng = rows(24, 200)
    frame["rate"] = rng.exponential(1e-5, len(frame))
    frame.loc[frame["day"] >= 21, "rate"] *= 5
    frame["same"] = frame["rate"] * 1e5
    found = judged(spec, night(frame, 22, WEEK)).columns

    assert found["rate"]["drifted"]
    assert found["rate"]["value"] == pytest.approx(found["same"]["value"], abs=1e-6)


@pytest.mark.parametrize("tail", ["normal", "exponential", "lognormal", "pareto"])
def test_a_distance_is_within_five_percent_of_that_of_all_rows(tail: str) -> None:
    from scipy.stats import wasserstein_distance

    rng = np.random.default_rng(0)
    draw: dict[str, Callable[[int], np.ndarray]] = {
        "normal": lambda n: rng.normal(size=n),
        "exponential": lambda n: rng.exponential(size=n),
        "lognormal": lambda n: np.exp(1.2 * rng.normal(size=n)),
        "pareto": lambda n: rng.pareto(2.5, n),
    }
    then = draw[tail](200_000)
    now = draw[tail](200_000) * 1.2 + 0.1 * then.std()
    sides = [pd.Series(now), pd.Series(then)]
    cells = cells_of("wasserstein", sides[1], sides[0], numeric=True, cells=2000)
    ours = float(cells.distance(*(cells.counts(cells.places(side))[0] for side in sides)))

    assert ours == pytest.approx(wasserstein_distance(now, then) / then.std(), rel=0.05)
