"""How a stack is doing: each part's process, address and own sign of life."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from windsock.settings import Settings
from windsock_local.stack import parts as names
from windsock_local.stack import probes, state
from windsock_local.stack.ending import database_processes
from windsock_local.stack.layout import Home
from windsock_local.stack.postgres import Postgres
from windsock_local.stack.state import PartInfo, StackInfo, read_stack

HEALTHY = "healthy"
_EXPECTED = (
    *(state.SUPERVISOR, state.GUARDIAN, names.POSTGRES, names.MLFLOW, names.API_SERVER),
    *(names.SCHEDULER, names.DAG_PROCESSOR, names.TRIGGERER),
)


@dataclass(frozen=True)
class PartHealth:
    """One part, seen from outside."""

    name: str
    health: str
    """``healthy``, ``starting``, ``down``, or ``unwell: why``."""
    pid: int | None = None
    address: str = ""
    log: str = ""
    up_seconds: float | None = None


@dataclass(frozen=True)
class StackHealth:
    """All parts together."""

    running: bool
    state: str
    """``ready``, ``starting``, ``stopping`` or ``down``."""
    home: str
    airflow_url: str
    mlflow_url: str
    parts: tuple[PartHealth, ...]

    @property
    def healthy(self) -> bool:
        """Whether every part is well."""
        return self.running and all(part.health == HEALTHY for part in self.parts)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data, for ``status --json``."""
        return {**asdict(self), "healthy": self.healthy}


def check(settings: Settings) -> StackHealth:
    """Ask every part of the stack under these settings' home how it is."""
    info = read_stack(settings)
    if info is None:
        return StackHealth(False, "down", str(settings.home), "", "", ())
    airflow = probes.airflow_health(info.airflow_url, timeout_seconds=5)
    found = tuple(_look(name, info, airflow, Home.of(settings)) for name in _EXPECTED)
    return StackHealth(True, info.state, info.home, info.airflow_url, info.mlflow_url, found)


def leftovers(settings: Settings) -> int:
    """Return how many database processes run under a home without a supervisor."""
    return 0 if read_stack(settings) else len(database_processes(Home.of(settings)))


def _look(name: str, info: StackInfo, airflow: Mapping[str, Any], home: Home) -> PartHealth:
    part = info.parts.get(name)
    if part is None:
        return PartHealth(name, "starting" if info.state == state.STARTING else "down")
    if not part.process_id.alive:
        return PartHealth(name, "down", address=part.address, log=part.log)
    complaint = _complaint(name, part, info, airflow, home) if part.ready else ""
    health = f"unwell: {complaint}" if complaint else HEALTHY if part.ready else "starting"
    return PartHealth(name, health, part.pid, part.address, part.log, round(time.time() - part.started, 1))


def _complaint(name: str, part: PartInfo, info: StackInfo, airflow: Mapping[str, Any], home: Home) -> str:
    """Return what is wrong with a part that runs; empty if nothing is."""
    if name == names.POSTGRES:
        return "" if Postgres(home).answers() else "accepts no connection"
    if name == names.MLFLOW:
        return "" if probes.answers(f"{info.mlflow_url}/health", timeout_seconds=5) else "mute"
    if name == names.API_SERVER:
        if not airflow:
            return "no answer"
        return "" if (airflow.get("metadatabase") or {}).get("status") == HEALTHY else "cannot reach its database"
    if name not in probes.HEARTBEATS or probes.beat_since(airflow, name, part.started):
        return ""
    if not airflow:
        return "the api-server does not say"
    beat = probes.last_beat(airflow, name)
    return "no heartbeat yet" if beat is None else f"last heartbeat {time.time() - beat:.0f} s ago"
