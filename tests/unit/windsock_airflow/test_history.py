"""Logs of Airflow's tasks: those of old runs of a model go, whole, and nothing else."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from small_model import small_fraud
from windsock_airflow.history import prune_logs

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def write_log(folder: Path, dag_id: str, run_id: str, *ages_in_days: float) -> Path:
    run = folder / f"dag_id={dag_id}" / f"run_id={run_id}"
    for number, age in enumerate(ages_in_days):
        file = run / "task_id=ingest" / f"attempt={number}.log"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("Not ready\n")
        os.utime(file, ((NOW - timedelta(days=age)).timestamp(),) * 2)
    for path in (run, run / "task_id=ingest"):
        os.utime(path, ((NOW - timedelta(days=max(ages_in_days))).timestamp(),) * 2)
    return run


def test_logs_of_runs_that_ended_long_ago_go_and_all_others_stay(tmp_path: Path) -> None:
    settings, _ = small_fraud(tmp_path / "home", retention={"run_days": 30})
    folder = tmp_path / "logs"
    old = write_log(folder, "fraud_ingest", "scheduled__1", 40, 31)
    kept = [
        write_log(folder, "fraud_ingest", "scheduled__2", 40, 29),  # it waited long
        write_log(folder, "fraud_features", "asset_triggered__1", 1),
        write_log(folder, "another_team", "scheduled__1", 400),
    ]
    (folder / "scheduler.log").write_text("")

    assert prune_logs(settings, folder, NOW) == 1
    assert not old.exists()
    assert all(run.is_dir() for run in kept)
    assert (folder / "scheduler.log").exists()
    assert prune_logs(settings, folder, NOW) == 0
    assert prune_logs(settings, tmp_path / "none", NOW) == 0
