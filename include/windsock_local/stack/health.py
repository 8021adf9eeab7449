"""How a stack, or an installation elsewhere, is doing, part by part (``status``)."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from windsock.errors import WindsockError
from windsock.redact import redact
from windsock.settings import Settings
from windsock_local.stack import parts as names
from windsock_local.stack import probes
from windsock_local.stack.airflow_api import AirflowApi
from windsock_local.stack.airflow_session import QUICKLY, how_to_find_airflow
from windsock_local.stack.home import GUARDIAN, SUPERVISOR, Home, PartInfo, StackInfo, read_stack
from windsock_local.stack.postgres import Postgres

HEALTHY = "healthy"
_BEATING = (names.SCHEDULER, names.DAG_PROCESSOR, names.TRIGGERER)
_EXPECTED = (SUPERVISOR, GUARDIAN, names.POSTGRES, names.MLFLOW, names.API_SERVER, *_BEATING)


@dataclass(frozen=True)
class PartHealth:
    """One part, seen from outside: ``healthy``, ``starting``, ``down``, or ``unwell: why``."""

    name: str
    health: str
    pid: int | None
    address: str
    log: str
    up_seconds: float | None = None


@dataclass(frozen=True)
class StackHealth:
    """All parts together; ``status --json`` prints it."""

    running: bool
    state: str
    """``ready``, ``starting``, ``stopping`` or ``down``."""
    home: str
    airflow_url: str
    mlflow_url: str
    parts: tuple[PartHealth, ...]
    healthy: bool
    fault: str = ""
    """Why nothing is known of the parts, if so."""


def check(settings: Settings) -> StackHealth:
    """Ask every part of the stack under these settings' home how it is, or of the Airflow elsewhere that they name."""
    if settings.airflow_url:
        return _check_elsewhere(settings)
    info = read_stack(settings)
    if info is None:
        fault = f"No stack runs under {settings.home}. {how_to_find_airflow(settings)}"
        return StackHealth(False, "down", str(settings.home), "", "", (), healthy=False, fault=fault)
    home = Home.of(settings)
    airflow = probes.airflow_health(info.airflow_url, timeout_seconds=5)
    found = tuple(_look(name, home, info, airflow) for name in _EXPECTED)
    healthy = all(part.health == HEALTHY for part in found)
    return StackHealth(True, info.state, info.home, info.airflow_url, info.mlflow_url, found, healthy)


def _check_elsewhere(settings: Settings) -> StackHealth:
    mlflow = settings.mlflow_uri if settings.mlflow_uri.startswith(("http://", "https://")) else ""
    addresses = str(settings.home), settings.airflow_url, redact(mlflow)
    try:
        with AirflowApi.of(settings, **QUICKLY) as api:
            said = api.call("GET", "monitor/health")
    except WindsockError as err:
        return StackHealth(False, "down", *addresses, (), healthy=False, fault=str(err))
    parts = [PartHealth(names.API_SERVER, HEALTHY, None, settings.airflow_url, "")]
    for name in ("metadatabase", *_BEATING):
        status = (said.get(name.replace("-", "_")) or {}).get("status")
        beat = probes.last_beat(said, name)
        since = "" if beat is None else f": last heartbeat {time.time() - beat:.0f} s ago"
        health = "down" if status is None else HEALTHY if status == HEALTHY else f"unwell{since}"
        parts.append(PartHealth(name, health, None, "", ""))
    if mlflow:
        well = probes.answers(f"{mlflow}/health", timeout_seconds=QUICKLY["call_seconds"])
        parts.append(PartHealth(names.MLFLOW, HEALTHY if well else "unwell: mute", None, redact(mlflow), ""))
    healthy = all(part.health == HEALTHY for part in parts)
    return StackHealth(True, "ready", *addresses, tuple(parts), healthy=healthy)


def _look(name: str, home: Home, info: StackInfo, airflow: Mapping[str, Any]) -> PartHealth:
    part = info.parts.get(name)
    addresses = {
        names.POSTGRES: info.database_socket,
        names.MLFLOW: info.mlflow_url,
        names.API_SERVER: info.airflow_url,
    }
    where = addresses.get(name, ""), str(home.supervisor_log if name == GUARDIAN else home.log(name))
    if part is None or part.process is None:
        health = "starting" if part is None and info.state == "starting" else "down"
        return PartHealth(name, health, None, *where)
    complaint = _complaint(name, part, home, info, airflow) if part.ready else ""
    health = f"unwell: {complaint}" if complaint else HEALTHY if part.ready else "starting"
    return PartHealth(name, health, part.pid, *where, round(time.time() - part.started, 1))


def _complaint(name: str, part: PartInfo, home: Home, info: StackInfo, airflow: Mapping[str, Any]) -> str:
    """Return what is wrong with a part that runs; empty if nothing is."""
    if part.stopped:
        return f"stopped; `kill -CONT {part.pid}` lets it go on"
    if name == names.POSTGRES:
        return "" if Postgres(home).answers() else "accepts no connection"
    if name == names.MLFLOW:
        return "" if probes.answers(f"{info.mlflow_url}/health", timeout_seconds=5) else "mute"
    if name == names.API_SERVER:
        if not airflow:
            return "no answer"
        return "" if (airflow.get("metadatabase") or {}).get("status") == HEALTHY else "cannot reach its database"
    if name not in _BEATING or probes.beat_since(airflow, name, part.started):
        return ""
    if not airflow:
        return "the api-server does not say"
    beat = probes.last_beat(airflow, name)
    return "no heartbeat yet" if beat is None else f"last heartbeat {time.time() - beat:.0f} s ago"
