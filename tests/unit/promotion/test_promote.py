import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from fork_server import fork_context
from kill import DieAt, Steps
from run_folders import make_run, with_mlflow
from small_model import small_fraud
from windsock.errors import ChampionChanged, GateFailed, SpecError
from windsock.ledger import DayRecord, Ledger
from windsock.promotion import step as promote_step
from windsock.promotions import append, champion_on, current, history
from windsock.registry.versions import alias_version, reconcile, set_alias
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.steps import run_step

Fraud = tuple[Settings, ModelSpec]


@pytest.fixture
def fraud(tmp_path: Path) -> Fraud:
    settings, spec = small_fraud(tmp_path)
    return with_mlflow(settings), spec


def step(fraud: Fraud, name: str, *, live: bool = True, origin: str = "manual", **options: Any) -> dict[str, Any]:
    return run_step(name, model="fraud", settings=fraud[0], live=live, origin=origin, options=options)


def passed(fraud: Fraud, run: str, **made: Any) -> dict[str, Any]:
    """Train, register and gate a version; return the gate's result."""
    make_run(*fraud, run, **made)
    step(fraud, "register", run=run)
    return step(fraud, "gate")


def promoted(fraud: Fraud, run: str, **made: Any) -> dict[str, Any]:
    gate = passed(fraud, run, **made)
    return step(fraud, "promote", version=gate["version"], champion_seen=gate["champion_seen"])


WEAK, STRONG = {"spoiled": 0.6}, {"seed": 2}


def test_a_version_that_passed_becomes_champion_and_is_no_challenger_any_more(fraud: Fraud) -> None:
    settings, spec = fraud
    Ledger.of(settings, "fraud", "ingest").publish(DayRecord("2026-05-03", "empty"))

    result = promoted(fraud, "r1")

    assert (result["version"], result["previous"], result["in_force_from"]) == ("1", None, "2026-05-04")
    assert alias_version(settings, spec, "champion") == "1"
    assert alias_version(settings, spec, "challenger") is None
    entry = current(settings, spec)
    assert entry is not None
    assert (entry.run, entry.kind, entry.as_of) == ("r1", "promote", date(2026, 5, 1))
    assert entry.gate_summary["passed"] is True
    assert entry.gate_summary["values"]["floor_average_precision"] > 0.35
    assert champion_on(settings, spec, date(2026, 5, 3)) is None


def test_promoting_again_changes_nothing(fraud: Fraud) -> None:
    first = promoted(fraud, "r1")

    again = step(fraud, "promote", version="1", champion_seen=None, origin="another")

    assert {k: v for k, v in again.items() if k != "seconds"} == {k: v for k, v in first.items() if k != "seconds"}
    assert len(history(*fraud)) == 1


def test_a_retried_run_does_not_undo_a_rollback_that_came_between(fraud: Fraud) -> None:
    promoted(fraud, "weak", **WEAK)
    gate = passed(fraud, "strong", **STRONG)
    asked = {"version": "2", "champion_seen": gate["champion_seen"], "origin": "scheduled__1"}
    step(fraud, "promote", **asked)
    step(fraud, "rollback", reason="complaints")

    step(fraud, "promote", **asked)

    assert current(*fraud).version == "1"  # type: ignore[union-attr]
    assert alias_version(*fraud, "champion") == "1"


def test_without_a_passed_gate_nothing_is_promoted_whatever_the_caller_says(fraud: Fraud) -> None:
    promoted(fraud, "strong", **STRONG)
    make_run(*fraud, "weak", **WEAK)
    step(fraud, "register", run="weak")

    with pytest.raises(SpecError, match="No option of step promote named 'gate'"):
        step(fraud, "promote", version="2", champion_seen="1", gate={"passed": True})
    with pytest.raises(GateFailed, match=r"judged against champion 1: Version 2 failed"):
        step(fraud, "promote", version="2", champion_seen="1")
    with pytest.raises(GateFailed, match="did not pass the gate against champion 1"):
        step(fraud, "promote", version="2", champion_seen="1")

    assert current(*fraud).version == "1"  # type: ignore[union-attr]


def test_if_the_champion_changed_meanwhile_the_gate_runs_again_against_the_new_one(fraud: Fraud) -> None:
    promoted(fraud, "weak", **WEAK)
    gate = passed(fraud, "strong", **STRONG)
    make_run(*fraud, "other", spoiled=0.3, seed=3)
    step(fraud, "register", run="other")
    other = step(fraud, "gate")
    step(fraud, "promote", version=other["version"], champion_seen=other["champion_seen"])

    result = step(fraud, "promote", version="2", champion_seen=gate["champion_seen"])

    assert (result["version"], result["previous"], result["judged_again"]) == ("2", "3", ["3"])
    folder = Path(fraud[0].store, "runs", "fraud", "strong", "gate")
    assert sorted(p.name for p in folder.glob("*.json")) == ["vs-1.json", "vs-3.json"]
    assert current(*fraud).gate_summary["champion_seen"] == "3"  # type: ignore[union-attr]


def test_a_version_that_does_not_beat_the_new_champion_is_not_promoted(fraud: Fraud) -> None:
    promoted(fraud, "weak", **WEAK)
    gate = passed(fraud, "middle", spoiled=0.4, seed=3)
    make_run(*fraud, "strong", **STRONG)
    step(fraud, "register", run="strong")
    other = step(fraud, "gate")
    step(fraud, "promote", version=other["version"], champion_seen=other["champion_seen"])

    with pytest.raises(GateFailed, match="judged against champion 3"):
        step(fraud, "promote", version="2", champion_seen=gate["champion_seen"])


def test_a_promotion_overtaken_in_the_last_moment_is_judged_again(
    fraud: Fraud, monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(fraud, "weak", **WEAK)
    gate = passed(fraud, "strong", **STRONG)
    now = current(*fraud)
    assert now is not None
    overtaken = iter([True, False])

    def overtake(settings: Settings, spec: ModelSpec, entry: Any, *, after: Any) -> Any:
        if next(overtaken):
            append(settings, spec, replace(now, reason="overtaken"), after=after)
        return append(settings, spec, entry, after=after)

    monkeypatch.setattr(promote_step.promotions, "append", overtake)

    result = step(fraud, "promote", version="2", champion_seen=gate["champion_seen"])

    assert result["seq"] == 3
    assert [p.version for p in history(*fraud)] == ["1", "1", "2"]


def test_a_champion_that_keeps_changing_is_a_reason_to_retry(fraud: Fraud, monkeypatch: pytest.MonkeyPatch) -> None:
    passed(fraud, "r1")
    calls = []

    def never(*args: object, **named: object) -> None:
        calls.append(1)
        raise ChampionChanged("again")

    monkeypatch.setattr(promote_step.promotions, "append", never)

    with pytest.raises(ChampionChanged, match="changed 3 times"):
        step(fraud, "promote", version="1", champion_seen=None)
    assert len(calls) == 3


def test_replays_promote_nothing_unless_told_to(fraud: Fraud) -> None:
    passed(fraud, "r1")

    result = step(fraud, "promote", live=False, origin="backfill__1", version="1", champion_seen=None)

    assert result["promoted"] is False
    assert "allow_replay" in result["why"]
    assert history(*fraud) == []
    assert step(fraud, "promote", live=False, version="1", champion_seen=None, allow_replay=True)["promoted"] is True


@pytest.mark.kill
def test_a_kill_between_record_and_alias_is_repaired_by_whoever_comes_next(fraud: Fraud) -> None:
    settings, spec = fraud
    promoted(fraud, "weak", **WEAK)
    passed(fraud, "strong", **STRONG)
    asked = {"version": "2", "champion_seen": "1"}
    place = DieAt("windsock.promotion.step:reconcile")
    trial = Steps(settings, "fraud").run("promote", live=True, origin="run1", options=asked, die_at=place)
    assert trial.killed, trial.error
    assert champion_on(settings, spec, date(2026, 6, 1)).version == "2"  # type: ignore[union-attr]
    assert alias_version(settings, spec, "champion") == "1"

    result = step(fraud, "promote", origin="run1", **asked)

    assert (result["seq"], len(history(settings, spec))) == (2, 2)
    assert alias_version(settings, spec, "champion") == "2"


def test_the_alias_follows_the_log_and_not_a_hand(fraud: Fraud) -> None:
    settings, spec = fraud
    promoted(fraud, "weak", **WEAK)
    passed(fraud, "strong", **STRONG)
    assert reconcile(settings, spec) is False

    set_alias(settings, spec, "champion", "2")
    assert reconcile(settings, spec) is True
    assert alias_version(settings, spec, "champion") == "1"
    set_alias(settings, spec, "champion", None)
    assert reconcile(settings, spec) is True
    assert alias_version(settings, spec, "champion") == "1"


def _promote(settings: Settings, version: str, start: Any, told: Any) -> None:
    start.wait(60)
    try:
        result = run_step(
            "promote", model="fraud", settings=settings, origin=f"run-{version}",
            options={"version": version, "champion_seen": None},
        )  # fmt: skip
        told.put((version, result["seq"], result["previous"]))
    except (GateFailed, ChampionChanged) as err:
        told.put((version, None, type(err).__name__))


def test_of_several_promotions_at_once_each_has_been_judged_against_the_one_before(fraud: Fraud) -> None:
    settings, spec = fraud
    for n, spoiled in enumerate((0.6, 0.4, 0.0), 1):
        make_run(*fraud, f"r{n}", spoiled=spoiled, seed=n)
        step(fraud, "register", run=f"r{n}")
        step(fraud, "gate")
    context = fork_context()
    start, told = context.Barrier(3), context.Queue()
    racers = [context.Process(target=_promote, args=(settings, str(n), start, told)) for n in (1, 2, 3)]
    for racer in racers:
        racer.start()
    outcomes = [told.get(timeout=120) for _ in racers]
    for racer in racers:
        racer.join(60)

    entries = history(settings, spec)
    assert {(p.version, p.seq, p.previous) for p in entries} == {o for o in outcomes if o[1] is not None}
    for before, entry in zip([None, *entries], entries, strict=False):
        assert entry.gate_summary["champion_seen"] == (before.version if before else None)
        assert entry.gate_summary["passed"] is True
    reconcile(settings, spec)
    assert alias_version(settings, spec, "champion") == entries[-1].version


def test_no_version_is_a_fault_of_the_request(fraud: Fraud) -> None:
    with pytest.raises(SpecError, match="which version to promote"):
        step(fraud, "promote")


def edited(fraud: Fraud, path: str, value: Any) -> None:
    """Set a field of a field of ``model.yaml``."""
    file = fraud[1].folder / "model.yaml"
    raw = yaml.safe_load(file.read_text())
    *outer, last = path.split(".")
    part = raw
    for name in outer:
        part = part.setdefault(name, {})
    part[last] = value
    file.write_text(yaml.safe_dump(raw, sort_keys=False))


RULES = [("gate.margin", 0.019), ("training.evaluation.alerts_per_day", 7), ("gate.floors.average_precision", 0.36)]


@pytest.mark.parametrize(("path", "value"), [*RULES, ("description", "The same rules."), ("owner", "somebody else")])
def test_a_stored_pass_is_good_for_the_rules_that_it_was_given_under_and_for_no_others(
    fraud: Fraud, monkeypatch: pytest.MonkeyPatch, path: str, value: Any
) -> None:
    gate, judged = passed(fraud, "r1"), list[str]()
    really = promote_step.judge
    monkeypatch.setattr(promote_step, "judge", lambda *given: judged.append(given[2]) or really(*given))
    edited(fraud, path, value)

    step(fraud, "promote", version="1", champion_seen=gate["champion_seen"])

    assert judged == (["1"] if (path, value) in RULES else [])
    assert current(*fraud).version == "1"  # type: ignore[union-attr]


def test_a_pass_under_easier_floors_promotes_nothing_once_they_are_raised(fraud: Fraud) -> None:
    gate = passed(fraud, "r1")
    edited(fraud, "gate.floors.average_precision", 0.99)

    with pytest.raises(GateFailed, match=r"\[floor_average_precision\]"):
        step(fraud, "promote", version="1", champion_seen=gate["champion_seen"])
    assert history(*fraud) == []

    edited(fraud, "gate.floors.average_precision", 0.3)
    step(fraud, "promote", version="1", champion_seen=gate["champion_seen"])
    assert current(*fraud).version == "1"  # type: ignore[union-attr]


def test_a_verdict_of_0_1_which_names_no_rules_is_good_for_those_of_now(
    fraud: Fraud, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = passed(fraud, "r1")
    for file in ("gate.json", "gate/vs-none.json"):
        path = Path(fraud[0].store, "runs", "fraud", "r1", file)
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "rules"}))
    monkeypatch.setattr(promote_step, "judge", None)

    step(fraud, "promote", version="1", champion_seen=gate["champion_seen"])

    assert current(*fraud).version == "1"  # type: ignore[union-attr]
