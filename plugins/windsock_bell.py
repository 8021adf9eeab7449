"""Airflow's API server wakes the scheduler after each change.

Read ``windsock_airflow.bell``. Every task loads this file: nothing heavy may be imported here.
"""

from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

from windsock_airflow.bell import RingAfterChange


class WindsockBell(AirflowPlugin):
    """Registers the middleware with Airflow."""

    name = "windsock_bell"
    fastapi_root_middlewares: ClassVar[list[dict[str, Any]]] = [
        {"middleware": RingAfterChange, "name": "wake the scheduler after a change"}
    ]
