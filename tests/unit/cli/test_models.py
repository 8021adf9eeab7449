import json
from datetime import date
from pathlib import Path

import pytest
import yaml

from small_model import small_fraud
from windsock.cli import main
from windsock.ledger import DayRecord, Ledger
from windsock.promotions import Promotion, append
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.version_index import VersionInfo, record_version


@pytest.fixture
def fraud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Settings, ModelSpec]:
    monkeypatch.setenv("WINDSOCK_HOME", str(tmp_path))
    monkeypatch.setenv("WINDSOCK_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("COLUMNS", "160")
    return small_fraud(tmp_path)


def test_lint_is_silent_about_nothing_and_exits_0_if_all_is_well(
    fraud: tuple[Settings, ModelSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lint"]) == 0
    assert "fraud: ok" in capsys.readouterr().out


def test_lint_lists_the_faults_and_exits_64(
    fraud: tuple[Settings, ModelSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    path = fraud[1].folder / "model.yaml"
    raw = yaml.safe_load(path.read_text())
    raw["training"]["categorical"] = ["TX_DURING_WEEKND"]
    path.write_text(yaml.safe_dump(raw))

    assert main(["lint", str(path)]) == 64
    assert "Did you mean 'TX_DURING_WEEKEND'?" in capsys.readouterr().out
    assert main(["lint", "--json"]) == 64
    assert json.loads(capsys.readouterr().out)[0]["faults"]


def test_lint_of_an_unknown_model_names_the_nearest(
    fraud: tuple[Settings, ModelSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lint", "--model", "froud"]) == 64
    assert "Did you mean 'fraud'?" in capsys.readouterr().err


def test_an_installation_without_models_says_where_they_would_be(
    fraud: tuple[Settings, ModelSpec],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    monkeypatch.setenv("WINDSOCK_MODELS", str(nowhere))
    for arguments in (["lint"], ["models"], ["models", "--model", "fraud"], ["step", "score", "--model", "fraud"]):
        assert main(arguments) == 64
        assert f"in {nowhere}" in capsys.readouterr().err


def test_models_works_before_anything_has_happened(
    fraud: tuple[Settings, ModelSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models"]) == 0
    assert "fraud" in capsys.readouterr().out


def test_models_shows_champion_challenger_and_last_days(
    fraud: tuple[Settings, ModelSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    settings, spec = fraud
    for version in ("1", "2"):
        record_version(settings, VersionInfo("fraud", version, f"run-{version}", date(2026, 4, 30), {"roc_auc": 0.9}))
    append(
        settings,
        spec,
        Promotion(0, "promote", "1", "run-1", None, date(2026, 5, 1), date(2026, 4, 30), "first", by="ann"),
        after=None,
    )
    Ledger.of(settings, "fraud", "ingest").publish(DayRecord("2026-05-03", "empty"))

    assert main(["models", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["models"][0]

    assert (row["champion"]["version"], row["champion"]["in_force_from"], row["champion"]["by"]) == (
        "1",
        "2026-05-01",
        "ann",
    )
    assert (row["challenger"], row["versions"], row["last_days"]["ingest"]) == ("2", 2, "2026-05-03")
    assert main(["models"]) == 0
    assert "2026-05-03" in capsys.readouterr().out


def test_a_broken_model_is_told_and_hides_no_other(
    fraud: tuple[Settings, ModelSpec], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models" / "bad").mkdir()
    (tmp_path / "models" / "bad" / "model.yaml").write_text("name: bad\n")

    assert main(["models", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)

    assert [row["model"] for row in told["models"]] == ["fraud"]
    assert list(told["broken"]) == ["bad"]
