"""What ``windsock backfill`` and ``trigger`` refuse before they look for a stack, so always in the same words."""

from datetime import timedelta
from pathlib import Path

import pytest

from small_model import small_fraud
from windsock.cli import main
from windsock.days import utc_now

TOMORROW = str(utc_now().date() + timedelta(days=1))


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["backfill", "fraud", "--from", "2026-03-01", "--to", TOMORROW], 64, "what has not happened"),
        (["backfill", "fraud", "--from", "2026-03-02", "--to", "2026-03-01"], 64, "no range of days"),
        (["backfill", "froud", "--from", "2026-03-01", "--to", "2026-03-02"], 64, "Did you mean 'fraud'"),
        (["backfill", "fraud", "--from", "2026-03-01", "--to", "2026-03-02"], 75, "Start it with `windsock up`"),
        (["trigger", "fraud_train", "--conf", "seven"], 64, "not of the form NAME=VALUE"),
        (["trigger", "fraud_ingest", "--key", "today"], 64, "is not a day"),
        (["trigger", "fraud_train"], 75, "Start it with `windsock up`"),
    ],
)
def test_a_wrong_request_ends_with_64_whether_a_stack_runs_or_not(
    arguments: list[str],
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WINDSOCK_HOME", str(tmp_path))
    monkeypatch.setenv("WINDSOCK_MODELS", str(tmp_path / "models"))
    small_fraud(tmp_path)

    assert main(arguments) == code
    assert said in capsys.readouterr().err
