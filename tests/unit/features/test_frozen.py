"""A version goes on with the definitions that it was made by, whatever the spec says by now."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from feature_tables import SPENDING_SQL, two_views
from windsock.errors import SpecError
from windsock.features.definition import row_hash
from windsock.features.feature_tables import feature_tables
from windsock.features.frame import feature_names
from windsock.features.frozen import definitions_of, spec_of_version, with_definitions
from windsock.runs.run_folder import DEFINITIONS, LINEAGE
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store
from windsock.version_index import VersionInfo, record_version

AS_OF = date(2026, 3, 10)
ROW = {"TX_AMOUNT": "TX_AMOUNT", "TX_DURING_WEEKEND": "0", "TX_DURING_NIGHT": "0"}


def edit_everything(home: Path) -> ModelSpec:
    """Change both views, a row feature, the entity and the columns of the model."""
    spending = {"name": "spending", "entity": "terminal", "sql": "spending.sql", "lookback_days": 9}
    columns = {"TRANSACTION_ID": "int64", "TX_DATETIME": "timestamp", "TERMINAL_ID": "int64", "AMOUNT": "double"}
    _, spec = two_views(
        home,
        features={
            "row": {"TX_DURING_NIGHT": "AMOUNT", "TX_AMOUNT": "1", "TX_DURING_WEEKEND": "0"},
            "views": [spending],
        },
        entities={"terminal": "TERMINAL_ID"},
        events={"time": "TX_DATETIME", "key": "TRANSACTION_ID", "columns": columns},
        training={"window_days": 7, "metric": "average_precision"},
    )
    sql = SPENDING_SQL.replace("CUSTOMER_ID", "TERMINAL_ID").replace("TX_AMOUNT", "AMOUNT")
    (spec.folder / "spending.sql").write_text(sql)
    (spec.folder / "all.sql").unlink()
    return spec


def test_definitions_give_back_the_features_that_they_were_taken_from_whatever_became_of_the_spec(tmp_path: Path):
    _, spec = two_views(tmp_path)
    frozen, tables, names = definitions_of(spec), feature_tables(spec), feature_names(spec)
    rows = {name: row_hash(spec, name) for name in spec.features.row}

    old = with_definitions(edit_everything(tmp_path), frozen)

    assert (feature_tables(old), feature_names(old)) == (tables, names)
    assert {name: row_hash(old, name) for name in old.features.row} == rows
    assert definitions_of(old) == frozen


def version(settings: Settings, spec: ModelSpec, number: str, **files: Any) -> None:
    for name, content in files.items():
        Store.of(settings).write_json(content, "runs", spec.name, f"run-{number}", f"{name}.json")
    record_version(settings, VersionInfo(spec.name, number, f"run-{number}", AS_OF))


def test_a_version_s_file_counts_and_of_a_run_of_0_1_its_lineage(tmp_path: Path):
    settings, spec = two_views(tmp_path)
    sql = {view.sql: spec.sql_of(view) for view in spec.features.views}
    lineage = {"spec": spec.model_dump(mode="json"), "sql": sql, "features": feature_names(spec)}
    version(settings, spec, "1", definitions=definitions_of(spec))
    version(settings, spec, "2", lineage=lineage)
    tables, names = feature_tables(spec), feature_names(spec)

    now = edit_everything(tmp_path)

    for number in ("1", "2"):
        then = spec_of_version(settings, now, number)
        assert (feature_tables(then), feature_names(then)) == (tables, names)


def test_the_definition_that_was_frozen_names_the_table_whatever_would_come_out_today(tmp_path: Path):
    _, spec = two_views(tmp_path)
    frozen = definitions_of(spec)
    frozen["views"][0]["definition"] = "0" * 64
    assert feature_tables(with_definitions(spec, frozen))[0].name == "features/spending@00000000"


def test_a_run_that_does_not_say_by_what_it_was_made_is_named(tmp_path: Path):
    settings, spec = two_views(tmp_path)
    version(settings, spec, "1", lineage={"commit": "abc"})
    with pytest.raises(SpecError, match=rf"{LINEAGE}: does not say by which features version 1 of fraud was made"):
        spec_of_version(settings, spec, "1")
    with pytest.raises(SpecError, match="No version of model 'fraud' named '7'"):
        spec_of_version(settings, spec, "7")


def test_columns_widened_since_are_read_as_wide_as_they_are_and_others_as_they_were(tmp_path: Path):
    _, spec = two_views(tmp_path)
    frozen = definitions_of(spec)
    columns = dict(frozen["columns"])
    frozen["columns"] = [[n, "int64" if n == "TX_AMOUNT" else kind] for n, kind in columns.items()] + [["GONE", "bool"]]

    read = with_definitions(spec, frozen).events.columns

    assert read == {**columns, "TX_AMOUNT": "double", "GONE": "bool"}
    assert list(read)[-1] == "GONE"


def test_row_features_keep_their_order_which_is_the_model_s(tmp_path: Path):
    _, spec = two_views(tmp_path)
    turned = {"row": dict(reversed(ROW.items())), "views": [view.model_dump() for view in spec.features.views]}
    _, spec = two_views(tmp_path, features=turned)
    stored = Store.of(two_views(tmp_path)[0])
    stored.write_json(definitions_of(spec), "anywhere", DEFINITIONS)
    assert list(with_definitions(spec, stored.read_json("anywhere", DEFINITIONS)).features.row) == [*reversed(ROW)]
