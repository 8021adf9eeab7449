"""Every connection to DuckDB: in UTC, without files, variables, settings or statements beside the query."""

import gc
import multiprocessing
import re
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from windsock import sql
from windsock.errors import SpecError
from windsock.settings import REPO_ROOT
from windsock.sql import open_duckdb, parse_query, query_text, quoted


def test_nothing_else_in_the_product_connects_to_duckdb():
    connects = re.compile(r"duckdb\.(connect|execute|sql|query|default_connection)\b|from duckdb import")
    product = [p for part in ("include", "dags", "plugins") for p in (REPO_ROOT / part).rglob("*.py")]
    assert [p.name for p in product if connects.search(p.read_text())] == ["sql.py"]


@pytest.mark.parametrize(
    "statement",
    [
        "select * from read_csv('/etc/passwd')",
        "select * from read_text('/etc/hostname')",
        "select * from '/etc/passwd'",
        "select * from glob('/*')",
        "select getenv('HOME')",
        "select * from outside",
        "attach '/tmp/other.db'",
        "copy (select 1) to '/tmp/copied.csv'",
        "install httpfs",
        "load httpfs",
        "set threads = 8",
        "set timezone = 'America/New_York'",
        "set enable_external_access = true",
        "reset lock_configuration",
        "pragma enable_profiling",
    ],
)
def test_sql_reaches_nothing_outside_and_changes_no_setting(statement: str):
    outside = pd.DataFrame({"x": [1]})
    with open_duckdb() as connection, pytest.raises(duckdb.Error):
        connection.execute(statement).fetchall()
    assert len(outside) == 1


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata"])
def test_times_are_in_utc_whatever_the_machines_zone_is(monkeypatch: pytest.MonkeyPatch, zone: str):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        with open_duckdb() as connection:
            row = connection.execute("select current_setting('TimeZone'), hour(to_timestamp(0))").fetchall()
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
    assert row == [("UTC", 0)]


@pytest.mark.parametrize(
    "text", ["select 1; select 2", "select 1; drop table x", "attach 'x'", "set threads = 1", "", "--"]
)
def test_only_a_single_query_is_read(text: str):
    with open_duckdb() as connection, pytest.raises(SpecError, match="give one SELECT"):
        parse_query(connection, text)


def test_every_word_is_a_name_once_it_is_quoted():
    with open_duckdb() as connection:
        words = [w for (w,) in connection.execute("select keyword_name from duckdb_keywords()").fetchall()]
        names = ", ".join(f"1 as {quoted(w)}" for w in [*words, 'a "quoted" one'])
        assert connection.sql(f"select {names}").columns == [*words, 'a "quoted" one']


@pytest.mark.parametrize("end", ["", ";", " ;;\n", "; -- done", "\n-- done; really\n;\n/* ; */", "-- done"])
def test_a_query_that_ends_in_semicolons_and_comments_can_stand_in_parentheses(end: str):
    with open_duckdb() as connection:
        inner = query_text("select 'é; --' as x" + end)
        assert connection.sql(f"select * from ({inner}\n)").fetchall() == [("é; --",)]


def test_who_opens_sees_nothing_of_others_though_they_share_a_database():
    with open_duckdb() as one, open_duckdb() as other:
        one.execute("create temp table mine as select 1 as x")
        one.register("given", pd.DataFrame({"x": [1]}))
        for name in ("mine", "given"):
            with pytest.raises(duckdb.CatalogException):
                other.execute(f"select * from {name}")
        other.execute("create temp table mine as select 2 as x")
        assert one.sql("select x from mine").fetchall() == [(1,)]
    with open_duckdb() as later, pytest.raises(duckdb.CatalogException):
        later.execute("select * from mine")


def test_a_database_that_gave_up_is_replaced():
    with open_duckdb() as connection:
        connection.execute("select 1")
    for database in sql._databases.values():
        database.close()
    with open_duckdb() as connection:
        assert connection.sql("select 1").fetchall() == [(1,)]


def test_a_forked_child_opens_its_own_and_ends():
    with open_duckdb() as connection:
        connection.execute("select 1")
    child = multiprocessing.get_context("fork").Process(target=_count_and_exit)
    child.start()
    child.join(60)
    assert child.exitcode == 7


def _count_and_exit() -> None:
    with open_duckdb() as connection:
        assert connection.sql("select sum(i) from range(10) t(i)").fetchall() == [(45,)]
    gc.collect()
    sys.exit(7)


def test_what_spills_is_readable_by_its_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with open_duckdb(memory_limit="41MB") as connection:
        connection.execute("create temp table big as select i, hash(i) as h, hash(-i) as g from range(4000000) t(i)")
        (folder,) = tmp_path.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert any(file.suffix == ".tmp" for file in folder.iterdir())
    assert not any(file.suffix == ".tmp" for file in folder.iterdir())
    folder.chmod(0o777)  # as if somebody else had made it
    with open_duckdb(memory_limit="42MB") as connection:
        connection.execute("select 1")
    assert len(list(tmp_path.iterdir())) == 2
