"""Trials after a drift: together they take no more than the stated rate, and each is paid for once."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_gate import Fraud, crown, failed, learnt_until, register

from examples import examples
from run_folders import make_run, with_mlflow, world
from small_model import small_fraud
from windsock.gate import step
from windsock.gate.compare import compare
from windsock.gate.sequential import Look, next_level, take_look
from windsock.runs.run_folder import LINEAGE, RunFolder
from windsock.served.resampling import ClusteredRows
from windsock.settings import REPO_ROOT, Settings
from windsock.spec import load_spec
from windsock.steps import run_step
from windsock.store import Store

FRAUD = load_spec(REPO_ROOT / "include" / "models" / "fraud" / "model.yaml")


@pytest.fixture
def fraud(tmp_path: Path) -> Fraud:
    settings, spec = small_fraud(tmp_path)
    return with_mlflow(settings), spec


def recovering(fraud: Fraud, run: str, request: str, **made: Any) -> str:
    """Register a challenger of a training that followed a drift."""
    make_run(*fraud, run, **made)
    folder = RunFolder.named(Store.of(fraud[0]), "fraud", run)
    folder.write_json({**folder.read_json(LINEAGE), "recovery": "2026-04-24", "request": request}, LINEAGE)
    return str(run_step("register", model="fraud", settings=fraud[0], options={"run": run})["version"])


def looks(settings: Settings) -> list[dict[str, Any]]:
    return [json.loads(f.read_text()) for f in sorted(Path(settings.store, "fraud", "recovery").glob("*.json"))]


def test_what_is_clearly_better_on_a_single_day_is_promoted_and_the_evidence_says_what_was_spent(fraud: Fraud) -> None:
    crown(fraud, register(fraud, "weak", spoiled=0.9))
    one_day = world(100, rows=1500, days=1)
    version = recovering(fraud, "strong", "1@2026-04-24#2", holdout=one_day)

    result = run_step("gate", model="fraud", settings=fraud[0])

    assert result["passed"], result["why"]
    assert "Look 1 of at most 10 after this drift, at level 0.0125; 0.0125 of the error rate against" in result["why"]
    names = [c["name"] for c in result["checks"]]
    assert "proven_better" in names
    assert "not_worse_than_champion" not in names
    record = json.loads(Path(fraud[0].store, "runs", "fraud", "strong", "gate.json").read_text())
    assert (record["recovery"], round(record["look"]["left"], 9)) == ("2026-04-24", 0.0375)
    assert record["bootstrap"]["confidence"] == 0.9875
    assert "Look 1 of at most 10" in Path(fraud[0].store, "runs", "fraud", "strong", "gate.html").read_text()
    promoted = run_step("promote", model="fraud", settings=fraud[0], options={"version": version, "champion_seen": "1"})
    assert promoted["gate"]["look"]["number"] == 1


def test_what_is_judged_again_spends_nothing_and_each_other_challenger_its_share(fraud: Fraud) -> None:
    crown(fraud, register(fraud, "champion", spoiled=0.1))
    recovering(fraud, "first", "1@2026-04-24", seed=2)
    recovering(fraud, "second", "1@2026-04-24#2", seed=3)
    for version in ("2", "2", "3", "2"):
        step.judge(*fraud, version, "1")

    assert [(look["number"], look["version"], look["request"]) for look in looks(fraud[0])] == [
        (1, "2", "1@2026-04-24"),
        (2, "3", "1@2026-04-24#2"),
    ]
    assert looks(fraud[0])[1]["spent"] == pytest.approx(0.0125 + 0.0375 / 4)


def test_after_a_drift_as_good_is_not_enough(fraud: Fraud) -> None:
    crown(fraud, register(fraud, "champion"))
    found = step.judge(*fraud, recovering(fraud, "as-good", "1@2026-04-24", seed=2), "1")

    assert failed(found) == {"proven_better"}


def test_a_floor_decides_nothing_after_a_drift_and_a_leak_is_refused_all_the_same(fraud: Fraud) -> None:
    crown(fraud, register(fraud, "blind", features=("noise",)))
    poor = step.judge(*fraud, recovering(fraud, "poor", "1@2026-04-24", spoiled=0.8), "1")
    leak = step.judge(*fraud, recovering(fraud, "leak", "1@2026-04-24#2", features=("amount", "leak")), "1")

    floor = next(c for c in poor.checks if c.name == "floor_average_precision")
    assert floor.value is not None
    assert floor.passed
    assert poor.passed
    assert {"suspicious_roc_auc", "suspicious_average_precision"} <= failed(leak)


def test_nothing_is_spent_on_what_cannot_be_compared(fraud: Fraud) -> None:
    crown(fraud, register(fraud, "champion"))
    few = step.judge(*fraud, recovering(fraud, "few", "1@2026-04-24", holdout=world(100, rows=300, rate=0.03)), "1")
    equal = step.judge(*fraud, recovering(fraud, "equal", "1@2026-04-24#2"), "1")

    assert {"evidence", "proven_better"} <= failed(few)
    assert "The trainings that follow for this drift hold out more days" in few.sentence()
    assert {"another_model", "proven_better"} <= failed(equal)
    assert looks(fraud[0]) == []


def test_a_recovery_is_proven_better_on_days_alone_that_the_champion_has_not_learnt_from(fraud: Fraud) -> None:
    register(fraud, "champion", spoiled=0.9)
    learnt_until(fraud, "champion", "2026-04-24")
    challenger = recovering(fraud, "first", "1@2026-04-20", holdout=world(100, days=3))

    none_left = step.judge(*fraud, challenger, "1")
    assert {"evidence", "proven_better"} <= failed(none_left)
    assert looks(fraud[0]) == []

    learnt_until(fraud, "champion", "2026-04-22")
    found = step.judge(*fraud, challenger, "1")
    assert found.passed, found.sentence()
    assert "so of those held out 2026-04-23..2026-04-24 can compare the two" in next(
        c.why for c in found.checks if c.name == "evidence"
    )


def test_where_few_entities_hold_most_rows_nothing_is_compared_after_a_drift_and_nothing_spent(fraud: Fraud) -> None:
    rows = world(100)
    sizes = np.repeat(np.arange(12), [2900, *[100] * 11])
    few = rows.set_column(rows.column_names.index("CUSTOMER_ID"), "CUSTOMER_ID", pa.array(sizes))
    register(fraud, "weak", spoiled=0.9)
    found = step.judge(*fraud, recovering(fraud, "few", "1@2026-04-24", holdout=few), "1")
    usual = step.judge(*fraud, register(fraud, "usual", holdout=few, seed=2), "1")

    assert failed(found) == {"evidence", "proven_better"}
    assert "1 clusters of equal weight, as the 12 by CUSTOMER_ID are worth (at least 10)" in found.sentence()
    assert looks(fraud[0]) == []
    assert "evidence" not in failed(usual)


subjects = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 1), st.floats(0.01, 0.3)), min_size=1, max_size=20
)


@examples(50)
@given(subjects)
def test_looks_never_spend_more_than_the_whole_whatever_is_tried_and_however_settings_change(
    tmp_path_factory: pytest.TempPathFactory, tries: list[tuple[int, int, int, float]]
) -> None:
    store = Store(str(tmp_path_factory.mktemp("store")))
    known: dict[tuple[int, int, int], Look] = {}
    for number, version, champion, rate in tries:
        subject = {"request": f"1@2026-04-24#{number}", "version": str(version), "model_hash": "x"}
        look = take_look(store, "fraud", {**subject, "champion": str(champion)}, error_rate=rate, most=10)
        if (already := known.get((number, version, champion))) is not None:
            assert look == already
        elif look is None:
            assert sum(each.level for each in known.values() if each.champion == str(champion)) >= rate
        else:
            known[number, version, champion] = look
            assert look.number == len(known)
            spent = sum(each.level for each in known.values() if each.champion == str(champion))
            assert spent == pytest.approx(look.spent)
            assert spent < rate


def look_at(store: Store, request: str, version: int, champion: str = "7") -> Look:
    subject = {"request": request, "version": str(version), "model_hash": "x", "champion": champion}
    look = take_look(store, "fraud", subject, error_rate=0.05, most=10)
    assert look is not None
    return look


def test_later_drifts_drifts_that_grow_and_trainings_by_hand_spend_of_one_rate_until_another_champion_is_in_force(
    tmp_path: Path,
) -> None:
    store, taken = Store(str(tmp_path)), list[Look]()
    for episode in ("7@2026-03-01", "7@2026-03-09", "by hand@2026-03-01", "7@2026-05-20", "by hand@2026-03-02"):
        taken += [look_at(store, f"{episode}#{n}", len(taken)) for n in range(1, 5)]

    assert [look.number for look in taken] == [1, 2, 3, 4] * 5
    assert sum(look.level for look in taken) == pytest.approx(taken[-1].spent)
    assert taken[-1].spent < 0.05
    assert "Usual trainings spend none, and another champion begins with the whole." in taken[-1].sentence()
    assert look_at(store, "7@2026-05-20#5", 99, champion="8").level == pytest.approx(0.0125)


def test_a_look_that_is_lost_stops_no_later_one_and_stays_spent(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    *_, before = (look_at(store, f"7@2026-03-01#{n}", n) for n in range(1, 4))
    store.remove("fraud", "recovery", "0002.json")

    after = look_at(store, "7@2026-03-01#4", 4)

    assert (after.number, after.spent) == (4, pytest.approx(before.spent + after.level))


def test_without_a_difference_an_episode_promotes_no_more_often_than_it_says() -> None:
    """Pairs of equally good models on rows that share their luck; at each look both models and rows are new."""
    rate, looks_each, episodes = 0.2, 8, 120
    training = FRAUD.training.model_copy(update={"metric": "log_loss"})
    spec = FRAUD.model_copy(update={"training": training})
    rng = np.random.default_rng(11)

    def better(level: float) -> bool:
        cluster = np.repeat(np.arange(60), 5)
        truth = rng.normal(size=60)[cluster] + rng.normal(size=300)
        label = (truth + rng.normal(size=300) > 1).astype(float)
        rows = ClusteredRows(label, np.zeros(300, dtype=np.intp), cluster, cluster, "entity")
        noise = rng.normal(size=(2, 60))[:, cluster]
        first, second = (1 / (1 + np.exp(1.5 - 1.5 * truth - each)) for each in noise)
        return compare(spec, rows, first, second, margin=0.0, confidence=1 - level).lower > 0

    def wrong() -> bool:
        spent = 0.0
        for _ in range(looks_each):
            level = next_level(rate, spent)
            if better(level):
                return True
            spent += level
        return False

    errors = sum(wrong() for _ in range(episodes))

    assert 0.05 * episodes < errors <= rate * episodes, "neither more than stated nor so few that nothing was tried"
