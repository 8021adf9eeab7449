"""Airflow's schedulers start the look at every model's days, and the runs that it wants.

Read ``windsock_airflow.watch_clock``. Every task loads this file: nothing heavy may be imported here.
"""

from typing import ClassVar

from airflow.plugins_manager import AirflowPlugin

from windsock_airflow import watch_clock


class WindsockWatch(AirflowPlugin):
    """Registers the clock with Airflow, to be told when one of its components starts and when a run has ended."""

    name = "windsock_watch"
    listeners: ClassVar = [watch_clock]
