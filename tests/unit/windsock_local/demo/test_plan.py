from datetime import date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from windsock.dataset.time_split import windows_of
from windsock.errors import SpecError
from windsock_local.demo.plan import file_plan, simulated_plan


def payments(path: Path, first: date, last: date) -> Path:
    days = (last - first).days + 1
    times = [datetime(first.year, first.month, first.day, 12) + timedelta(days=n) for n in range(days)]
    rows = pa.table(
        {
            "TRANSACTION_ID": list(range(days)),
            "TX_DATETIME": pa.array(times, pa.timestamp("us")),
            "CUSTOMER_ID": [1] * days,
            "TERMINAL_ID": [1] * days,
            "TX_AMOUNT": [1.0] * days,
            "TX_FRAUD": [0] * days,
        }
    )
    if path.suffix == ".csv":
        csv.write_csv(rows, path)
    else:
        pq.write_table(rows, path)
    return path


def test_the_simulated_demo_has_the_days_that_its_story_needs(tmp_path: Path):
    plan = simulated_plan(tmp_path)
    assert (plan.backfill_last - plan.spec.first_day).days >= 45
    assert plan.backfill_last < plan.drift_from < plan.last_day
    assert all(plan.spec.first_day <= day < plan.backfill_last for day in plan.planted)
    window = windows_of(plan.spec, plan.backfill_last)
    assert window.train[0] == plan.spec.first_warm_day


@pytest.mark.parametrize("name", ["payments.parquet", "payments.csv"])
def test_a_file_of_ones_own_is_split_into_history_and_days_to_go_on_with(tmp_path: Path, name: str):
    data = payments(tmp_path / name, date(2025, 1, 1), date(2025, 4, 30))
    plan = file_plan(tmp_path / "home", data, None, None)
    assert (plan.spec.first_day, plan.last_day) == (date(2025, 1, 1), date(2025, 4, 30))
    assert (plan.last_day - plan.backfill_last).days == 14
    assert plan.spec.source.url == str(data)
    assert plan.drift_from is None
    chosen = file_plan(tmp_path / "home", data, date(2025, 1, 10), date(2025, 3, 20))
    assert (chosen.spec.first_day, chosen.last_day) == (date(2025, 1, 10), date(2025, 3, 20))


def test_a_file_with_too_few_days_says_how_many_are_needed(tmp_path: Path):
    data = payments(tmp_path / "short.parquet", date(2025, 1, 1), date(2025, 2, 1))
    with pytest.raises(SpecError, match=r"too short: training needs 65 days .*between 2025-01-01 and 2025-02-01"):
        file_plan(tmp_path / "home", data, None, None)


def test_a_file_that_holds_no_payments_is_named(tmp_path: Path):
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(SpecError, match=r"other\.parquet: cannot be read as transactions with a column 'TX_DATETIME'"):
        file_plan(tmp_path / "home", path, None, None)
