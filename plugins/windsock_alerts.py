"""Airflow's schedulers report what no task can: killed processes, and approvals that nobody answers.

Read ``windsock_airflow.failures``. Every task loads this file: nothing heavy may be imported here.
"""

from typing import ClassVar

from airflow.plugins_manager import AirflowPlugin

from windsock_airflow import failures


class WindsockAlerts(AirflowPlugin):
    """Registers the watch with Airflow, to be told when one of its components starts and when a run fails."""

    name = "windsock_alerts"
    listeners: ClassVar = [failures]
