"""``windsock upgrade`` where the databases are elsewhere, and what it refuses; all of it runs in test_upgrade.py."""

import json
from pathlib import Path

import pytest

from small_model import small_fraud
from windsock import format_numbers, store
from windsock.cli import main
from windsock.errors import SpecError
from windsock.settings import Settings
from windsock.store import MARKER, Store
from windsock_local.stack import doctor
from windsock_local.stack.doctor import within
from windsock_local.stack.home import Home
from windsock_local.stack.lifecycle import prepared_stack
from windsock_local.stack.postgres import Postgres


@pytest.fixture
def earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A store of 0.1 whose databases are elsewhere, and a process that has not looked at it."""
    settings, _ = small_fraud(tmp_path)
    record = Path(settings.store, "fraud", "ledger", "ingest", "2026-03-01.json")
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    for name in ("_opened", "_marked"):
        monkeypatch.setattr(store, name, set())
    for variable, value in (("HOME", settings.home), ("STORE", settings.store), ("MODELS", settings.models[0])):
        monkeypatch.setenv(f"WINDSOCK_{variable}", str(value))
    return settings


def said(capsys: pytest.CaptureFixture[str]) -> str:
    shown = capsys.readouterr()
    return " ".join((shown.out + shown.err).split())


def test_beside_databases_of_others_it_does_the_store_alone_and_says_so(
    earlier: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["upgrade", "--check"]) == 1
    assert "To do: store: from format 1 (Windsock 0.1) to format 2" in said(capsys)
    assert main(["upgrade"]) == 64
    assert "Name a place with --backup" in said(capsys)
    assert main(["upgrade", "--no-backup", "--backup", "x"]) == 64
    assert not Path(earlier.store, MARKER).exists()

    assert main(["upgrade", "--backup", str(tmp_path / "backups")]) == 0
    told = said(capsys)
    assert "migrated by their own parts" in told
    assert f"mv {earlier.store} {earlier.store}.upgraded WINDSOCK_STORE={earlier.store} windsock restore" in told
    assert "--only store Upgraded." in told
    assert json.loads(Path(earlier.store, MARKER).read_text())["format"] == 2
    assert main(["upgrade", "--check"]) == 0
    monkeypatch.setattr(store, "_opened", set())
    assert Store.of(earlier).exists("fraud")


def test_a_layout_of_a_later_version_is_not_upgraded(earlier: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, marker in (("store", Path(earlier.store, MARKER)), ("home", Home.of(earlier).marker)):
        text = "format: 99\nwindsock: 7.0\n" if kind == "home" else '{"format": 99, "windsock": "7.0"}'
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.write_text(text)
        assert main(["upgrade"]) == 64
        told = said(capsys)
        assert f"is a {kind} of format 99" in told
        assert "Windsock 7.0 wrote it" in told
        assert marker.read_text() == text
        marker.unlink()


@pytest.mark.parametrize("database", ["airflow", "mlflow"])
@pytest.mark.parametrize(("version", "step"), [("3.0.0", "Run `windsock upgrade`"), ("99.0", "Go on with the version")])
def test_a_stack_does_not_start_on_tables_of_another_version(
    tmp_path: Path, database: str, version: str, step: str
) -> None:
    settings, _ = small_fraud(tmp_path)
    home = Home.of(settings)
    home.create()
    home.postgres.mkdir()
    Postgres(home).note_migrated(database, version)
    with pytest.raises(SpecError, match=rf"database '{database}' has the tables of \S+ {version}, .*{step}"):
        prepared_stack(settings, lambda _part, _seconds: None).__enter__()
    (found,) = within(10, doctor._CHECKS["database"], settings)
    assert found[0] == "problem"
    assert step in found[1]


def test_a_half_upgraded_home_names_the_backup_from_before(tmp_path: Path) -> None:
    settings, _ = small_fraud(tmp_path)
    home = Home.of(settings)
    home.create()
    home.mark({**home.said(), format_numbers.UPGRADING: "/mnt/back ups 2026-01-01T00-00-00.0Z"})
    with pytest.raises(
        SpecError, match=r"half upgraded: .* again, .*the backup 2026-01-01T00-00-00\.0Z in /mnt/back ups"
    ):
        home.look()
