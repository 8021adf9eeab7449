"""``windsock plan --suite``: what the rules as they are would make of the deliveries that were kept."""

import json
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from churn_model import DAY, delivery
from edited_model import Edited, copied, make_checkout, plans_of
from windsock.ledger import DayRecord, Ledger, Output
from windsock.plan.compare import Looks

DAYS = [DAY + timedelta(days=n) for n in (17, 18, 19)]
RULE = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "minutes", "max_value": 20}}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Edited:
    """A model with kept deliveries of its last three days."""
    edited = make_checkout(tmp_path_factory.mktemp("checkout"))
    ledger, raw = Ledger.of(edited.settings, "churn", "ingest"), edited.home / "store" / "raw" / "churn"
    raw.mkdir(parents=True)
    for day in DAYS:
        pq.write_table(delivery(day, more={"n": pa.array(range(200))}), raw / f"{day}.parquet")
        kept = {"name": f"{day}.parquet", "hash": "x", "origin": "here", "raw": f"raw/churn/{day}.parquet"}
        outputs = {"events": Output(200, "x", ())}
        ledger.publish(DayRecord(str(day), "published", outputs, detail={"source": kept}))
    return edited


def tried(checkout: Edited, home: Path, budget: float, **rule: object) -> list[str]:
    edited = copied(checkout, home)
    if rule:
        (edited.folder / "expectations.json").write_text(json.dumps({"expectations": [{**RULE, **rule}]}))
    edited.set("validation.quarantine_budget", budget)
    before = edited.snapshot()
    [plan] = plans_of(edited, looks=Looks(suite=True))
    assert edited.snapshot() == before, "a plan wrote something"
    return [note for note in plan.notes if note.startswith("suite")]


def over(day_index: int) -> int:
    return sum(minutes > 20 for minutes in delivery(DAYS[day_index])["minutes"].to_pylist())


def test_rules_that_all_rows_meet_set_nothing_aside(checkout: Edited, tmp_path: Path):
    assert tried(checkout, tmp_path, 0.5) == ["suite: of 3 kept days 0 would be refused, 0 of 600 rows set aside"]


def test_rows_that_a_new_rule_sets_aside_are_counted(checkout: Edited, tmp_path: Path):
    summary, *each = tried(checkout, tmp_path, 1, severity="warning")
    assert summary == f"suite: of 3 kept days 0 would be refused, {over(0) + over(1) + over(2)} of 600 rows set aside"
    assert each[0] == f"suite, {DAYS[0]}: {over(0)} rows set aside, 0 when it was published"


def test_days_that_a_new_rule_refuses_are_named_with_the_reason(checkout: Edited, tmp_path: Path):
    summary, first, *_ = tried(checkout, tmp_path, 0.1, severity="critical")
    assert summary.startswith("suite: of 3 kept days 3 would be refused")
    assert first.startswith(f"suite, {DAYS[0]}: refused: minutes: {over(0)} of 200 rows break the rule")
