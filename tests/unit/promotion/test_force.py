"""From which day a promotion is in force, whatever has been recorded by mistake, and how it is corrected."""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from examples import examples
from small_model import small_fraud
from windsock.days import day_range, utc_now
from windsock.errors import SpecError
from windsock.ledger import DayRecord, Ledger
from windsock.promotion.rollback_step import stack_of
from windsock.promotions import Promotion, append, champion_on, current, first_day_in_force, history
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.steps import run_step

Fraud = tuple[Settings, ModelSpec]
FIRST, MISTAKE = date(2026, 5, 1), date(2062, 1, 1)


@pytest.fixture
def fraud(tmp_path: Path) -> Fraud:
    return small_fraud(tmp_path)


def record(fraud: Fraud, stage: str, first: date, last: date | None = None, status: Any = "published") -> None:
    for day in day_range(first, last or first):
        Ledger.of(fraud[0], "fraud", stage).publish(DayRecord(str(day), status))


def promote(fraud: Fraud, version: str, as_of: date, in_force_from: date | None = None) -> Promotion:
    """Add an entry, in force from where a promotion of today would be unless another day is given."""
    now = current(*fraud)
    first = in_force_from or first_day_in_force(*fraud, as_of)
    kind: Any = "rollback" if version in {p.version for p in history(*fraud)} else "promote"
    previous = now.version if now else None
    return append(*fraud, Promotion(0, kind, version, f"run-{version}", previous, first, as_of, "test"), after=now)


def correct(fraud: Fraud, **options: Any) -> dict[str, Any]:
    return run_step("correct", model="fraud", settings=fraud[0], options={"reason": "a mistyped key", **options})


@pytest.mark.parametrize("stage", ["ingest", "score"])
def test_a_day_dated_after_today_moves_no_promotion_and_no_rollback(fraud: Fraud, stage: str) -> None:
    for each in ("ingest", "score"):
        record(fraud, each, FIRST, FIRST + timedelta(days=9))
    record(fraud, stage, MISTAKE)

    assert promote(fraud, "1", FIRST).in_force_from == FIRST + timedelta(days=10)
    assert promote(fraud, "2", FIRST).in_force_from == FIRST + timedelta(days=10)


def test_what_was_promoted_to_a_far_day_holds_up_nobody_after_it(fraud: Fraud) -> None:
    promote(fraud, "1", FIRST)
    record(fraud, "score", FIRST + timedelta(days=1), FIRST + timedelta(days=9))
    promote(fraud, "2", FIRST, MISTAKE)

    assert promote(fraud, "1", FIRST).in_force_from == FIRST + timedelta(days=10)
    assert champion_on(*fraud, MISTAKE).seq == 3  # type: ignore[union-attr]


def test_a_promotion_that_took_force_too_late_is_corrected_to_the_first_day_without_a_score(fraud: Fraud) -> None:
    promote(fraud, "1", FIRST)
    record(fraud, "score", FIRST + timedelta(days=1), FIRST + timedelta(days=9))
    record(fraud, "score", FIRST + timedelta(days=10), status="no_champion")
    record(fraud, "score", MISTAKE - timedelta(days=1))
    promote(fraud, "2", FIRST, MISTAKE)

    result = correct(fraud, by="ann")

    first = FIRST + timedelta(days=10)
    assert (result["version"], result["in_force_from"], result["instead_of"]) == ("2", str(first), str(MISTAKE))
    on = [champion_on(*fraud, day) for day in (first - timedelta(days=1), first)]
    assert [p and p.version for p in on] == ["1", "2"]
    entry, before = history(*fraud)[-1], history(*fraud)[-2]
    assert (entry.kind, entry.reason, entry.by, entry.previous) == ("correct", "a mistyped key", "ann", "1")
    kept = ("run", "version", "as_of", "previous", "gate_summary")
    assert [getattr(entry, name) for name in kept] == [getattr(before, name) for name in kept]
    assert stack_of(history(*fraud)) == ["1", "2"]


def test_a_correction_goes_before_no_scored_day_and_before_nothing_that_training_knew(fraud: Fraud) -> None:
    with pytest.raises(SpecError, match="no version has ever been promoted"):
        correct(fraud)
    promote(fraud, "1", FIRST)
    with pytest.raises(SpecError, match="training knew everything up to 2026-05-01"):
        correct(fraud)
    record(fraud, "score", FIRST + timedelta(days=1), FIRST + timedelta(days=4))
    promote(fraud, "2", FIRST)
    with pytest.raises(SpecError, match=r"from 2026-05-06, and cannot be from an earlier day.*void fraud score DAY"):
        correct(fraud)
    with pytest.raises(SpecError, match="say why"):
        correct(fraud, reason=" ")
    assert len(history(*fraud)) == 2


DAYS = st.integers(1, 12).map(lambda n: FIRST + timedelta(days=n))
DEEDS = st.one_of(
    st.tuples(st.sampled_from(["ingest", "score"]), st.one_of(DAYS, DAYS, st.just(MISTAKE))),
    st.tuples(st.sampled_from(["promote", "promote late", "promote late", "rollback", "correct"]), DAYS),
)


@examples(60, suppress=[HealthCheck.function_scoped_fixture])
@given(deeds=st.lists(DEEDS, min_size=4, max_size=12))
def test_whatever_is_recorded_promoted_and_corrected_no_scored_day_changes_its_champion(
    tmp_path_factory: pytest.TempPathFactory, deeds: list[tuple[str, date]]
) -> None:
    fraud = small_fraud(tmp_path_factory.mktemp("force"))
    today, scored = utc_now().date(), dict[date, str]()
    for deed, day in [("promote", FIRST), *deeds, ("correct", FIRST)]:
        before = champion_on(*fraud, today)
        if deed == "score" and (now := champion_on(*fraud, day)) is not None and day not in scored:
            record(fraud, "score", day)
            scored[day] = now.version
        elif deed in ("ingest", "score"):
            record(fraud, deed, day, status="no_champion" if day not in scored else "published")
        elif deed == "promote late":  # as happened while a day after today moved promotions
            promote(fraud, str(len(history(*fraud)) + 1), day, MISTAKE + timedelta(days=1))
        elif deed == "promote":
            promote(fraud, str(len(history(*fraud)) + 1), day)
        elif deed == "rollback" and (stack := stack_of(history(*fraud)))[:-1]:
            promote(fraud, stack[-2], day)
        elif deed == "correct":
            corrects(fraud)

        entries = history(*fraud)
        assert all(champion_on(*fraud, d).version == v for d, v in scored.items() if d <= today)  # type: ignore[union-attr]
        force = [entry.seq for d in day_range(FIRST, FIRST + timedelta(days=14)) if (entry := champion_on(*fraud, d))]
        assert force == sorted(force)
        if before is not None and entries[-1].kind != "correct":
            assert entries[-1].in_force_from >= before.in_force_from


def corrects(fraud: Fraud) -> None:
    """Correct the champion: by one entry more, or not at all; a second time it is refused."""
    entries = history(*fraud)
    try:
        made = correct(fraud)
    except SpecError:
        assert history(*fraud) == entries
        return
    assert history(*fraud)[:-1] == entries
    assert history(*fraud)[-1].in_force_from < entries[-1].in_force_from
    assert replace(history(*fraud)[-1], seq=0).version == made["version"]
    with pytest.raises(SpecError, match="cannot be from an earlier day"):
        correct(fraud)
