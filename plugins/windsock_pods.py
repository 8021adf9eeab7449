"""Airflow's schedulers look after step pods that nobody waits for any more.

Read ``windsock_airflow.pods.sweep``. Every task loads this file: nothing heavy may be imported here.
"""

from typing import ClassVar

from airflow.plugins_manager import AirflowPlugin

from windsock_airflow.pods import sweep


class WindsockPods(AirflowPlugin):
    """Registers the sweep with Airflow, to be told when one of its components starts."""

    name = "windsock_pods"
    listeners: ClassVar = [sweep]
