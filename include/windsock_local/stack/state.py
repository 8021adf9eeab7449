"""The state file of a stack: where its parts are, for whoever wants to talk to them."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field

from windsock.errors import UpstreamUnavailable
from windsock.settings import Settings
from windsock_local.stack.layout import Home
from windsock_local.stack.processes import ProcessId

STARTING, READY, STOPPING = "starting", "ready", "stopping"
SUPERVISOR, GUARDIAN = "supervisor", "guardian"


@dataclass(frozen=True)
class PartInfo:
    """One process of the stack."""

    pid: int
    birth: int
    """See :class:`~windsock_local.stack.processes.ProcessId`."""
    started: float
    """When it was started, UTC seconds."""
    address: str = ""
    log: str = ""
    ready: bool = False

    @classmethod
    def of(cls, pid: int, started: float, *, address: str = "", log: str = "", ready: bool = False) -> PartInfo:
        """Describe a process that runs.

        Raises:
            psutil.NoSuchProcess: It is gone.
        """
        return cls(pid, ProcessId.of(pid).birth, started, address, log, ready)

    @property
    def process_id(self) -> ProcessId:
        """The identity, safe against reused process numbers."""
        return ProcessId(self.pid, self.birth)


@dataclass(frozen=True)
class StackInfo:
    """What ``run/stack.json`` says; it holds no secret."""

    home: str
    state: str
    """``starting``, ``ready`` or ``stopping``."""
    airflow_url: str
    mlflow_url: str
    database_socket: str
    """Folder of PostgreSQL's Unix socket."""
    started: float
    """When ``up`` was called, UTC seconds."""
    boot_seconds: float | None = None
    """From ``up`` to ready."""
    dags_folder: str = ""
    parts: dict[str, PartInfo] = field(default_factory=dict)
    """``supervisor``, ``guardian`` and the services by name."""

    @property
    def alive(self) -> bool:
        """Whether the supervisor of this stack still runs."""
        supervisor = self.parts.get(SUPERVISOR)
        return supervisor is not None and supervisor.process_id.alive

    @property
    def ready(self) -> bool:
        """Whether it runs and every part has answered."""
        return self.state == READY and self.alive


def read_recorded(home: Home) -> StackInfo | None:
    """Return the last recorded state, be its stack alive or not."""
    try:
        raw = json.loads(home.state_file.read_text(encoding="utf-8"))
        return StackInfo(**{**raw, "parts": {name: PartInfo(**part) for name, part in raw["parts"].items()}})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def read_stack(settings: Settings) -> StackInfo | None:
    """Return the stack that runs under these settings' home, or ``None``.

    It may still be starting; see :attr:`StackInfo.ready`.
    """
    info = read_recorded(Home.of(settings))
    return info if info is not None and info.alive else None


def running_stack(settings: Settings) -> StackInfo:
    """Return the stack that runs under these settings' home.

    Raises:
        UpstreamUnavailable: None does.
    """
    info = read_stack(settings)
    if info is None:
        raise UpstreamUnavailable(f"No stack runs under {settings.home}. Start it with `windsock up`.")
    return info


def write(home: Home, info: StackInfo) -> None:
    """Replace the state file in one step: readers see the old or the new one."""
    part = home.state_file.with_name(f".stack.json.{os.getpid()}")
    part.write_text(json.dumps(asdict(info), indent=1), encoding="utf-8")
    part.rename(home.state_file)
