"""Airflow's schedulers look after step pods that nobody waits for any more.

Read ``windsock_airflow.pods.sweep``. Every task loads this file: nothing heavy may be imported here.
"""

from typing import Any, ClassVar

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

from windsock_airflow.pods import sweep


class _Listener:
    """Told by Airflow when one of its components starts."""

    @hookimpl
    def on_starting(self, component: Any) -> None:
        """Start the sweep in schedulers."""
        sweep.start_in_scheduler()


class WindsockPods(AirflowPlugin):
    """Registers the listener with Airflow."""

    name = "windsock_pods"
    listeners: ClassVar = [_Listener()]
