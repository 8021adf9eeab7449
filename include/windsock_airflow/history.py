"""Airflow's history, pruned once a day by a thread of the scheduler: nothing of Airflow's ever removes it.

The runs of Windsock's DAGs go, with their tasks, XComs and logs, the events of assets and the audit log,
``retention.run_days`` of their model after they ended, as what steps noted of these runs in the store does. What the
product must know for longer stands in its own records. A run that goes on, the newest of a DAG, and what a run is
still to be made of, all stay; so does everything of other DAGs.

The top of this module is imported by every task: nothing heavy may stand there. ``plugins/windsock_alerts.py``
registers it.
"""

import logging
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.listeners import hookimpl

from windsock.settings import Settings
from windsock.spec import load_specs
from windsock_airflow.callbacks import model_of
from windsock_airflow.scheduler_threads import Looks, in_scheduler, start_thread
from windsock_airflow.watch_clock import DAG_ID as WATCH

log = logging.getLogger(__name__)

_FIRST_S, _EVERY_S = 15 * 60.0, 24 * 3600.0
_WATCH_KEPT = timedelta(days=7)
"""Of the look at all models' days: there are a hundred a day."""
_RUNS_AT_ONCE = 200


@hookimpl
def on_starting(component: Any) -> None:
    """Start the thread if this process is a scheduler."""
    if in_scheduler(component):
        start_thread("windsock-history", _prune_for_ever, Settings.from_env())


class History:
    """What there is of the DAGs' past; ``now`` is when it is looked at."""

    def __init__(self, settings: Settings, now: datetime) -> None:
        self._settings = settings
        self._now = now
        self._specs = load_specs(settings)[0]

    def prune_logs(self, folder: Path) -> int:
        """Remove the logs of old runs below Airflow's folder of logs, and return of how many runs there were."""
        pruned = 0
        for of_dag in folder.glob("dag_id=*"):
            if (limit := self._limit(of_dag.name.removeprefix("dag_id="))) is None:
                continue
            for of_run in of_dag.glob("run_id=*"):
                times = [path.stat().st_mtime for path in (of_run, *of_run.rglob("*"))]
                if datetime.fromtimestamp(max(times), UTC) <= limit:
                    shutil.rmtree(of_run, ignore_errors=True)
                    pruned += 1
        return pruned

    def prune_database(self, session: Any) -> int:
        """Remove old runs from Airflow's database, and what hangs on them; return how many runs there were."""
        from airflow.models.asset import AssetEvent, AssetPartitionDagRun, PartitionedAssetKeyLog
        from airflow.models.dag import DagModel
        from airflow.models.dagrun import DagRun
        from airflow.models.log import Log
        from sqlalchemy import delete, func, select

        pruned = 0
        for dag_id in session.scalars(select(DagModel.dag_id)).all():
            if (limit := self._limit(dag_id)) is None:
                continue
            # Airflow's clock goes on from the newest of its own.
            newest = select(func.max(DagRun.id)).where(DagRun.dag_id == dag_id).group_by(DagRun.run_type)
            old = select(DagRun.id).where(
                DagRun.dag_id == dag_id,
                DagRun.state.in_(("success", "failed")),
                DagRun.end_date <= limit,
                DagRun.id.not_in(newest),
            )
            while ids := session.scalars(old.limit(_RUNS_AT_ONCE)).all():
                session.execute(delete(DagRun).where(DagRun.id.in_(ids)))
                session.commit()  # few rows are locked for long
                pruned += len(ids)
            session.execute(delete(Log).where(Log.dag_id == dag_id, Log.dttm <= limit))
            provisional = PartitionedAssetKeyLog.asset_partition_dag_run_id
            session.execute(
                delete(PartitionedAssetKeyLog).where(
                    PartitionedAssetKeyLog.target_dag_id == dag_id, provisional.not_in(select(AssetPartitionDagRun.id))
                )
            )
            awaited = select(PartitionedAssetKeyLog.asset_event_id)
            session.execute(
                delete(AssetEvent).where(
                    AssetEvent.source_dag_id == dag_id, AssetEvent.timestamp <= limit, AssetEvent.id.not_in(awaited)
                )
            )
            session.commit()
        return pruned

    def _limit(self, dag_id: str) -> datetime | None:
        """Return until when a DAG's history goes; None: it is not ours."""
        if dag_id == WATCH:
            return self._now - _WATCH_KEPT
        spec = self._specs.get(model_of(self._settings, dag_id) or "")
        return self._now - timedelta(days=spec.retention.run_days) if spec is not None else None


def _prune_for_ever(settings: Settings) -> None:
    from airflow.configuration import conf
    from airflow.utils.session import create_session

    pause, looks = _FIRST_S, Looks(log, "Old runs could not be removed")
    while True:
        time.sleep(pause)
        pause = _EVERY_S
        with looks.look(), create_session() as session:
            history = History(settings, datetime.now(UTC))
            runs = history.prune_database(session)
            logs = history.prune_logs(Path(conf.get("logging", "base_log_folder")))
            log.info("%d old runs and the logs of %d are removed.", runs, logs)
