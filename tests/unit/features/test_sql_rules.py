"""Row features are functions of their row; feature SQL reads no clock, chance or files, and names its columns."""

from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from churn_model import COLUMNS, DAY, HEAD, USAGE, Churn, delivery
from windsock.errors import SpecError
from windsock.features.feature_tables import feature_table
from windsock.features.frame import event_frame
from windsock.features.sql_rules import row_faults, view_faults
from windsock.features.view_sql import create_tables
from windsock.sql import open_duckdb


@pytest.fixture(scope="module")
def churn(tmp_path_factory: pytest.TempPathFactory) -> Churn:
    return Churn.make(tmp_path_factory.mktemp("churn"))


GOOD_ROWS = [
    *("minutes", "minutes * 2 -- twice", "(isodow(seen_at) >= 6)::integer", "hour(to_timestamp(epoch(seen_at)))"),
    *(
        "case when minutes > 3 then 1 else 0 end",
        "coalesce(minutes, 0)",
        "age(seen_at, seen_at)",
        "list_sum([minutes])",
    ),
    *("date_diff('day', seen_at, timestamp '2020-01-01')", "minutes in (1, 2)", "strftime(seen_at, '%H')", "1"),
]
OTHER_ROWS = [
    *("minutes / avg(minutes) over ()", "lead(minutes) over (order by seen_at)", "sum(minutes)", "any_value(minutes)"),
    *("minutes / (select max(minutes) from events)", "exists(select 1 from events)", "unnest([1, 2])", "*", "rowid"),
    *("1) , (2", "1) from events where (true", "1) union select (2", "1; select 2", "1), x int, y as (2", "?", "$day"),
    *("read_text('/etc/passwd')", "columns(*)"),
]
MOVING = [
    *("now()", "random()", "uuid()", "today()", "current_date", "current_timestamp", "current_time", "localtime"),
    *("localtimestamp", "current_localtimestamp()", "current_localtime()", "age(seen_at)", "ago(interval 1 day)"),
    *("version()", "current_setting('threads')", "getvariable('x')", "user", "current_user", "session_user"),
    *(
        "pg_postmaster_start_time()",
        "current_schema",
        "current_database()",
        "get_current_timestamp()",
        "getenv('HOME')",
    ),
    *("date_diff('day', seen_at, current_date::timestamp)", "gen_random_uuid()", "nextval('s')", "txid_current()"),
    "main.random()",
]


def row_fault(churn: Churn, expression: str) -> str | None:
    """Return what is wrong with a row feature."""
    features = churn.spec.features.model_copy(update={"row": {"f": expression}})
    return row_faults(churn.spec.model_copy(update={"features": features})).get("f")


@pytest.mark.parametrize("expression", GOOD_ROWS)
def test_a_function_of_one_row_is_a_row_feature(churn: Churn, expression: str):
    assert row_fault(churn, expression) is None


@pytest.mark.parametrize("expression", [*OTHER_ROWS, *MOVING])
def test_what_says_more_than_one_row_can_is_no_row_feature(churn: Churn, expression: str):
    fault = row_fault(churn, expression)
    assert fault is not None
    assert "LINE 1" not in fault


def test_lint_and_the_frame_refuse_a_row_feature_that_a_champion_goes_on_with(tmp_path: Path):
    churn = Churn.make(tmp_path, features__row={"f": "age(seen_at)", "g": "minutes"}, training__categorical=["f"])
    assert [fault for fault in churn.lint() if fault.startswith("features.row.f: age() gives another answer")]
    with pytest.raises(SpecError, match=r"features\.row\.f: age"):
        event_frame(churn.store, churn.spec, [])
    assert event_frame(churn.store, churn.spec, [], for_champion=True).column_names[-2:] == ["f", "g"]


def test_every_function_that_duckdb_calls_unstable_is_refused_in_row_features_and_views(churn: Churn):
    with open_duckdb() as connection:
        unstable = "select distinct function_name from duckdb_functions() where stability <> 'CONSISTENT'"
        names = [name for (name,) in connection.execute(unstable).fetchall()]
    assert {"now", "random", "current_setting", "getvariable"} <= set(names)
    for name in names:
        assert row_fault(churn, f"{name}()") is not None
        churn.write_sql(HEAD + f"{name}() as f from events")
        assert f"{name}() gives another answer" in view_faults(churn.spec, churn.view)[0]


def faults_of(churn: Churn, sql: str) -> list[str]:
    """Return what is wrong with a view, by its text or because it does not run."""
    churn.write_sql(sql)
    try:
        return view_faults(churn.spec, churn.view)
    except SpecError as err:
        return [str(err)]


@pytest.mark.parametrize("expression", MOVING)
def test_a_view_reads_no_clock_no_chance_and_no_setting(churn: Churn, expression: str):
    for sql in (
        HEAD + f"{expression} as f from events",
        HEAD + f"1 as f from events where {expression} is not null",
        f"with w as ({HEAD} {expression} as f from events) select * from w",
    ):
        assert any("gives another answer" in fault for fault in faults_of(churn, sql))


@pytest.mark.parametrize(
    "source",
    [
        *("all_labels", "all_events", "given", "duckdb_settings()", "information_schema.tables", "main.events"),
        *("read_csv('/etc/passwd')", "'/etc/passwd'", "glob('*')", "query('select 1')", "query_table('events')"),
        *("pragma_database_list", "sqlite_master", "(describe events)", "(show tables)", "duckdb_secrets()"),
    ],
)
def test_a_view_reads_its_three_tables_and_nothing_else(churn: Churn, source: str):
    assert faults_of(churn, HEAD + f"1 as f from events, {source}")


def test_what_was_not_known_yet_is_no_table(churn: Churn):
    with open_duckdb() as connection:
        create_tables(connection, churn.spec, None, None, DAY)
        names = {row[2] for row in connection.execute("show all tables").fetchall()}
    assert names == {"events", "labels", "history"}


@pytest.mark.parametrize(
    "sql",
    [
        *("attach ':memory:' as m", "copy events to '/tmp/x'", "pragma version", "install httpfs", "set threads = 1"),
        *(f"{USAGE}; select 1", f"{USAGE}); drop table events; select * from (select 1", "", "-- nothing"),
        f"with a as (delete from events returning *) {USAGE}",
        HEAD + "1 as f from events tablesample 10%",
        HEAD + "reservoir_quantile(minutes, 0.5) over () as f from events",
    ],
)
def test_a_view_is_one_query_that_writes_nothing_and_draws_nothing(churn: Churn, sql: str):
    assert faults_of(churn, sql)


@pytest.mark.parametrize(
    "column",
    [
        *("count(*) over (partition by customer_id)", "minutes + 1", "null", "true", "1", "'a'", "minutes::int"),
        *("case when minutes > 1 then 1 end", "coalesce(minutes, 0)", "-minutes", "not true", "(select 1)", "[1][1]"),
        *("minutes is null", "interval 1 day", 'minutes as "my count"', "minutes in (1)", "{'a': 1}"),
    ],
)
def test_a_column_of_a_view_has_a_name(churn: Churn, column: str):
    for sql in (HEAD + column + " from events", HEAD + f"1 as f, * from events, (select {column} from events)"):
        assert any("name" in fault for fault in faults_of(churn, sql))


@pytest.mark.parametrize("sql", [HEAD + "minutes as order from events", USAGE + " -- the last days", USAGE + "; "])
def test_an_alias_may_be_a_word_of_sql_and_a_comment_may_end_the_file(churn: Churn, sql: str):
    assert faults_of(churn, sql) == []
    assert feature_table(churn.spec, churn.view).features


def test_the_step_refuses_what_lint_refuses(tmp_path: Path):
    churn = Churn.make(
        tmp_path, HEAD + "date_diff('day', min(seen_at) over (), current_date::timestamp) as f from events"
    )
    churn.ingest(delivery(rows=10))
    with pytest.raises(SpecError, match="current_date gives another answer"):
        churn.step("features")
    churn.write_sql(HEAD + "count(*) over (partition by customer_id) from events")
    with pytest.raises(SpecError, match="column 3 has no name"):
        churn.step("features")


def test_every_word_of_sql_may_name_a_column_of_the_events(tmp_path: Path):
    with open_duckdb() as connection:
        reserved = "select keyword_name from duckdb_keywords() where keyword_category in ('reserved', 'type_function')"
        words = [word for (word,) in connection.execute(reserved).fetchall()]
    more = {
        word: float(n)
        for n, word in enumerate([*words, "user", "current_date", "known_at", "event_time", "score", "ds"])
    }
    churn = Churn.make(
        tmp_path,
        HEAD + 'minutes + "order" + events."left" + "user" + known_at as f from events',
        events__columns={**COLUMNS, **dict.fromkeys(more, "double")},
        features__row={f"f_{word}": word for word in more} | {word: "1" for word in words if word != "score"},
    )
    assert churn.lint() == []
    churn.ingest(delivery(rows=3, more={word: pa.array([value] * 3) for word, value in more.items()}))
    frame = event_frame(churn.store, churn.spec, [churn.record()])
    assert {word: frame[f"f_{word}"][0].as_py() for word in more} == more
    churn.step("features")
    (minutes, *_) = churn.rows("events")["minutes"].to_pylist()
    assert churn.features()["f"][0].as_py() == pytest.approx(
        minutes + more["order"] + more["left"] + more["user"] + more["known_at"]
    )


def test_key_time_entity_and_label_may_be_words_of_sql(tmp_path: Path):
    columns = {"order": "int64", "end": "timestamp", "group": "int64", "from": "double"}
    churn = Churn.make(
        tmp_path,
        'select "group", "end" as event_timestamp, avg("from") over (partition by "group" order by "end") as "table" '
        "from history",
        events={"key": "order", "time": "end", "columns": columns},
        entities={"customer": "group"},
        label={"column": "left", "task": "binary", "delay_days": 0},
        features__row={"f": "from", "g": "left(strftime(\"end\", '%H'), 1)::int"},
        training__evaluation={"exclude_known_positives": "group", "alert_entity": "group"},
    )
    assert churn.lint() == []
    churn.ingest(delivery(rows=50).rename_columns([*columns, "left"]))
    churn.step("features")
    assert churn.features().column_names == ["group", "event_timestamp", "table"]


def test_columns_that_differ_only_in_capitals_are_refused_with_a_sentence(tmp_path: Path):
    churn = Churn.make(tmp_path, events__columns={**COLUMNS, "Minutes": "double"})
    with pytest.raises(SpecError, match="'minutes' and 'Minutes' differ only in capital letters"):
        churn.step("ingest")


@pytest.mark.parametrize("place", ["events__key", "label__column"])
def test_keys_and_labels_leave_the_names_of_added_columns_alone(tmp_path: Path, place: str):
    churn = Churn.make(tmp_path, **{"events__columns": {**COLUMNS, "known_at": "int64"}, place: "known_at"})
    if place == "label__column":
        churn = Churn.make(tmp_path, **{place: "known_at"})
    assert any("a column that Windsock adds itself" in fault for fault in churn.lint())


def test_an_event_time_called_event_timestamp_is_trained_on(tmp_path: Path):
    from windsock.steps import run_step

    columns = {"event_id": "int64", "event_timestamp": "timestamp", "customer_id": "int64", "minutes": "double"}
    churn = Churn.make(
        tmp_path,
        USAGE.replace("seen_at as event_timestamp", "event_timestamp").replace("seen_at", "event_timestamp"),
        events={"time": "event_timestamp", "key": "event_id", "columns": columns},
        training__evaluation={"exclude_known_positives": "customer_id"},
    )
    assert churn.lint() == []
    days = [DAY + timedelta(days=n) for n in range(12)]
    for day in days:
        churn.ingest(delivery(day).rename_columns([*columns, "churned"]), day)
        churn.step("features", day)
    made = run_step("assemble", model="churn", settings=churn.settings, options={"as_of": str(days[-1])})
    assert made["rows"]["holdout"] > 0
