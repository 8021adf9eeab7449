"""``windsock canary`` says whether this engine computes the days that stand to the same bytes, and writes nothing."""

from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from churn_model import DAY, USAGE, Churn, files_below
from windsock import promotions
from windsock.cli import main
from windsock.features import canary
from windsock.features.frozen import definitions_of
from windsock.promotions import Promotion
from windsock.version_index import VersionInfo, record_version

LAST = DAY + timedelta(days=11)


@pytest.fixture
def churn(churn_days: Churn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Churn:
    copied = churn_days.copied(tmp_path)
    monkeypatch.setenv("WINDSOCK_HOME", str(tmp_path))
    monkeypatch.setenv("WINDSOCK_MODELS", str(tmp_path / "models"))
    return copied


def put_in_force(churn: Churn) -> None:
    spec = churn.spec
    record_version(churn.settings, VersionInfo("churn", "1", "run-1", DAY, definitions=definitions_of(spec)))
    entry = Promotion(0, "promote", "1", "run-1", None, DAY, DAY, "test")
    promotions.append(churn.settings, spec, entry, after=None)


def moved_digit(rows: pa.Table) -> pa.Table:
    place = rows.column_names.index("mean_1d")
    values = [value if value is None else value + 1e-12 for value in rows["mean_1d"].to_pylist()]
    return rows.set_column(place, "mean_1d", pa.array(values, rows.schema.field(place).type))


def test_an_untouched_store_is_computed_to_the_same_bytes_and_nothing_is_written(churn: Churn, tmp_path, capsys):
    before = files_below(tmp_path)
    assert main(["canary", "--model", "churn"]) == 0
    assert capsys.readouterr().out == f"churn: {churn.table.name}: {LAST}, 200 rows: equal\n"
    assert files_below(tmp_path) == before


def test_other_rows_end_with_65_and_name_the_table_and_still_nothing_is_written(churn, tmp_path, monkeypatch, capsys):
    really, before = canary.compute_view, files_below(tmp_path)
    monkeypatch.setattr(canary, "compute_view", lambda *given: moved_digit(really(*given)))
    assert main(["canary"]) == 65
    said = capsys.readouterr()
    assert f"churn: {churn.table.name}: {LAST}, 200 rows: differs" in said.out
    assert "1 of them would get other rows" in said.err
    assert files_below(tmp_path) == before


def test_every_living_definition_is_looked_at_and_one_without_days_says_so(churn, capsys):
    put_in_force(churn)
    old = churn.table.name
    churn.write_sql(USAGE.replace("86399999999", "172799999999"))
    assert main(["canary"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"churn: {old}: {LAST}, 200 rows: equal",
        f"churn: {churn.table.name}: no day to compare with yet",
    ]


def test_a_view_of_the_next_training_that_does_not_run_does_not_keep_the_champion_s_from_being_looked_at(churn, capsys):
    put_in_force(churn)
    old = churn.table.name
    churn.write_sql("select nonsense from events")
    assert main(["canary"]) == 0
    assert f"{old}: {LAST}, 200 rows: equal" in capsys.readouterr().out
