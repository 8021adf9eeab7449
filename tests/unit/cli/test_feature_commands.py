"""``windsock apply`` and ``windsock materialize`` say what they did."""

from datetime import date
from pathlib import Path

import pytest
from click.testing import CliRunner

from feature_tables import at, publish, table_of, two_views
from windsock.cli.step import apply, materialize


@pytest.fixture
def world(tmp_path: Path, monkeypatch):
    settings, spec = two_views(tmp_path)
    monkeypatch.setenv("WINDSOCK_HOME", str(settings.home))
    monkeypatch.setenv("WINDSOCK_MODELS", str(settings.models[0]))
    return settings, spec


def test_apply_says_whether_anything_changed(world):
    assert "fraud: registered" in CliRunner().invoke(apply).output
    assert "nothing changed" in CliRunner().invoke(apply).output


def test_apply_names_a_broken_model_and_goes_on(world):
    _, spec = world
    (spec.folder / "spending.sql").write_text("select nonsense")
    result = CliRunner().invoke(apply)
    assert result.exit_code == 64
    assert "fraud: left as it was" in result.output
    assert "nonsense" in result.output


def test_materialize_counts_rows_per_view(world):
    settings, spec = world
    publish(settings, spec, date(2026, 3, 2), {"spending": [(1, at(2), 2, 1.0)], "everything": []})
    result = CliRunner().invoke(materialize, ["fraud", "2026-03-02"])
    assert f"{table_of(spec, 'spending').feast_name}: 1 written, 0 skipped" in result.output
    assert "parity: 1 entities checked, all equal" in result.output
    assert "removed" in CliRunner().invoke(materialize, ["fraud", "2026-03-02", "--correct"]).output
