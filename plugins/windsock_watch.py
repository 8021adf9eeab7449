"""Airflow's schedulers start the look at every model's days, and the runs that it wants, and pass over those that wait.

Read ``windsock_airflow.watch_clock`` and ``windsock_airflow.waiting_runs``. Every task loads this file: nothing heavy
may be imported here.
"""

from typing import ClassVar

from airflow.plugins_manager import AirflowPlugin

from windsock_airflow import waiting_runs, watch_clock


class WindsockWatch(AirflowPlugin):
    """Registers them with Airflow, to be told when one of its components starts and when a run has ended."""

    name = "windsock_watch"
    listeners: ClassVar = [watch_clock, waiting_runs]
