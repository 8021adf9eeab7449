"""The online store never goes backwards, equals the tables, and survives kills."""

import math
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from examples import examples
from feature_tables import at, publish, table_of, two_views
from fork_server import fork_context
from kill import Steps
from windsock.errors import NotReady, ParityError, SpecError
from windsock.featurestore.online_db import OnlineRow, micros_of
from windsock.featurestore.repo import feast_home
from windsock.featurestore.sinks import open_sink
from windsock.settings import Settings
from windsock.steps import run_step
from windsock.store import Store

DAYS = {
    2: [(1, at(2, 9), 1, 1.0), (1, at(2, 20), 2, 1.5), (2, at(2, 10), 1, 2.0)],
    3: [(2, at(3, 10), 2, 3.0), (3, at(3, 11), None, math.nan)],
    4: [(1, at(4, 8), 3, 4.0)],
    5: [(3, at(5, 8), 2, 5.0), (4, at(5, 9), 1, 6.0)],
}


def fill(settings, spec) -> None:
    for day, rows in DAYS.items():
        everything = [(t, n, n is not None, f"day {day}", t) for _, t, n, _ in rows]
        publish(settings, spec, date(2026, 3, day), {"spending": rows, "everything": everything})


def materialize(settings: Settings, day: int, **options) -> dict:
    return run_step("materialize", model="fraud", key=f"2026-03-{day:02}", settings=settings, options=options)


def online(settings, spec, view: str = "spending", entities=(1, 2, 3, 4, 5)) -> dict:
    table = table_of(spec, view)
    return open_sink(settings, [table]).read(table, list(entities) if table.entity else [None])


def counts_of(result: dict, spec, view: str = "spending") -> dict:
    return result["views"][table_of(spec, view).feast_name]


def latest(days) -> dict:
    rows = sorted((r for d in days for r in DAYS[d]), key=lambda r: r[1])
    return {r[0]: OnlineRow(micros_of(r[1]), (r[2], b"nan" if math.isnan(r[3]) else r[3])) for r in rows}


def test_the_latest_row_of_each_entity_is_served_with_every_type(tmp_path: Path):
    settings, spec = two_views(tmp_path)
    fill(settings, spec)

    first = materialize(settings, 2)
    materialize(settings, 3)

    assert counts_of(first, spec) == {"written": 2, "skipped": 0}
    assert counts_of(first, spec, "everything") == {"written": 1, "skipped": 0}
    assert len(first["views"]) == 2
    assert first["parity"] == {"checked": 3, "mismatches": 0}
    assert online(settings, spec) == latest([2, 3])
    seen = micros_of(at(3, 11))
    row = OnlineRow(seen, (None, 0, "day 3", seen // 1_000_000))
    assert online(settings, spec, "everything") == {None: row}


def online_table(spec, view: str) -> str:
    return f"windsock_{table_of(spec, view).feast_name}"


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    settings, spec = two_views(tmp_path_factory.mktemp("filled"))
    fill(settings, spec)
    materialize(settings, 2)
    return settings, spec


def forget(settings: Settings, spec) -> None:
    """Empty the online store, as it is before the first day: nothing remembers that it was ever filled."""
    shutil.rmtree(Store.of(settings).path(spec.name, "online"), ignore_errors=True)
    for table in (*(online_table(spec, view) for view in ("spending", "everything")), "windsock_days"):
        with sqlite3.connect(feast_home(settings) / "online.db") as connection:
            connection.execute(f'delete from "{table}"')
        connection.close()


@examples(25, suppress=[HealthCheck.too_slow])
@given(order=st.lists(st.sampled_from(sorted(DAYS)), min_size=1, max_size=9))
def test_any_order_and_any_repetition_serve_the_latest_of_what_was_materialized(filled, order):
    settings, spec = filled
    forget(settings, spec)
    before: dict = {}
    for day in order:
        materialize(settings, day)
        now = online(settings, spec)
        assert all(now[e].micros >= row.micros for e, row in before.items()), "an entity went backwards"
        before = now
    assert before == latest(set(order))


def test_a_store_that_was_lost_is_filled_again_by_the_next_day_and_only_then(tmp_path: Path):
    settings, spec = two_views(tmp_path)
    fill(settings, spec)
    for day in (2, 4, 5):
        first = materialize(settings, day)
        assert "refilled" not in counts_of(first, spec), "a new store gets the days that are materialized"
    (feast_home(settings) / "online.db").unlink()

    again = materialize(settings, 2)

    assert counts_of(again, spec) == {"written": 0, "skipped": 2, "refilled": 4}
    assert online(settings, spec) == latest(DAYS)
    assert counts_of(materialize(settings, 3), spec) == {"written": 0, "skipped": 2}


def test_running_a_day_again_changes_nothing(tmp_path: Path):
    settings, spec = two_views(tmp_path)
    fill(settings, spec)
    for day in DAYS:
        materialize(settings, day)
    before = online(settings, spec)
    for day in DAYS:
        counts = materialize(settings, day)["views"]
        assert all(c["written"] == 0 for c in counts.values())
    assert online(settings, spec) == before == latest(DAYS)


def test_backfilling_an_old_day_leaves_every_newer_value_as_it_was(tmp_path: Path):
    settings, spec = two_views(tmp_path)
    fill(settings, spec)
    materialize(settings, 5)
    before = online(settings, spec)
    materialize(settings, 2)
    after = online(settings, spec)
    assert {e: after[e] for e in before} == before
    assert after.keys() - before.keys() == {1, 2}


def _materialize_some(settings: Settings, days: list[int]) -> int:
    for day in days:
        materialize(settings, day)
    return len(days)


def test_parallel_writers_end_where_one_writer_ends(filled):
    settings, spec = filled
    forget(settings, spec)
    draw = random.Random(1)
    orders = [[day for _ in range(5) for day in draw.sample(sorted(DAYS), len(DAYS))] for _ in range(3)]
    with ProcessPoolExecutor(3, mp_context=fork_context()) as pool:
        assert list(pool.map(_materialize_some, [settings] * 3, orders)) == [20] * 3
    assert online(settings, spec) == latest(DAYS)


def test_a_recomputed_day_overwrites_rows_of_the_same_time(tmp_path: Path):
    settings, spec = two_views(tmp_path)
    fill(settings, spec)
    for day in DAYS:
        materialize(settings, day)
    publish(settings, spec, date(2026, 3, 4), {"spending": [(1, at(4, 8), 33, 44.0)], "everything": []})

    # A newer day is checked against the version that was materialized, not the one that still waits for it.
    materialize(settings, 2)
    assert counts_of(materialize(settings, 4), spec) == {"written": 1, "skipped": 0, "retracted": 0}

    assert online(settings, spec)[1] == OnlineRow(micros_of(at(4, 8)), (33, 44.0))


def test_a_version_published_while_the_day_is_written_is_the_one_that_stays(tmp_path: Path, monkeypatch):
    from windsock.featurestore import step

    settings, spec = two_views(tmp_path)
    fill(settings, spec)
    read_latest, waiting = step._latest, [44.0]

    def slow_latest(*args):
        rows = read_latest(*args)
        if waiting:
            new = [(1, at(4, 8), 33, waiting.pop())]
            publish(settings, spec, date(2026, 3, 4), {"spending": new, "everything": []})
        return rows

    monkeypatch.setattr(step, "_latest", slow_latest)
    materialize(settings, 4)

    assert online(settings, spec) == {1: OnlineRow(micros_of(at(4, 8)), (33, 44.0))}


def test_a_row_that_vanished_with_its_day_is_set_right_without_a_person(tmp_path: Path):
    settings, spec = two_views(tmp_path)
    fill(settings, spec)
    for day in DAYS:
        materialize(settings, day)
    day5 = [(4, at(5, 7), 1, 6.5)]  # entity 3 has no row on that day any more, entity 4 an earlier one
    publish(settings, spec, date(2026, 3, 5), {"spending": day5, "everything": []})

    result = materialize(settings, 5)

    assert counts_of(result, spec)["retracted"] == 2
    truth = {**latest([2, 3, 4]), 4: OnlineRow(micros_of(at(5, 7)), (1, 6.5))}
    assert online(settings, spec) == truth
    assert materialize(settings, 5)["parity"]["mismatches"] == 0


def test_a_replaced_old_day_leaves_newer_rows_as_they_are(tmp_path: Path):
    settings, spec = two_views(tmp_path)
    fill(settings, spec)
    for day in DAYS:
        materialize(settings, day)
    publish(settings, spec, date(2026, 3, 2), {"spending": [(2, at(2, 11), 7, 7.0)], "everything": []})

    materialize(settings, 2)

    assert online(settings, spec) == latest(DAYS)


def test_correcting_removes_entities_that_the_tables_do_not_know(tmp_path: Path):
    settings, spec = two_views(tmp_path)
    fill(settings, spec)
    materialize(settings, 5)
    publish(settings, spec, date(2026, 3, 5), {}, status="rejected")

    result = materialize(settings, 5, correct=True)

    assert counts_of(result, spec)["removed"] == 1  # entity 3 goes back to its row of day 3
    assert online(settings, spec) == {3: latest([3])[3]}


def test_a_tampered_value_is_found_named_and_mended(tmp_path: Path):
    settings, spec = two_views(tmp_path)
    fill(settings, spec)
    for day in DAYS:
        materialize(settings, day)
    served = online_table(spec, "spending")
    _tamper(settings, f'update "{served}" set f_LAST_AMOUNT = 666 where event_us = ?', micros_of(at(4, 8)))

    with pytest.raises(ParityError) as caught:
        materialize(settings, 2)

    message = str(caught.value)
    for part in ("view 'spending'", "entity 1", "LAST_AMOUNT=666", "LAST_AMOUNT=4.0", "materialize fraud 2026-03-02"):
        assert part in message
    assert counts_of(materialize(settings, 2, correct=True), spec)["written"] == 1
    assert online(settings, spec) == latest(DAYS)


def _tamper(settings: Settings, sql: str, *values) -> None:
    with sqlite3.connect(feast_home(settings) / "online.db") as connection:
        assert connection.execute(sql, values).rowcount > 0
    connection.close()


def test_a_day_without_features_is_waited_for_and_an_empty_one_is_fine(tmp_path: Path):
    settings, spec = two_views(tmp_path)
    with pytest.raises(NotReady, match="features of 2026-03-06 are not there yet"):
        materialize(settings, 6)
    publish(settings, spec, date(2026, 3, 6), {}, status="empty")
    assert counts_of(materialize(settings, 6), spec) == {"written": 0, "skipped": 0}


def test_the_step_runs_without_importing_feast_once_the_views_are_registered(tmp_path: Path):
    settings, spec = two_views(tmp_path)
    fill(settings, spec)
    materialize(settings, 2)
    code = (
        "import sys; from windsock.steps import run_step; run_step('materialize', model='fraud', key='2026-03-03');"
        "print(sorted({'feast', 'torch', 'mlflow'} & set(sys.modules)))"
    )
    env = {**os.environ, "WINDSOCK_HOME": str(settings.home), "WINDSOCK_MODELS": str(settings.models[0])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_edited_view_is_served_from_a_table_of_its_own(tmp_path: Path):
    settings, spec = two_views(tmp_path)
    fill(settings, spec)
    materialize(settings, 2)
    old = table_of(spec, "spending")
    sql = spec.folder / "spending.sql"
    sql.write_text(sql.read_text().replace("TX_AMOUNT as LAST", "TX_AMOUNT * 2 as TWICE, TX_AMOUNT as LAST"))
    assert online(settings, spec) == {}

    publish(settings, spec, date(2026, 3, 2), {"spending": [(1, at(2, 20), 9, 3.0, 1.5)]})
    materialize(settings, 2)
    assert online(settings, spec) == {1: OnlineRow(micros_of(at(2, 20)), (9, 3.0, 1.5))}
    assert open_sink(settings, [old]).read(old, [1, 2]) == latest([2])


@pytest.mark.kill
def test_a_kill_leaves_a_day_whole_or_absent_and_a_rerun_completes_it(tmp_path: Path):
    settings, spec = two_views(tmp_path)
    many = [(n, at(2, 8), n, n / 2) for n in range(20_000)]
    publish(settings, spec, date(2026, 3, 2), {"spending": many, "everything": [(at(2, 8), 1, True, "w", at(2, 8))]})
    publish(settings, spec, date(2026, 3, 1), {})
    materialize(settings, 1)
    draw, steps = random.Random(7), Steps(settings, "fraud")
    for _ in range(6):
        steps.run("materialize", "2026-03-02", kill_after=draw.uniform(0.02, 0.5))
        served = len(online(settings, spec, entities=range(20_000)))
        assert served in (0, 20_000)
        assert len(online(settings, spec, "everything")) == (1 if served else 0)
    materialize(settings, 2)
    assert len(online(settings, spec, entities=range(20_000))) == 20_000
    assert counts_of(materialize(settings, 2), spec)["written"] == 0


def test_an_entity_column_that_cannot_be_a_key_is_refused(tmp_path: Path):
    settings, spec = two_views(tmp_path, entities={"customer": "TX_AMOUNT"})
    with pytest.raises(SpecError, match=r"'TX_AMOUNT', which is of type double.*int64 or string"):
        materialize(settings, 2)
    with pytest.raises(SpecError, match="int64 or string"):
        table_of(spec, "spending")
