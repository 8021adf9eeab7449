"""Short questions to the services: does it answer, does its heart beat?

Every call is bounded to a fraction of a second, since the supervisor asks them between
looking after its children.
"""

import http.client
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

HEARTBEATS = {
    "scheduler": "latest_scheduler_heartbeat",
    "dag-processor": "latest_dag_processor_heartbeat",
    "triggerer": "latest_triggerer_heartbeat",
}
"""Parts that report by heartbeat, and the field that holds the last one."""


def answers(url: str, *, timeout_seconds: float = 0.5) -> bool:
    """Whether a GET returns 200 in time."""
    return _get(url, timeout_seconds) is not None


def airflow_health(airflow_url: str, *, timeout_seconds: float = 2.0) -> dict[str, Any]:
    """Return what ``/api/v2/monitor/health`` says, or an empty mapping if nothing."""
    body = _get(f"{airflow_url}/api/v2/monitor/health", timeout_seconds)
    try:
        return dict(json.loads(body)) if body else {}
    except ValueError:
        return {}


def beat_since(health: Mapping[str, Any], part: str, started: float) -> bool:
    """Whether a part's last heartbeat is younger than the part itself.

    Airflow calls a part healthy for 30 s after its last beat, so right after a restart
    it would report the health of the process that came before.
    """
    beat = last_beat(health, part)
    status = (health.get(part.replace("-", "_")) or {}).get("status")
    return beat is not None and beat >= started and status == "healthy"


def last_beat(health: Mapping[str, Any], part: str) -> float | None:
    """Return the time of a part's last heartbeat in UTC seconds, if there was one."""
    text = (health.get(part.replace("-", "_")) or {}).get(HEARTBEATS[part])
    return datetime.fromisoformat(text).timestamp() if text else None


def _get(url: str, timeout_seconds: float) -> bytes | None:
    parts = urlsplit(url)
    # http.client, unlike its callers above it, never goes through a proxy.
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_seconds)
    try:
        connection.request("GET", parts.path or "/")
        response = connection.getresponse()
        body = response.read()
        return body if response.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
