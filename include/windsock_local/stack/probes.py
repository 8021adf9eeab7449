"""The services' loopback ports, and short questions to them: does it answer, does its heart beat?

Every question is bounded, to a second or two: the supervisor asks between looking after its children.
"""

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from urllib.request import ProxyHandler, build_opener

from windsock.errors import SpecError

HOST = "127.0.0.1"
AIRFLOW_PORT, MLFLOW_PORT = 8080, 5000
_WITHOUT_PROXY = build_opener(ProxyHandler({}))


def is_free(port: int) -> bool:
    """Whether nothing listens on this port of the loopback interface."""
    try:
        socket.create_server((HOST, port), backlog=1).close()
    except OSError:
        return False
    return True


@contextmanager
def claimed_port(usual: int, *, wanted: int | None, option: str) -> Iterator[int]:
    """Claim the usual port, or a free one in its place, for the block; what the user ``wanted`` is never replaced.

    Its server comes seconds later: without the claim two stacks that start at once would choose the same port.

    Raises:
        SpecError: The explicitly wanted port is in use.
    """
    port = wanted or usual
    claim = _claim(port)
    if claim is None and wanted:
        raise SpecError(
            f"Port {wanted} ({option}) is in use on {HOST}. Name another port, or leave {option} away "
            "and a free one is chosen."
        )
    while claim is None:
        with socket.create_server((HOST, 0)) as probe:
            port = int(probe.getsockname()[1])
        claim = _claim(port)
    with claim:
        yield port


def _claim(port: int) -> socket.socket | None:
    """Take a name that the kernel gives to one process of this machine, until that ends; None if the port is taken."""
    if not is_free(port):
        return None
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0windsock-port-{port}")  # no file: an abstract name, which goes with its process
    except OSError:
        claim.close()
        return None
    return claim


def answers(url: str, *, timeout_seconds: float = 2) -> bool:
    """Whether a GET returns 200 in time."""
    return _get(url, timeout_seconds) is not None


def airflow_health(airflow_url: str, *, timeout_seconds: float) -> dict[str, Any]:
    """Return what ``/api/v2/monitor/health`` says, or an empty mapping if nothing."""
    try:
        return dict(json.loads(_get(f"{airflow_url}/api/v2/monitor/health", timeout_seconds) or "{}"))
    except ValueError:
        return {}


def beat_since(health: Mapping[str, Any], part: str, started: float) -> bool:
    """Whether a part is healthy and its last heartbeat younger than the part itself.

    Airflow calls a part healthy for 30 s after its last beat, so right after a restart also the process before.
    """
    beat = last_beat(health, part)
    return beat is not None and beat >= started and health[part.replace("-", "_")].get("status") == "healthy"


def last_beat(health: Mapping[str, Any], part: str) -> float | None:
    """Return the time of a part's last heartbeat in UTC seconds, if there was one."""
    key = part.replace("-", "_")
    text = (health.get(key) or {}).get(f"latest_{key}_heartbeat")
    return datetime.fromisoformat(text).timestamp() if text else None


def _get(url: str, timeout_seconds: float) -> bytes | None:
    try:
        with _WITHOUT_PROXY.open(url, timeout=timeout_seconds) as response:
            return bytes(response.read())
    except (OSError, http.client.HTTPException):
        return None
