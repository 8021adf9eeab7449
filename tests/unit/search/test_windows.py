"""How far back to learn is chosen by folds: the longest window, unless a shorter one is surely better."""

import json
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from training_world import TRAINING, world_spec
from windsock.dataset.requests import run_request, trainer_request
from windsock.days import day_range
from windsock.learners.learner import Learned
from windsock.runs.run_folder import OLDER, CheckpointFolder
from windsock.search.search import take_part
from windsock.search.study import SharedStudy, Trial
from windsock.search.trials import Search
from windsock.search.windows import best_window, choose_window, of_window
from windsock.trainers.learn import learn, search_of

FIRST, LAST = date(2026, 3, 1), date(2026, 4, 5)
FEATURES = ["TX_AMOUNT", "TX_DURING_NIGHT", "more"]
LIGHTGBM: dict[str, Any] = TRAINING["estimator"]
TORCH: dict[str, Any] = {"kind": "torch", "epochs": 6, "trials": 1, "params": {"hidden": [8], "batch_size": 128}}


def rows(changed: date | None, per_day: int = 60) -> pa.Table:
    """Return 36 days on which large amounts are frauds; before ``changed`` it was the small ones."""
    rng = np.random.default_rng(5)
    days = day_range(FIRST, LAST)
    amount, more = rng.normal(size=(2, per_day * len(days)))
    stamps = [datetime.combine(d, datetime.min.time()) + timedelta(minutes=n) for d in days for n in range(per_day)]
    sign = np.repeat([-1.0 if changed is not None and day < changed else 1.0 for day in days], per_day)
    fraud = (sign * amount + rng.normal(size=len(amount)) > 1.2).astype(np.int64)
    columns = {"TRANSACTION_ID": np.arange(len(amount)), "CUSTOMER_ID": rng.integers(0, 300, len(amount))}
    return pa.table(
        {
            **columns,
            "event_timestamp": pa.array(stamps, pa.timestamp("us")),
            "TX_AMOUNT": amount,
            "TX_DURING_NIGHT": rng.integers(0, 2, len(amount)),
            "more": more,
            "TX_FRAUD": fraud,
        }
    )


def a_search(home: Path, changed: date | None, estimator: dict[str, Any] = LIGHTGBM, **training: Any) -> Search:
    """Return what a trainer makes of a request whose window may be 6, 12 or 18 days long."""
    given = {"window_days": 18, "windows": [6, 12, 18], "estimator": estimator, "evaluation": {}, **training}
    _, spec = world_spec(home, training={**TRAINING, **given})
    window, older = day_range(LAST - timedelta(days=17), LAST), day_range(FIRST, LAST - timedelta(days=18))
    request = {**run_request(spec, FEATURES, window, older), "files": {OLDER: ""}}
    table = rows(changed)
    asked = {"path": "train.parquet", "sha256": "", "rows": len(table), "format": "parquet"}
    return search_of(trainer_request(request, "run", spec.training.estimators[0], asked), table)


@pytest.mark.parametrize(
    "estimator", [LIGHTGBM, {**LIGHTGBM, "trials": 1, "search": {}}, TORCH], ids=["search", "one", "torch"]
)
@pytest.mark.parametrize("changed", [None, LAST - timedelta(days=15)], ids=["steady", "changed"])
def test_the_longest_window_is_taken_unless_a_shorter_one_learns_a_changed_world_better(
    tmp_path: Path, estimator: dict[str, Any], changed: date | None
) -> None:
    search = a_search(tmp_path, changed, estimator)

    learnt = learn(search)

    window, chosen = learnt.report["window"], learnt.report["window_days"]
    assert window["days"] == chosen
    assert (chosen == 18) == (changed is None)
    assert set(window["compared"]) == {"6", "12", "18"}
    scores = {int(n): found["score"] for n, found in window["compared"].items()}
    assert changed is None or max(scores[6], scores[12]) > scores[18]
    assert learnt.report["trials"][0]["score"] == scores[chosen]  # the search goes on from what was compared
    assert len(learnt.report["trials"]) == search.wanted
    # The model has learnt from the chosen days alone.
    own = replace(search, windows={}, rows=search.rows_of(chosen), days=())
    alone = learn(own, replace(chosen_in(learnt.report), window_days=None))
    assert {name: data for name, data in learnt.files.items() if name != "model.json"} == {
        name: data for name, data in alone.files.items() if name != "model.json"
    }


def chosen_in(report: dict[str, Any]) -> Any:
    from windsock.trainers.learn import chosen_of

    made = chosen_of({"chosen": report})
    assert made is not None
    return made


@dataclass
class Dying:
    """A learner that dies at its nth training, as a killed trainer does."""

    learner: Any
    left: int
    trained: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.learner, name)

    def train(self, *args: Any, **options: Any) -> Learned:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left, self.trained = self.left - 1, self.trained + 1
        return self.learner.train(*args, **options)  # type: ignore[no-any-return]


def test_killed_between_two_lengths_it_goes_on_and_compares_none_again(tmp_path: Path) -> None:
    whole = a_search(tmp_path, None)
    expected = learn(whole)
    kept = replace(whole, checkpoints=CheckpointFolder(str(tmp_path / "checkpoints")))
    first, second = Dying(whole.learner, 5), Dying(whole.learner, 1000)

    with pytest.raises(KeyboardInterrupt):
        learn(replace(kept, learner=first))
    learnt = learn(replace(kept, learner=second))

    assert learnt.report == expected.report
    assert learnt.files == expected.files
    # Three lengths and two more trials on two folds each, and the model: two lengths were done before.
    assert second.trained == 3 * 2 + 2 * 2 + 1 - 4


def test_those_who_share_a_search_choose_the_same_length_and_run_each_comparison_once(tmp_path: Path) -> None:
    shared = SharedStudy(f"sqlite:///{tmp_path / 'studies.db'}", "fraud/run/lightgbm")
    whole = a_search(tmp_path, LAST - timedelta(days=15))
    ones = [Dying(whole.learner, 1000) for _ in range(2)]
    searches = [replace(whole, learner=one, shared_study=shared) for one in ones]

    for search in searches:
        assert take_part(of_window(search, choose_window(search).days)) in (0, 2)
    learnt = learn(searches[1])

    assert learnt.report == learn(whole).report
    assert sum(one.trained for one in ones) == 3 * 2 + 2 * 2 + 1


def compared(**folds: tuple[float, ...]) -> dict[int, Trial | None]:
    return {int(n[1:]): Trial(0, {}, score=float(np.mean(found)), folds=found) for n, found in folds.items()}


@pytest.mark.parametrize(
    ("folds", "chosen"),
    [
        ({"w7": (0.5, 0.5), "w21": (0.5, 0.5)}, 21),
        ({"w7": (0.9, 0.4), "w21": (0.5, 0.5)}, 21),  # better on average, in one fold of two
        ({"w7": (0.6, 0.6), "w21": (0.5, 0.5)}, 7),
        ({"w7": (0.6, 0.6), "w14": (0.7, 0.6), "w21": (0.5, 0.5)}, 14),
        ({"w7": (0.7, 0.6), "w14": (0.6, 0.6), "w21": (0.5, 0.5)}, 7),
    ],
)
def test_a_shorter_one_has_to_be_better_on_average_and_in_most_folds(
    folds: dict[str, tuple[float, ...]], chosen: int
) -> None:
    assert best_window("average_precision", compared(**folds)) == chosen
    losses = {n: tuple(-x for x in found) for n, found in folds.items()}
    assert best_window("log_loss", compared(**losses)) == chosen


def test_folds_that_cannot_be_judged_leave_the_longest() -> None:
    nothing = Trial(0, {}, score=None, folds=(None, 0.4))
    assert best_window("average_precision", {7: compared(w7=(0.9, 0.9))[7], 21: nothing}) == 21
    assert best_window("average_precision", {7: nothing, 14: None, 21: compared(w21=(0.1, 0.1))[21]}) == 21


def test_a_trainer_of_ones_own_gets_the_longest_window_and_its_own_folds(tmp_path: Path) -> None:
    own = {"kind": "custom", "name": "mine", "command": ["python3", "trainer.py"]}
    _, spec = world_spec(tmp_path, training={**TRAINING, "window_days": 18, "windows": [6, 12, 18], "estimator": own})
    window, older = day_range(LAST - timedelta(days=17), LAST), day_range(FIRST, LAST - timedelta(days=18))
    request = {**run_request(spec, FEATURES, window, older), "files": {OLDER: "x"}}

    asked = trainer_request(request, "run", spec.training.estimators[0], {})

    assert asked["days"] == [str(day) for day in window]
    assert not {"windows", "older"} & set(asked)
    assert json.loads(json.dumps(asked))["folds"][0]["judge"][0] >= str(window[0])


def test_lengths_that_are_the_same_days_for_want_of_history_are_not_compared(tmp_path: Path) -> None:
    search = a_search(tmp_path, None)
    same = replace(search, windows=dict.fromkeys((6, 12, 18), search.windows[6]))
    some = replace(search, windows={**search.windows, 12: search.windows[18]})

    assert choose_window(same).to_json() == {"days": 18, "metric": "average_precision", "compared": {}}
    assert set(choose_window(some).compared) == {6, 18}
