"""A definition's name follows its meaning: what may be written otherwise, and what makes another table."""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from churn_model import COLUMNS, HEAD, USAGE, Churn
from examples import examples
from windsock.features.definition import definition_hash, normal_form, read_columns, reads_labels, row_hash, table_name
from windsock.settings import REPO_ROOT
from windsock.spec import ModelSpec, load_spec

REFERENCE = REPO_ROOT / "include" / "models" / "fraud" / "model.yaml"
NAMES = {
    "customer_spending": "features/customer_spending@e7795ad5",
    "terminal_risk": "features/terminal_risk@c74a22eb",
    "TX_AMOUNT": "2eb0a417",
    "TX_DURING_WEEKEND": "5603c09c",
    "TX_DURING_NIGHT": "e3e0d27d",
}
"""Whoever changes one decides that everybody computes that view of the reference model anew."""
OTHER_DUCKDB = ("1.3.2", "1.4.4")
WORD = re.compile(r"[A-Za-z_]\w*")
TOKENS = (
    'select customer_id , seen_at as event_timestamp , count ( * ) over w as N_1d , max ( "minutes" ) over w as top , '
    "sum ( ( minutes > 1.5 ) :: integer ) over w as long , 'Week' as word from events window w as "
    "( partition by customer_id order by epoch_us ( seen_at ) range between 86399999999 preceding and current row )"
)


def names_of(spec: ModelSpec) -> dict[str, str]:
    views = {view.name: table_name(spec, view) for view in spec.features.views}
    return views | {name: row_hash(spec, name)[:8] for name in spec.features.row}


def test_the_reference_model_s_names_are_these():
    assert names_of(load_spec(REFERENCE)) == NAMES


@pytest.mark.parametrize("version", OTHER_DUCKDB)
def test_another_duckdb_gives_the_same_names(version: str, tmp_path: Path):
    pip = [sys._base_executable, "-m", "pip", "install", "--quiet", "--no-deps", "--retries", "0"]
    got = subprocess.run(
        [*pip, "--only-binary", ":all:", "--target", str(tmp_path), f"duckdb=={version}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if got.returncode != 0:
        pytest.skip(f"DuckDB {version} cannot be had here: {got.stderr.strip().splitlines()[-1]}")
    script = f"""
import sys
sys.path[:0] = [{str(tmp_path)!r}, {str(Path(__file__).parent)!r}, {str(REPO_ROOT / "tests")!r}]
import duckdb, test_definition
print(duckdb.__version__, test_definition.names_of(test_definition.load_spec(test_definition.REFERENCE)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{version} {NAMES}"


@pytest.fixture(scope="module")
def churn(tmp_path_factory: pytest.TempPathFactory) -> Churn:
    return Churn.make(tmp_path_factory.mktemp("churn"))


def hash_of(churn: Churn, sql: str) -> str:
    churn.write_sql(sql)
    return definition_hash(churn.spec, churn.view)


@st.composite
def written(draw: st.DrawFn) -> str:
    """Write the tokens with other spaces, comments and letters; aliases and what stands in quotes stay."""
    spaces = st.sampled_from([" ", "\n", "\t  ", " /* why; 'it' */ ", ' -- to the end; of the "line\n', "\r\n"])
    parts, before = [], ""
    for token in TOKENS.split():
        free = WORD.fullmatch(token) and before != "as" and token != "customer_id"
        parts += [draw(st.sampled_from([token, token.upper(), token.title()])) if free else token, draw(spaces)]
        before = token
    return "".join(parts) + draw(st.sampled_from(["", ";", " -- end", "\n;\n\n"]))


@examples(30)
@given(sql=written())
def test_comments_layout_and_capital_letters_never_move_a_name(churn: Churn, sql: str):
    assert hash_of(churn, sql) == hash_of(churn, TOKENS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        *(("86399999999", "86399999998"), ("1.5", "1.50"), ("'Week'", "'week'"), ("as N_1d", "as n_1d")),
        *(("as word", "as words"), ('"minutes"', '"MINUTES"'), ("max (", "min ("), ("current row", "1 following")),
        ("'Week' as word", "'Week' as word , 1 as one"),
        ("count ( * ) over w as N_1d , max ( \"minutes\" ) over w as top",
         "max ( \"minutes\" ) over w as top , count ( * ) over w as N_1d"),
    ],
)  # fmt: skip
def test_another_number_text_order_or_alias_is_another_definition(churn: Churn, old: str, new: str):
    assert TOKENS.count(old) >= 1
    assert hash_of(churn, TOKENS.replace(old, new)) != hash_of(churn, TOKENS)


@examples(30)
@given(one=st.integers(0, 10**12), other=st.integers(0, 10**12))
def test_names_are_equal_exactly_where_the_numbers_are(churn: Churn, one: int, other: int):
    first, second = (hash_of(churn, TOKENS.replace("86399999999", str(number))) for number in (one, other))
    assert (first == second) == (one == other)


USAGE_VIEW = {"name": "usage", "entity": "customer", "sql": "usage.sql", "lookback_days": 2}
MOVING = {
    "lookback": {"features__views": [{**USAGE_VIEW, "lookback_days": 3}]},
    "type of a column that is read": {"events__columns": {**COLUMNS, "minutes": "int64"}},
    "entity": {"features__views": [{k: v for k, v in USAGE_VIEW.items() if k != "entity"}]},
    "type of the entity": {"events__columns": {**COLUMNS, "customer_id": "string"}},
}
STAYING = {
    "ttl": {"features__views": [{**USAGE_VIEW, "ttl_days": 9}]},
    "name of the entity": {"entities": {"who": "customer_id"}, "features__views": [{**USAGE_VIEW, "entity": "who"}]},
    "view": {"features__views": [{**USAGE_VIEW, "name": "other"}]},
    "delay of the labels": {"label__delay_days": 9},
    "owner": {"owner": "somebody"},
    "first day": {"first_day": "2026-02-01"},
    "columns that nobody reads": {"events__columns": {**COLUMNS, "mcc": "int64", "note": "string"}},
    "type of a column that nobody reads": {"events__columns": {**COLUMNS, "event_id": "string"}},
    "row features": {"features__row": {"twice": "minutes * 2"}},
    "training": {"training__window_days": 9},
}


@pytest.mark.parametrize(("field", "moves"), [*((f, True) for f in MOVING), *((f, False) for f in STAYING)])
def test_a_definition_moves_with_what_its_rows_depend_on_and_with_nothing_else(tmp_path: Path, field: str, moves: bool):
    fields: Mapping[str, Any] = {**MOVING, **STAYING}[field]
    before, after = (Churn.make(tmp_path / name, USAGE, **given) for name, given in (("a", {}), ("b", fields)))
    one, other = (definition_hash(churn.spec, churn.view) for churn in (before, after))
    assert (one != other) == moves


READS = {
    HEAD + "minutes as f from events": {"seen_at", "customer_id", "minutes"},
    HEAD + "MINUTES as f from EVENTS": {"seen_at", "customer_id", "minutes"},
    HEAD + "count(*) over () as f from history": {"seen_at", "customer_id"},
    HEAD + "e.minutes as f from events e join labels l using (event_id)": {
        *("seen_at", "customer_id", "minutes", "event_id"),
    },
    HEAD + "coalesce(churned, 0) as f from history": {"seen_at", "customer_id", "churned"},
    "select *, seen_at as event_timestamp from events": {*COLUMNS, "churned"},
    "select events.*, seen_at as event_timestamp from events": {*COLUMNS, "churned"},
    "select customer_id, seen_at as event_timestamp, f from (select *, 1 as f from events)": {*COLUMNS, "churned"},
    "select customer_id, seen_at as event_timestamp, 1 as f from events natural join labels": {*COLUMNS, "churned"},
    HEAD + "e::varchar as f from events e": {*COLUMNS, "churned"},
    HEAD + "columns('min.*') from events": {*COLUMNS, "churned"},
    "select c as customer_id, s as event_timestamp, 1 as f from events e(i, s, c)": {*COLUMNS, "churned"},
    "select c as customer_id, s as event_timestamp, 1 as f from (from events) e(i, s, c)": {*COLUMNS, "churned"},
}


@pytest.mark.parametrize("sql", READS)
def test_a_definition_reads_the_columns_that_it_names_and_all_where_it_may_see_all(churn: Churn, sql: str):
    churn.write_sql(sql)
    assert set(read_columns(churn.spec, churn.view)) == READS[sql]


@pytest.mark.parametrize(
    ("sql", "moves"),
    [
        (HEAD + "minutes as f from events", False),
        ("select c as customer_id, s as event_timestamp, m as f from events e(i, s, c, m)", True),
        ("with e(i, s, c, m) as (from events) select c as customer_id, s as event_timestamp, m as f from e", True),
        ("select #3 as customer_id, #2 as event_timestamp, #4 as f from events", True),
    ],
)
def test_the_order_of_columns_moves_the_name_where_sql_takes_them_by_their_places(churn: Churn, sql: str, moves: bool):
    churn.write_sql(sql)
    spec, (event, time, customer, *rest) = churn.spec, churn.spec.events.columns.items()
    turned = spec.events.with_columns(dict([customer, time, event, *rest]))

    other = definition_hash(spec.model_copy(update={"events": turned}), churn.view)

    assert (other != definition_hash(spec, churn.view)) == moves


@pytest.mark.parametrize(
    ("source", "reads"),
    [
        ("events", False),
        ("history", False),
        ("labels", True),
        ("history where churned = 1", True),
        ("history as h(event_id, seen_at, customer_id, minutes, known_at, y) where y = 1", True),
    ],
)
def test_whoever_names_the_label_or_its_table_reads_labels(churn: Churn, source: str, reads: bool):
    columns = "l.event_time as event_timestamp, 1 as f from labels l" if source == "labels" else None
    churn.write_sql(f"select {columns}" if columns else HEAD + f"minutes as f from {source}")
    assert reads_labels(churn.spec, churn.view) == reads


def test_what_stands_in_quotes_is_kept_to_the_letter():
    assert normal_form("SELECT 'a  --B' AS \"A b\", $$X ; y$$ -- no\n;") == "select 'a  --B' as \"A b\" , $$X ; y$$"
    assert normal_form("select 'größer' as Ö -- ü\n, 1") == "select 'größer' as Ö , 1"
