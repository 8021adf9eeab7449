"""Airflow's history: what there is of old runs of Windsock's DAGs goes, whole, and nothing else."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from airflow.models.asset import AssetEvent, AssetPartitionDagRun, PartitionedAssetKeyLog
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from airflow_tables import task_values
from small_model import small_fraud
from windsock_airflow.history import History

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
    history = History(settings, NOW)

    assert history.prune_logs(folder) == 1
    assert not old.exists()
    assert all(run.is_dir() for run in kept)
    assert (folder / "scheduler.log").exists()
    assert history.prune_logs(folder) == 0
    assert history.prune_logs(tmp_path / "none") == 0


def add_run(session: Session, dag_id: str, run_id: str, ended: float | None, run_type: str = "scheduled") -> int:
    """Add a run that ended so many days ago (None: it goes on), with all that Airflow keeps of one."""
    if session.get(DagModel, dag_id) is None:
        session.add(DagModel(dag_id=dag_id, bundle_name="dags"))
        session.flush()
    at = NOW - timedelta(days=100 if ended is None else ended)
    state = "running" if ended is None else "failed"
    run = DagRun(dag_id=dag_id, run_id=run_id, run_type=run_type, state=state, start_date=at, run_after=at)
    run.end_date = None if ended is None else at
    session.add(run)
    session.flush()
    of_task = {"dag_id": dag_id, "run_id": run_id, "task_id": "ingest", "map_index": -1}
    session.execute(insert(TaskInstance).values(id=uuid4(), **task_values(dag_id, run_id, "ingest", state)))
    session.execute(insert(XComModel).values(**of_task, dag_run_id=run.id, key="return_value", timestamp=at))
    session.add(Log("ran", dag_id=dag_id, run_id=run_id))
    session.flush()
    session.execute(update(Log).where(Log.run_id == run_id, Log.dag_id == dag_id).values(dttm=at))
    session.add(AssetEvent(asset_id=1, source_dag_id=dag_id, source_run_id=run_id, timestamp=at))
    session.commit()
    return run.id


def kept(session: Session, dag_id: str) -> dict[str, list[str]]:
    """Say of which runs of a DAG each table holds something."""
    tables = {
        "run": (DagRun.run_id, DagRun.dag_id),
        "task": (TaskInstance.run_id, TaskInstance.dag_id),
        "xcom": (XComModel.run_id, XComModel.dag_id),
        "audit": (Log.run_id, Log.dag_id),
        "event": (AssetEvent.source_run_id, AssetEvent.source_dag_id),
    }
    return {
        name: sorted(session.scalars(select(run).where(dag == dag_id)).all()) for name, (run, dag) in tables.items()
    }


def test_what_airflows_database_keeps_of_old_runs_goes_and_everything_else_stays(tmp_path: Path, session: Session):
    settings, _ = small_fraud(tmp_path / "home", retention={"run_days": 30})
    for dag_id in ("fraud_ingest", "another_team"):
        for run_id, ended in (("old", 40), ("older", 31), ("fresh", 29), ("goes_on", None)):
            add_run(session, dag_id, run_id, ended)
    add_run(session, "fraud_train", "the_newest_of_the_clock", 400)
    add_run(session, "fraud_train", "by_hand", 300, "manual")
    for run_id, ended in (("look", 8), ("next", 6)):
        add_run(session, "windsock_watch", run_id, ended, "manual")
    history = History(settings, NOW)

    assert history.prune_database(session) == 3
    assert history.prune_database(session) == 0
    of_ingest = kept(session, "fraud_ingest")
    assert of_ingest["run"] == of_ingest["task"] == of_ingest["xcom"] == ["fresh", "goes_on"]
    assert of_ingest["audit"] == of_ingest["event"] == ["fresh"]
    assert kept(session, "another_team")["run"] == ["fresh", "goes_on", "old", "older"]
    assert kept(session, "another_team")["event"] == ["fresh", "goes_on", "old", "older"]
    assert kept(session, "fraud_train")["run"] == ["by_hand", "the_newest_of_the_clock"]
    assert kept(session, "windsock_watch")["run"] == ["next"]


def test_an_event_that_a_run_is_still_to_be_made_of_stays(tmp_path: Path, session: Session):
    settings, _ = small_fraud(tmp_path / "home", retention={"run_days": 30})
    made = add_run(session, "fraud_features", "made", 50)
    add_run(session, "fraud_features", "last", 1)
    for run_id in ("consumed", "awaited"):
        add_run(session, "fraud_ingest", run_id, 60)
    add_run(session, "fraud_ingest", "last", 1)
    events = {run: id_ for id_, run in session.execute(select(AssetEvent.id, AssetEvent.source_run_id))}
    for run_id, created in (("consumed", made), ("awaited", None)):
        provisional = AssetPartitionDagRun(
            target_dag_id="fraud_features", created_dag_run_id=created, partition_key="k"
        )
        session.add(provisional)
        session.flush()
        session.add(
            PartitionedAssetKeyLog(
                asset_id=1,
                asset_event_id=events[run_id],
                asset_partition_dag_run_id=provisional.id,
                source_partition_key="k",
                target_dag_id="fraud_features",
                target_partition_key="k",
            )
        )
    session.commit()
    history = History(settings, NOW)
    for _ in range(2):  # whichever of the DAGs comes first
        history.prune_database(session)

    assert kept(session, "fraud_ingest")["run"] == ["last"]
    assert kept(session, "fraud_ingest")["event"] == ["awaited", "last"]
    assert len(session.scalars(select(PartitionedAssetKeyLog)).all()) == 1
