"""Labels as files of their own under a real Airflow: delivered days after their events, again, late, or for nobody.

A model whose payments and chargebacks are daily files is put into the running stack. The
tests build on each other in the order of this file.
"""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from model_runs import ModelRuns, wait_until
from stack_fixture import Stack
from windsock import tables
from windsock.days import day_range
from windsock.features.feature_tables import feature_tables
from windsock.ingest.sources import simulator
from windsock.ledger import DayRecord, Ledger
from windsock.spec import get_spec
from windsock.spec.sources import SimulatorSource
from windsock.store import Store

pytestmark = pytest.mark.integration

MODEL = "chargebacks"
CHAIN = ("ingest", "labels", "features", "score")
FIRST, LAST = date(2026, 3, 5), date(2026, 3, 11)
DAYS = day_range(FIRST, LAST)
LATE = LAST + timedelta(days=1)
"""Not delivered when its turn comes."""
DELAY, LOOKBACK = 3, 5
UNKNOWN_DAY, AGAIN = date(2026, 3, 10), date(2026, 3, 9)
UNKNOWN_KEYS = [-3, -2, -1]
SIMULATOR = SimulatorSource(kind="simulator", customers=300, terminals=600)
TERMINAL_SQL = f"""
select TERMINAL_ID, TX_DATETIME as event_timestamp,
       count(TX_FRAUD) over recent as NB_KNOWN, coalesce(sum(TX_FRAUD) over recent, 0)::bigint as NB_FRAUD
from history
window recent as (
    partition by TERMINAL_ID order by epoch(TX_DATETIME)::bigint
    range between {LOOKBACK * 86400 - 1} preceding and current row
)
"""
BY_HAND_SQL = f"""
select e.TERMINAL_ID, e.TX_DATETIME, count(l.TX_FRAUD) as NB_KNOWN, coalesce(sum(l.TX_FRAUD), 0)::bigint as NB_FRAUD
from (select distinct TERMINAL_ID, TX_DATETIME from events where TX_DATETIME::date = $day) e
join events h on h.TERMINAL_ID = e.TERMINAL_ID
    and epoch(h.TX_DATETIME)::bigint between epoch(e.TX_DATETIME)::bigint - {LOOKBACK * 86400 - 1}
    and epoch(e.TX_DATETIME)::bigint
left join labels l on l.TRANSACTION_ID = h.TRANSACTION_ID and l.delivered <= $day
group by all order by all
"""
"""The same features straight from the delivered files."""


class Post:
    """Where files of payments and of chargebacks are delivered."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for kind in ("events", "labels"):
            (root / kind).mkdir(parents=True)

    def url(self, kind: str) -> str:
        return f"{self.root}/{kind}/{{ds}}.parquet"

    def deliver(self, kind: str, day: date, rows: pa.Table) -> None:
        aside = self.root / f"{kind}-{day}.new"
        pq.write_table(rows, aside)
        aside.rename(self.root / kind / f"{day}.parquet")

    def deliver_events(self, day: date) -> None:
        columns = ["TRANSACTION_ID", "TX_DATETIME", "TERMINAL_ID", "TX_AMOUNT"]
        self.deliver("events", day, payments(day).select(columns))

    def deliver_labels(self, day: date, *, turned: int = 0) -> None:
        """Deliver the labels of three days ago; every ``turned``-th says the opposite."""
        rows = payments(day - timedelta(days=DELAY)).select(["TRANSACTION_ID", "TX_FRAUD"])
        if day < FIRST + timedelta(days=DELAY):
            rows = rows.slice(0, 0)
        labels = [1 - y if turned and n % turned == 0 else y for n, y in enumerate(rows["TX_FRAUD"].to_pylist())]
        keys = rows["TRANSACTION_ID"].to_pylist()
        if day == UNKNOWN_DAY:
            keys, labels = [*keys, *UNKNOWN_KEYS], [*labels, 1, 0, 1]
        both = {"TRANSACTION_ID": pa.array(keys, pa.int64()), "TX_FRAUD": pa.array(labels, pa.int64())}
        self.deliver("labels", day, pa.table(both))


def payments(day: date) -> pa.Table:
    return simulator.transactions(SIMULATOR, FIRST, day)


def spec_of(post: Post) -> dict[str, Any]:
    files = {"url": post.url("labels"), "key": "TRANSACTION_ID", "horizon_days": DELAY + 1}
    return {
        "name": MODEL,
        "owner": "risk-ml",
        "description": "Was this payment charged back? A file says so three days later.",
        "first_day": FIRST,
        "last_day": date(2026, 4, 30),
        "source": {"kind": "files", "url": post.url("events")},
        "events": {
            "time": "TX_DATETIME",
            "key": "TRANSACTION_ID",
            "columns": {
                "TRANSACTION_ID": "int64",
                "TX_DATETIME": "timestamp",
                "TERMINAL_ID": "int64",
                "TX_AMOUNT": "double",
            },
        },
        "entities": {"terminal": "TERMINAL_ID"},
        "label": {"column": "TX_FRAUD", "task": "binary", "delay_days": DELAY, "files": files},
        "features": {
            "row": {"TX_AMOUNT": "TX_AMOUNT"},
            "views": [
                {
                    "name": "terminal",
                    "entity": "terminal",
                    "sql": "terminal.sql",
                    "lookback_days": LOOKBACK,
                    "ttl_days": 30,
                }
            ],
        },
        "training": {"window_days": 5, "holdout_days": 3, "metric": "average_precision"},
        "gate": {"floors": {"average_precision": 0.1}},
    }


@pytest.fixture(scope="module")
def post(stack: Stack) -> Post:
    delivered = Post(stack.post / MODEL)
    for day in DAYS:
        delivered.deliver_events(day)
        delivered.deliver_labels(day)
    return delivered


@pytest.fixture(scope="module")
def runs(stack: Stack, post: Post) -> ModelRuns:
    """The model, its DAGs there and unpaused."""
    aside = stack.home / f"{MODEL}.new"  # appears whole
    aside.mkdir()
    (aside / "model.yaml").write_text(yaml.safe_dump(spec_of(post), sort_keys=False), encoding="utf-8")
    (aside / "terminal.sql").write_text(TERMINAL_SQL, encoding="utf-8")
    aside.rename(stack.models / MODEL)
    for stage in CHAIN:
        stack.api.wait_for_dag(f"{MODEL}_{stage}", 240)
    stack.api.set_paused(f"{MODEL}_ingest", False)
    return ModelRuns(stack, MODEL)


def record(runs: ModelRuns, stage: str, day: date) -> DayRecord:
    found = Ledger.of(runs.stack.settings, MODEL, stage).get(day)
    assert found is not None
    return found


def rows_of(runs: ModelRuns, stage: str, day: date, table: str) -> list[tuple[Any, ...]]:
    rows = tables.read(Store.of(runs.stack.settings), [record(runs, stage, day)], table)
    assert rows is not None
    return list(zip(*(column.to_pylist() for column in rows.columns), strict=True))


def features(runs: ModelRuns, day: date) -> list[tuple[Any, ...]]:
    (table,) = feature_tables(get_spec(runs.stack.settings, MODEL))
    return sorted(rows_of(runs, table.name, day, table.name))


def features_by_hand(post: Post, day: date) -> list[tuple[Any, ...]]:
    with duckdb.connect() as db:
        db.execute(f"create view events as from read_parquet('{post.root}/events/*.parquet')")
        db.execute(
            "create view labels as select *, parse_filename(filename, true)::date as delivered "
            f"from read_parquet('{post.root}/labels/*.parquet', filename = true)"
        )
        return db.execute(BY_HAND_SQL, {"day": day}).fetchall()


def test_a_backfill_from_the_last_day_backwards_two_at_a_time_ends_with_one_run_per_day(runs: ModelRuns):
    # One day more than there is: its run fails after its retries, and meanwhile holds one of the two places.
    body = {
        "dag_id": runs.dag("ingest"),
        "from_date": f"{FIRST}T00:00:00Z",
        "to_date": f"{LATE}T00:00:00Z",
        "max_active_runs": 2,
        "run_backwards": True,
        "reprocess_behavior": "none",
        "dag_run_conf": {},
    }
    runs.stack.api.call("POST", "backfills", body)
    runs.wait_for_days("score", DAYS, 400)
    for stage in CHAIN:
        assert runs.days(stage) == dict.fromkeys(map(str, DAYS), 1)
    started = sorted((r["start_date"], r["partition_key"]) for r in runs.all("ingest"))
    assert [key for _, key in started[:2]] == [str(LATE), str(LAST)]
    # Nothing was computed for a day before its label file was there.
    assert all(runs.result("labels", r["dag_run_id"])["refresh"] == [] for r in succeeded(runs, "labels"))


def succeeded(runs: ModelRuns, stage: str) -> list[dict[str, Any]]:
    return [run for run in runs.all(stage) if run["state"] == "success"]


def test_labels_for_unknown_events_are_set_aside_and_the_others_taken(runs: ModelRuns):
    aside = {day: record(runs, "labels", day).detail["quarantined"] for day in DAYS}
    assert {day: found for day, found in aside.items() if found} == {UNKNOWN_DAY: {"unknown event": 3}}
    set_aside = rows_of(runs, "labels", UNKNOWN_DAY, "label_quarantine")
    assert sorted(int(row[2]) for row in set_aside) == UNKNOWN_KEYS
    assert {row[0] for row in set_aside} == {"unknown event"}
    taken = payments(UNKNOWN_DAY - timedelta(days=DELAY))
    assert len(rows_of(runs, "labels", UNKNOWN_DAY, "labels")) == taken.num_rows


def test_features_of_a_day_use_the_labels_delivered_by_that_day(runs: ModelRuns, post: Post):
    for day in (FIRST, FIRST + timedelta(days=DELAY - 1), FIRST + timedelta(days=DELAY), LAST):
        found = features(runs, day)
        assert found == features_by_hand(post, day)
        assert any(row[2] for row in found) == (day >= FIRST + timedelta(days=DELAY))


def test_labels_delivered_again_refresh_the_features_that_used_them_without_a_person(runs: ModelRuns, post: Post):
    before = {day: features(runs, day) for day in DAYS}
    known = {stage: runs.ids(stage) for stage in CHAIN}
    post.deliver_labels(AGAIN, turned=2)
    run_id = runs.start("labels", AGAIN)
    runs.finish("labels", run_id)
    touched = day_range(AGAIN, LAST)
    assert runs.result("labels", run_id)["refresh"] == [str(day) for day in touched]
    runs.wait_for_days("score", touched, 240, known["score"])
    for stage in ("features", "score"):
        assert runs.days(stage, known=known[stage]) == dict.fromkeys(map(str, touched), 1)
    after = {day: features(runs, day) for day in DAYS}
    assert {day for day in DAYS if after[day] != before[day]} == set(touched)
    for day in touched:
        assert after[day] == features_by_hand(post, day)


def test_in_a_backfill_a_day_that_was_not_delivered_fails_and_says_so(runs: ModelRuns):
    (run_id,) = (r["dag_run_id"] for r in runs.all("ingest") if r["partition_key"] == str(LATE))
    run = runs.stack.api.wait_for_run(runs.dag("ingest"), run_id, 400)
    assert run["state"] == "failed"
    log = runs.log("ingest", run_id)
    assert "UpstreamUnavailable" in log
    assert f"events/{LATE}.parquet does not exist (yet)" in log


def test_live_a_late_file_is_waited_for_and_the_chain_goes_on_when_it_comes(runs: ModelRuns, post: Post):
    known = {stage: runs.ids(stage) for stage in CHAIN}
    ingest = runs.start("ingest", LATE)
    runs.wait_for_state("ingest", ingest, "up_for_reschedule")
    assert f"Not ready: {post.root}/events/{LATE}.parquet does not exist (yet)" in runs.log("ingest", ingest)

    post.deliver_events(LATE)
    runs.finish("ingest", ingest)
    labels = started_live(runs, known["labels"])
    wait_until(
        lambda: f"Not ready: {post.root}/labels/{LATE}.parquet does not exist (yet)" in runs.log("labels", labels),
        60,
        "the labels' log names the file that is waited for",
    )
    runs.wait_for_state("labels", labels, "up_for_reschedule")
    assert not runs.days("features", known=known["features"])

    post.deliver_labels(LATE)
    runs.finish("labels", labels)
    runs.wait_for_days("score", [LATE], 240, known["score"])
    for stage in ("features", "score"):
        assert runs.days(stage, known=known[stage]) == {str(LATE): 1}
    assert features(runs, LATE) == features_by_hand(post, LATE)


def started_live(runs: ModelRuns, known: set[str]) -> str:
    """Wait for the one run of the labels that the late day has started."""
    wait_until(lambda: bool(runs.ids("labels") - known), 60, "a run of the labels")
    (run_id,) = runs.ids("labels") - known
    return run_id
