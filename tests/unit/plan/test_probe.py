"""``windsock plan --probe``: does the source deliver today what was published?"""

from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from churn_model import DAY, delivery
from edited_model import Edited, copied, make_checkout, plans_of
from windsock import tables
from windsock.ingest.records import NO_SOURCE
from windsock.ingest.step import with_known_at
from windsock.ledger import DayRecord, Ledger
from windsock.plan.compare import Looks
from windsock.store import Store

DAYS = [DAY + timedelta(days=n) for n in (18, 19)]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Edited:
    """A model with rows in its last two days."""
    edited = make_checkout(tmp_path_factory.mktemp("checkout"))
    store, ledger = Store.of(edited.settings), Ledger.of(edited.settings, "churn", "ingest")
    for day in DAYS:
        rows = delivery(day, more={"n": pa.array(range(200))})
        labels = rows.select(["event_id", "churned"]).append_column("event_time", rows["seen_at"])
        wanted = {"events": with_known_at(edited.spec, day, rows), "labels": labels}
        outputs = {name: tables.write_day(store, "churn", name, day, table) for name, table in wanted.items()}
        ledger.publish(DayRecord(str(day), "published", outputs, detail={"source": dict(NO_SOURCE)}))
    return edited


def probed(checkout: Edited, home: Path, minutes: float, rows: int) -> list[str]:
    """Let another place deliver the days, and ask for two of them."""
    edited = copied(checkout, home)
    (home / "elsewhere").mkdir()
    for day in DAYS:
        found = delivery(day, more={"n": pa.array(range(200))})
        changed = pa.array([value * minutes for value in found["minutes"].to_pylist()])
        found = found.set_column(found.schema.get_field_index("minutes"), "minutes", changed)
        pq.write_table(found.slice(200 - rows), home / "elsewhere" / f"{day}.parquet")
    edited.set("source.url", f"{home}/elsewhere/{{ds}}.parquet")
    before = edited.snapshot()
    [plan] = plans_of(edited, looks=Looks(probe=2))
    assert edited.snapshot() == before, "a plan wrote something"
    return [note for note in plan.notes if note.startswith("source")]


def test_an_equal_source_is_said_to_be_equal(checkout: Edited, tmp_path: Path):
    assert probed(checkout, tmp_path, 1, 200) == [
        "source: 2 of 2 published days are delivered as they were",
        f"source, {DAYS[1]}: equal",
        f"source, {DAYS[0]}: equal",
    ]


def test_rows_and_columns_that_differ_are_counted(checkout: Edited, tmp_path: Path):
    summary, newest, _ = probed(checkout, tmp_path, 100, 150)
    assert summary == "source: 0 of 2 published days are delivered as they were"
    assert newest == f"source, {DAYS[1]}: 50 rows no longer delivered; minutes differs in 150 of 150 rows"


def test_a_day_that_the_source_does_not_have_is_said(checkout: Edited, tmp_path: Path):
    edited = copied(checkout, tmp_path)
    edited.set("source.url", f"{tmp_path}/nowhere/{{ds}}.parquet")
    [plan] = plans_of(edited, looks=Looks(probe=1))
    assert "source: 0 of 1 published days are delivered as they were" in plan.notes
    assert str(DAYS[1]) in plan.notes[-1]
