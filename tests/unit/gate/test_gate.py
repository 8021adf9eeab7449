import json
import re
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from run_folders import make_run, with_mlflow, world
from small_model import small_fraud
from windsock import promotions
from windsock.errors import DataContractError, UpstreamUnavailable
from windsock.gate import checks, step
from windsock.gate.context import GateContext
from windsock.gate.step import Verdict
from windsock.registry.client import mlflow_client
from windsock.registry.versions import load_version, set_alias
from windsock.runs.run_folder import DEFINITIONS, LINEAGE, RunFolder
from windsock.served.metrics import evaluate
from windsock.settings import Settings
from windsock.spec import ModelSpec, get_spec
from windsock.steps import run_step
from windsock.store import Store
from windsock.version_index import record_version, version_info

Fraud = tuple[Settings, ModelSpec]


@pytest.fixture
def fraud(tmp_path: Path) -> Fraud:
    settings, spec = small_fraud(tmp_path)
    return with_mlflow(settings), spec


def register(fraud: Fraud, run: str, **made: Any) -> str:
    make_run(*fraud, run, **made)
    return str(run_step("register", model="fraud", settings=fraud[0], options={"run": run})["version"])


def crown(fraud: Fraud, version: str) -> None:
    """Make a version champion without asking the gate."""
    from windsock.promotions import Promotion, append, current, first_day_in_force

    settings, spec = fraud
    info, now = version_info(settings, spec, version), current(settings, spec)
    first = first_day_in_force(settings, spec, info.as_of)
    append(settings, spec, Promotion(0, "promote", version, info.run, None, first, info.as_of, "test"), after=now)
    set_alias(settings, spec, "champion", version)


def verdict(fraud: Fraud, version: str, champion: str | None = None) -> Verdict:
    return step.judge(*fraud, version, champion)


def failed(found: Verdict) -> set[str]:
    return {c.name for c in found.failures}


def test_the_first_good_version_passes_by_floor_and_trivial_model(fraud: Fraud) -> None:
    register(fraud, "r1")

    result = run_step("gate", model="fraud", settings=fraud[0])

    assert (result["version"], result["champion_seen"], result["passed"]) == ("1", None, True)
    assert {c["name"] for c in result["checks"]} == {
        "artifact", "frozen_rows", "same_predictions", "finite", "evidence", "another_model",
        "floor_average_precision", "suspicious_roc_auc", "suspicious_average_precision",
        "better_than_trivial", "not_worse_than_champion", "self_test",
    }  # fmt: skip
    assert all(c["why"].endswith(".") for c in result["checks"])
    assert mlflow_client(fraud[0]).get_model_version("fraud", "1").tags["windsock.gate"] == "passed"


def test_a_better_challenger_passes_and_the_evidence_is_kept(fraud: Fraud) -> None:
    crown(fraud, register(fraud, "weak", spoiled=0.6))
    register(fraud, "strong")

    result = run_step("gate", model="fraud", settings=fraud[0])

    assert (result["version"], result["champion_seen"]) == ("2", "1")
    folder = Path(fraud[0].store, "runs", "fraud", "strong")
    record = json.loads((folder / "gate.json").read_text())
    assert record == json.loads((folder / "gate" / "vs-1.json").read_text())
    assert record["bootstrap"]["clustered_by"] == "CUSTOMER_ID"
    assert sum(record["bootstrap"]["histogram"]["counts"]) == record["bootstrap"]["resamples"] == 400
    page = (folder / "gate.html").read_text()
    assert "<svg" in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_page_escapes_what_comes_from_data(fraud: Fraud, monkeypatch: pytest.MonkeyPatch) -> None:
    register(fraud, "r1")

    def odd(ctx: object) -> None:
        raise DataContractError("<script>alert(1)</script>")

    monkeypatch.setattr(step, "ALL", (odd,))
    verdict(fraud, "1")

    page = Path(fraud[0].store, "runs", "fraud", "r1", "gate.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page


def test_a_worse_challenger_fails_after_the_evidence_has_been_kept(fraud: Fraud) -> None:
    crown(fraud, register(fraud, "strong"))
    register(fraud, "weak", spoiled=0.6)

    refused = run_step("gate", model="fraud", settings=fraud[0])

    assert refused["passed"] is False
    assert re.search(r"\[not_worse_than_champion\] average_precision .* at most .* worse", refused["why"])
    assert refused["why"].endswith("champion stays version 1.")
    record = json.loads(Path(fraud[0].store, "runs", "fraud", "weak", "gate.json").read_text())
    assert record["passed"] is False
    tags = mlflow_client(fraud[0]).get_model_version("fraud", "2").tags
    assert tags["windsock.gate"] == "failed"
    assert "not_worse_than_champion" in tags["windsock.gate.why"]


def test_both_models_are_judged_on_the_challengers_frozen_rows(fraud: Fraud) -> None:
    easy, hard = world(100), world(200, rate=0.02)
    register(fraud, "champion", holdout=easy)
    register(fraud, "challenger", holdout=hard, seed=3)

    case = step.GateContext(*fraud, "2", "1")

    counted = ~hard.column("known_positive").to_numpy(zero_copy_only=False)

    assert np.array_equal(case.champion_scores, load_version(*fraud, "1").predict(hard)[counted])
    assert case.rows.rows == counted.sum()


def learnt_until(fraud: Fraud, run: str, last: str, **more: Any) -> None:
    """Let a run's model have learnt from the week up to a day."""
    folder = RunFolder.named(Store.of(fraud[0]), "fraud", run)
    lineage = folder.read_json(LINEAGE)
    train = [str(date.fromisoformat(last) - timedelta(days=n)) for n in range(6, -1, -1)]
    folder.write_json({**lineage, "windows": {**lineage["windows"], "train": train}, **more}, LINEAGE)


def check_of(found: Verdict, name: str) -> checks.Check:
    return next(c for c in found.checks if c.name == name)


def test_a_champion_is_never_judged_on_days_that_it_learnt_from(fraud: Fraud) -> None:
    """As after a recovery, whose champion learnt up to the eve of a short holdout: the next one begins before."""
    register(fraud, "champion", spoiled=0.6)
    learnt_until(fraud, "champion", "2026-04-21")
    register(fraud, "challenger", seed=3)

    case = GateContext(*fraud, "2", "1")
    found = verdict(fraud, "2", "1")

    days = np.asarray(case.holdout["event_timestamp"], "datetime64[D]")
    unknown = ~case.holdout["known_positive"].to_numpy(zero_copy_only=False)
    later = (days > np.datetime64("2026-04-21")) & unknown
    assert found.passed, found.sentence()
    assert case.fair_rows.rows == later.sum() < case.rows.rows == unknown.sum()
    scores = load_version(*fraud, "1").predict(case.holdout)
    assert np.array_equal(case.champion_scores, scores[later])
    said = (
        "Champion 1 has learnt from days up to 2026-04-21, so of those held out 2026-04-22..2026-04-24 can compare the "
        "two. Usual trainings as of 2026-05-05 or later compare by all."
    )
    folder = Path(fraud[0].store, "runs", "fraud", "challenger")
    record = json.loads((folder / "gate.json").read_text())
    assert said == record["unfair"]
    assert said in check_of(found, "evidence").why
    assert said in (folder / "gate.html").read_text()
    assert f"same {later.sum()} rows" in check_of(found, "not_worse_than_champion").why
    expected = evaluate(fraud[1], case.holdout.filter(pa.array(later)), scores[later])["metrics"]["average_precision"]
    assert record["bootstrap"]["reference"] == pytest.approx(expected)
    # What it must reach by itself is judged on the whole holdout.
    assert record["metrics"] == pytest.approx(evaluate(fraud[1], case.holdout, case.scores)["metrics"])


@pytest.mark.parametrize(
    ("last", "left"), [("2026-04-24", "none"), ("2026-05-20", "none"), ("2026-04-23", "2026-04-24")]
)
def test_where_too_few_days_are_left_that_the_champion_has_not_learnt_from_it_is_said_which_and_until_when(
    fraud: Fraud, last: str, left: str
) -> None:
    rows = world(100, rows=1200)
    register(fraud, "champion", holdout=rows, spoiled=0.6)
    learnt_until(fraud, "champion", last)
    register(fraud, "challenger", holdout=rows)

    found = verdict(fraud, "2", "1")

    whole = date.fromisoformat(last) + timedelta(days=14)
    assert failed(found) == {"evidence", "not_worse_than_champion", "self_test"}
    assert f"up to {last}, so of those held out {left} can compare the two" in check_of(found, "evidence").why
    assert f"as of {whole} or later compare by all" in check_of(found, "evidence").why
    assert "Lengthen training.holdout_days" not in found.sentence()


def test_the_judged_twin_of_a_champion_does_not_stand_for_it_on_days_that_it_learnt_from_itself(fraud: Fraud) -> None:
    for run, last, more in (("twin", "2026-04-20", {}), ("refit", "2026-04-22", {"refit_of": {"run": "twin"}})):
        make_run(*fraud, run, seed=len(last + run))
        learnt_until(fraud, run, last, **more)
        run_step("register", model="fraud", settings=fraud[0], options={"run": run})
    record_version(fraud[0], replace(version_info(*fraud, "2"), refit_of="1"))
    register(fraud, "challenger", seed=3)

    case = GateContext(*fraud, "3", "2")
    evidence = check_of(verdict(fraud, "3", "2"), "evidence")

    assert case.reference is not None
    assert case.reference.version == "1"
    assert set(case.fair_rows.day) == {0, 1, 2, 3}
    assert "Version 1, the judged twin of champion 2, has learnt from days up to 2026-04-20" in evidence.why


def test_a_champion_that_does_not_say_what_it_learnt_from_may_have_learnt_from_all_whose_labels_it_knew(
    fraud: Fraud,
) -> None:
    register(fraud, "champion", as_of=date(2026, 4, 28))
    Path(fraud[0].store, "runs", "fraud", "champion", LINEAGE).unlink()
    register(fraud, "challenger", seed=3)

    why = check_of(verdict(fraud, "2", "1"), "evidence").why

    assert "days up to 2026-04-21, so of those held out 2026-04-22..2026-04-24" in why


def test_the_champion_itself_is_no_challenger(fraud: Fraud) -> None:
    crown(fraud, register(fraud, "r1"))
    register(fraud, "again")  # equal data, equal seed: an equal model

    found = verdict(fraud, "2", "1")

    assert "another_model" in failed(found)
    assert "nothing to promote" in next(c.why for c in found.failures if c.name == "another_model")


def test_a_leak_is_too_good_to_be_true(fraud: Fraud) -> None:
    register(fraud, "r1", features=("amount", "leak"))

    found = verdict(fraud, "1")

    assert failed(found) == {"suspicious_roc_auc", "suspicious_average_precision"}
    assert "too good to be true" in found.failures[0].why


def test_a_model_that_has_learnt_nothing_beats_no_constant(fraud: Fraud) -> None:
    register(fraud, "blind", features=("noise",), rounds=5)

    assert {"floor_average_precision", "better_than_trivial"} <= failed(verdict(fraud, "1"))


def test_too_few_frauds_are_no_evidence(fraud: Fraud) -> None:
    register(fraud, "r1", holdout=world(100, rows=300, rate=0.03))

    found = verdict(fraud, "1")

    assert "evidence" in failed(found)
    assert "positives (at least 20)" in next(c.why for c in found.failures if c.name == "evidence")


def test_a_changed_holdout_and_a_changed_model_are_noticed(fraud: Fraud) -> None:
    version = register(fraud, "r1")
    folder = Path(fraud[0].store, "runs", "fraud", "r1")
    other = world(101)
    import pyarrow.parquet as pq

    pq.write_table(other, folder / "holdout.parquet")

    assert {"frozen_rows", "same_predictions"} <= failed(verdict(fraud, version))

    text = (folder / "model" / "model.txt").read_text()
    (folder / "model" / "model.txt").write_text(text.replace("shrinkage=0.1", "shrinkage=0.2"))
    assert "artifact" in failed(verdict(fraud, version))


def test_a_pickle_beside_the_model_is_refused(fraud: Fraud) -> None:
    version = register(fraud, "r1")
    Path(fraud[0].store, "runs", "fraud", "r1", "model", "model.pkl").write_bytes(b"\x80\x04.")

    found = verdict(fraud, version)

    assert "artifact" in failed(found)
    assert "Loading a pickle can run any code." in found.sentence()


def test_whatever_cannot_be_run_has_failed(fraud: Fraud, monkeypatch: pytest.MonkeyPatch) -> None:
    crown(fraud, register(fraud, "weak", spoiled=0.6))
    register(fraud, "strong")

    def broken(case: object) -> None:
        raise MemoryError("out of memory")

    for function in checks.ALL:
        broken.__name__ = function.__name__
        monkeypatch.setattr(step, "ALL", tuple(broken if f is function else f for f in checks.ALL))

        found = verdict(fraud, "2", "1")

        assert not found.passed
        assert failed(found) == {function.__name__}
        assert found.failures[0].why == "Could not be run: MemoryError. The log has more."


def test_what_a_library_says_of_rows_stays_in_the_log_and_our_own_sentences_are_told(
    fraud: Fraud, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    register(fraud, "r1")

    def quotes(ctx: object) -> None:
        raise ValueError("could not convert 'DE89 3704 0044 0532 0130 00' to float")

    def explains(ctx: object) -> None:
        raise DataContractError("There is no champion.")

    monkeypatch.setattr(step, "ALL", (quotes, explains))
    found = verdict(fraud, "1")

    page = Path(fraud[0].store, "runs", "fraud", "r1", "gate.html").read_text()
    assert "DE89" not in found.sentence() + page
    assert "DE89" in caplog.text
    assert [c.why for c in found.failures] == [
        "Could not be run: ValueError. The log has more.",
        "Could not be run: DataContractError: There is no champion.",
    ]


def test_a_service_that_is_away_gives_no_verdict_at_all(fraud: Fraud, monkeypatch: pytest.MonkeyPatch) -> None:
    register(fraud, "r1")

    def away(case: object) -> None:
        raise UpstreamUnavailable("the store is away")

    monkeypatch.setattr(step, "ALL", (away,))

    with pytest.raises(UpstreamUnavailable):
        verdict(fraud, "1")
    assert not Path(fraud[0].store, "runs", "fraud", "r1", "gate.json").exists()


def test_a_gate_that_lets_everything_through_fails_its_self_test(fraud: Fraud) -> None:
    crown(fraud, register(fraud, "weak", spoiled=0.6))
    register(fraud, "strong")
    wide = fraud[1].model_copy(update={"gate": fraud[1].gate.model_copy(update={"margin": 0.9})})

    found = step.judge(fraud[0], wide, "2", "1")

    assert failed(found) == {"self_test"}
    assert "Narrow gate.margin" in found.failures[0].why


def test_a_comparison_that_always_says_yes_is_caught_by_the_self_test(
    fraud: Fraud, monkeypatch: pytest.MonkeyPatch
) -> None:
    from windsock.gate.compare import compare

    register(fraud, "r1")
    monkeypatch.setattr(checks, "compare", lambda spec, rows, a, b, **k: compare(spec, rows, a, a * 0 + 0.5, **k))

    assert "self_test" in failed(verdict(fraud, "1"))


def test_a_champion_that_the_world_has_left_behind_can_be_replaced(fraud: Fraud) -> None:
    """It has nothing left to lose on these rows, so the planted model is made from the challenger."""
    crown(fraud, register(fraud, "useless", features=("noise",), rounds=5))
    register(fraud, "strong")

    found = verdict(fraud, "2", "1")

    assert found.passed, found.sentence()
    assert "worse copy of challenger 2" in next(c.why for c in found.checks if c.name == "self_test")


def test_a_champion_that_does_not_say_what_its_features_were_cannot_be_compared(fraud: Fraud) -> None:
    settings, spec = fraud
    register(fraud, "old", spoiled=0.6)
    register(fraud, "new")
    record_version(settings, replace(version_info(settings, spec, "1"), definitions={}))
    Path(settings.store, "runs", "fraud", "old", DEFINITIONS).unlink()

    found = verdict(fraud, "2", "1")

    assert failed(found) == {"not_worse_than_champion", "tells_a_planted_worse_model"}
    assert "does not say by which features version 1 of fraud was made" in found.sentence()


def test_a_regression_model_without_entity_is_judged_by_blocks_of_time(tmp_path: Path) -> None:
    from windsock.served.resampling import clustered_rows

    settings, _ = small_fraud(
        tmp_path,
        label={"column": "TX_FRAUD", "task": "regression", "delay_days": 0},
        entities={},
        features={"row": {"amount": "TX_AMOUNT"}},
        training={"window_days": 7, "metric": "mean_absolute_error"},
        gate={"floors": {"r2": 0.1}},
    )
    spec = get_spec(settings, "fraud")

    week, _ = clustered_rows(spec, world(1))
    month, _ = clustered_rows(spec, world(1, days=28))

    assert (week.clustered_by, week.clusters) == ("block of six hours", 28)
    assert (month.clustered_by, month.clusters) == ("day", 28)


def test_the_log_stays_as_it_was_when_the_gate_fails(fraud: Fraud) -> None:
    crown(fraud, register(fraud, "strong"))
    register(fraud, "weak", spoiled=0.6)
    before = promotions.history(*fraud)

    assert run_step("gate", model="fraud", settings=fraud[0])["passed"] is False
    assert promotions.history(*fraud) == before


def move_scores(fraud: Fraud, run: str, by: float) -> None:
    """Let the first score that training recorded be another."""
    folder = RunFolder.named(Store.of(fraud[0]), "fraud", run)
    recorded = folder.read_table("holdout_scores.parquet")
    scores = recorded["score"].to_numpy().copy()
    scores[0] += by
    place = recorded.column_names.index("score")
    folder.write_table(recorded.set_column(place, "score", pa.array(scores)), "holdout_scores.parquet")


@pytest.mark.parametrize(("by", "trees", "network"), [(1e-11, True, True), (1e-8, False, True), (1e-4, False, False)])
def test_scores_are_held_to_what_the_model_s_format_can_keep(
    fraud: Fraud, by: float, trees: bool, network: bool
) -> None:
    version = register(fraud, "r1")
    move_scores(fraud, "r1", by)
    case = GateContext(*fraud, version, None)
    assert checks.reproduces_its_scores(case).passed is trees

    vars(case)["model"] = replace(case.model, content={"model.safetensors": b"", "model.json": b""})
    assert checks.reproduces_its_scores(case).passed is network
