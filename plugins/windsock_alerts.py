"""Airflow's schedulers report what no task can, killed processes for instance, and prune logs.

Read ``windsock_airflow.failures`` and ``windsock_airflow.history``. Every task loads this file: nothing heavy may be
imported here.
"""

from typing import ClassVar

from airflow.plugins_manager import AirflowPlugin

from windsock_airflow import failures, history


class WindsockAlerts(AirflowPlugin):
    """Registers the watch with Airflow, to be told when one of its components starts and when a run fails."""

    name = "windsock_alerts"
    listeners: ClassVar = [failures, history]
