"""Logs of Airflow's tasks, pruned once a day by a thread of the scheduler: nothing of Airflow's ever removes them.

They go, a whole run at a time, ``retention.run_days`` of their model after the last line was written, as what steps
noted of these runs in the store does.

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

log = logging.getLogger(__name__)

_FIRST_S, _EVERY_S = 15 * 60.0, 24 * 3600.0


@hookimpl
def on_starting(component: Any) -> None:
    """Start the thread if this process is a scheduler."""
    if in_scheduler():
        start_thread("windsock-history", _prune_for_ever, Settings.from_env())


def prune_logs(settings: Settings, folder: Path, now: datetime) -> int:
    """Remove the logs of old runs below Airflow's folder of logs, and return how many runs there were."""
    pruned, specs = 0, load_specs(settings)[0]
    for of_dag in folder.glob("dag_id=*"):
        spec = specs.get(model_of(settings, of_dag.name.removeprefix("dag_id=")) or "")
        if spec is None:
            continue
        limit = timedelta(days=spec.retention.run_days)
        for of_run in of_dag.glob("run_id=*"):
            times = [path.stat().st_mtime for path in (of_run, *of_run.rglob("*"))]
            if now - datetime.fromtimestamp(max(times), UTC) >= limit:
                shutil.rmtree(of_run, ignore_errors=True)
                pruned += 1
    return pruned


def _prune_for_ever(settings: Settings) -> None:
    from airflow.configuration import conf

    pause, looks = _FIRST_S, Looks(log, "Old logs could not be removed")
    while True:
        time.sleep(pause)
        pause = _EVERY_S
        with looks.look():
            runs = prune_logs(settings, Path(conf.get("logging", "base_log_folder")), datetime.now(UTC))
            log.info("The logs of %d old runs are removed.", runs)
