import os
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from small_model import small_fraud
from windsock import tables
from windsock.errors import DamagedRecord, SpecError
from windsock.ledger import DayRecord, Ledger
from windsock.maintenance import step
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.steps import run_step
from windsock.store import Store

Fraud = tuple[Settings, ModelSpec]
DAY = date(2026, 3, 1)


@pytest.fixture
def fraud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fraud:
    monkeypatch.setattr(step, "rebuild_docs", lambda cleaning: True)
    return small_fraud(tmp_path)


def write(settings: Settings, *values: int, publish: bool = True, day: date = DAY) -> DayRecord:
    ledger = Ledger.of(settings, "fraud", "ingest")
    rows = pa.table({"TRANSACTION_ID": pa.array(values, pa.int64())})
    output = tables.write_day(Store.of(settings), "fraud", "events", day, rows)
    record = DayRecord(day.isoformat(), "published", {"events": output})
    return ledger.publish(record) if publish else record


def maintain(settings: Settings, **options: Any) -> dict[str, Any]:
    return run_step("maintain", model="fraud", settings=settings, options=options)


def age(settings: Settings, days: int) -> None:
    """Make every file of the store look old."""
    then = time.time() - days * 86400
    for path in Path(settings.store).rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def parquets(settings: Settings) -> set[str]:
    root = Path(settings.store)
    return {str(p.relative_to(root)) for p in (root / "fraud" / "events").glob("ds=*/*.parquet")}


def test_what_a_past_record_names_stays_and_can_still_be_read(fraud: Fraud) -> None:
    settings, _ = fraud
    old = write(settings, 1, 2, 3)
    write(settings, 4, 5)
    age(settings, 400)

    result = maintain(settings)

    assert result["deleted"] == 0
    pinned = Ledger.of(settings, "fraud", "ingest").pinned({str(DAY): old.content_hash})
    rows = tables.read(Store.of(settings), pinned.values(), "events")
    assert rows is not None
    assert rows["TRANSACTION_ID"].to_pylist() == [1, 2, 3]


def test_what_no_record_ever_named_goes_once_it_is_old(fraud: Fraud) -> None:
    settings, _ = fraud
    lost = write(settings, 9, publish=False)  # killed before its record
    kept = write(settings, 1)
    assert maintain(settings)["deleted"] == 0
    age(settings, 8)
    assert maintain(settings, dry_run=True)["deleted"] == 1
    assert set(lost.outputs["events"].files) <= parquets(settings)

    result = maintain(settings)

    assert (result["deleted"], result["kept"]) == (1, 1)
    assert result["freed_bytes"] > 0
    assert parquets(settings) == set(kept.outputs["events"].files)


def test_the_log_of_a_delta_table_that_0_1_kept_goes_and_its_recorded_files_stay(fraud: Fraud) -> None:
    settings, _ = fraud
    kept = write(settings, 1)
    log = Path(settings.store, "fraud", "events", "_delta_log", "00000000000000000000.json")
    log.parent.mkdir()
    log.write_text("{}")
    age(settings, 100)

    assert maintain(settings)["deleted"] == 1
    assert not log.exists()
    assert parquets(settings) == set(kept.outputs["events"].files)


def test_an_unreadable_record_stops_everything_before_a_file_is_deleted(fraud: Fraud) -> None:
    settings, _ = fraud
    write(settings, 9, publish=False)
    write(settings, 1)
    age(settings, 100)
    before = parquets(settings)
    Path(settings.store, "fraud", "ledger", "ingest", "2026-03-02.json").write_text("{")

    with pytest.raises(DamagedRecord, match=r"ingest/2026-03-02\.json"):
        maintain(settings)
    assert parquets(settings) == before


def test_a_retention_below_a_week_is_refused(fraud: Fraud) -> None:
    with pytest.raises(SpecError, match="at least 7"):
        maintain(fraud[0], retention_days=1)


def test_old_temporary_files_go_and_fresh_ones_stay(fraud: Fraud) -> None:
    settings, _ = fraud
    write(settings, 1)
    folder = Path(settings.store, "fraud", "ledger", "ingest")
    (folder / ".2026-03-01.json.abc.tmp").write_bytes(b"half")
    age(settings, 2)
    (folder / ".2026-03-01.json.def.tmp").write_bytes(b"in flight")

    assert maintain(settings)["temporary"] == 1
    assert [p.name for p in folder.glob(".*.tmp")] == [".2026-03-01.json.def.tmp"]


def test_a_day_written_again_after_the_cleaning_is_whole(fraud: Fraud) -> None:
    settings, _ = fraud
    lost = write(settings, 9, publish=False)
    write(settings, 1)
    age(settings, 30)
    maintain(settings)

    again = write(settings, 9)

    assert again.outputs["events"].hash == lost.outputs["events"].hash
    rows = tables.read(Store.of(settings), [again], "events")
    assert rows is not None
    assert rows["TRANSACTION_ID"].to_pylist() == [9]


def test_trouble_with_the_data_docs_is_told_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings, _ = small_fraud(tmp_path)
    (tmp_path / "gx_is_a_file").write_text("")
    broken = replace(settings, gx_root=tmp_path / "gx_is_a_file")

    assert maintain(broken)["docs"] is False
    assert "could not be rebuilt" in caplog.text
