"""Days of features that version 0.1 computed stand under the names of their definitions, and are computed no more."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from churn_model import DAY, HEAD, USAGE, Churn, delivery
from kill import DieAt, Steps
from windsock.completeness import lookback
from windsock.dataset.lacking import lacking
from windsock.features.carry_over import was_carried_over
from windsock.ledger import Ledger

DAYS = [DAY + timedelta(days=n) for n in range(4)]
LABELS = HEAD + (
    "sum(churned) over (partition by customer_id order by epoch_us(seen_at) "
    "range between unbounded preceding and 1 preceding) as f from history"
)


def left_by_0_1(home: Path, sql: str) -> Churn:
    churn = Churn.make(home, sql)
    for day in DAYS:
        churn.ingest(delivery(day), day)
    churn.leave_features_of_0_1(DAYS)
    return churn


def parquets(churn: Churn) -> dict[str, bytes]:
    root = Path(churn.settings.store, "churn", "features")
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*.parquet")}


def old_records(churn: Churn) -> dict[date, object]:
    return dict(Ledger(churn.store, "churn", "features").all())


@pytest.mark.parametrize("sql", [USAGE, LABELS], ids=["events", "labels"])
def test_every_day_stands_with_its_old_files_and_nothing_is_computed(tmp_path: Path, sql: str):
    churn = left_by_0_1(tmp_path, sql)
    files, old = parquets(churn), old_records(churn)

    (lacks,) = lacking(churn.settings, churn.spec, DAYS[0], DAYS[-1])
    results = [churn.step("features", day) for day in DAYS]

    assert lacks.days == []
    assert not any(result["changed"] for result in results)
    assert parquets(churn) == files
    assert old_records(churn) == old
    now = churn.table.ledger(churn.store).all()
    assert {day: r.outputs[churn.table.name] for day, r in now.items()} == {
        day: record.outputs["features/usage"] for day, record in old.items()
    }


@pytest.mark.kill
@pytest.mark.parametrize("call", [1, 3, 4])
def test_a_kill_in_the_middle_leaves_days_for_the_next_time_and_none_is_computed(tmp_path: Path, call: int):
    churn = left_by_0_1(tmp_path, USAGE)
    files = parquets(churn)

    killed = Steps(churn.settings, "churn").run(
        "features", str(DAYS[-1]), die_at=DieAt("windsock.ledger:Ledger.publish", call=call, after=True)
    )

    assert killed.killed
    assert len(Ledger(churn.store, "churn", churn.table.name).days()) == call
    assert not churn.step("features", DAYS[-1])["changed"]
    assert churn.table.ledger(churn.store).days() == DAYS
    assert was_carried_over(churn.table.ledger(churn.store))
    assert parquets(churn) == files


def test_a_day_that_has_changed_since_is_computed_and_its_neighbours_stand(tmp_path: Path):
    churn = left_by_0_1(tmp_path, USAGE)
    churn.ingest(delivery(DAYS[0], rows=300), DAYS[0])

    (lacks,) = lacking(churn.settings, churn.spec, DAYS[0], DAYS[-1])

    assert lacks.missing == ()
    assert list(lacks.stale) == [day for day in DAYS if lookback(day, churn.view.lookback_days)[0] <= DAYS[0]]


@pytest.mark.parametrize("edit", [(" as n_1d", " as n"), ("86399999999", "3599999999")])
def test_another_definition_takes_nothing_from_0_1(tmp_path: Path, edit: tuple[str, str]):
    churn = left_by_0_1(tmp_path, USAGE)
    churn.write_sql(USAGE.replace(*edit))
    (lacks,) = lacking(churn.settings, churn.spec, DAYS[0], DAYS[-1])
    assert list(lacks.missing) == DAYS
