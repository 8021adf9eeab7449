"""One Windsock home: its folders, logs and secrets, and the record of the stack that runs in it."""

import base64
import contextlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

import psutil

from windsock import format_numbers
from windsock.errors import SpecError, UpstreamUnavailable
from windsock.files import replace_file
from windsock.settings import REPO_ROOT, Settings
from windsock_local.stack import processes

MARKER = ".windsock-home"
ADMIN_USER = "admin"
MLFLOW_SECRET = "mlflow_secret"
SUPERVISOR, GUARDIAN = "supervisor", "guardian"

SECRETS: Mapping[str, Callable[[], str]] = {
    "admin_password": lambda: secrets.token_urlsafe(15),
    # Encrypts connections and variables in Airflow's database.
    "fernet_key": lambda: base64.urlsafe_b64encode(os.urandom(32)).decode(),
    # Signs API tokens; the same in all Airflow processes.
    "jwt_secret": lambda: secrets.token_urlsafe(64),
    "api_secret_key": lambda: secrets.token_urlsafe(32),
    # Signs the keys to MLflow's door.
    MLFLOW_SECRET: lambda: secrets.token_urlsafe(32),
}
"""The generated secrets of a home, and how each is made."""

_NEW_MARKER = format_numbers.new_marker("home", {})


@dataclass(frozen=True)
class PartInfo:
    """One process of the stack."""

    pid: int
    birth: int
    """See :func:`windsock_local.stack.processes.birth`."""
    started: float
    """UTC seconds."""
    ready: bool = False

    @property
    def process(self) -> psutil.Process | None:
        """The process, if it still runs; never another one that has got its number."""
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.pid)
            return process if processes.birth(self.pid) == self.birth and processes.runs(process) else None
        return None

    @property
    def stopped(self) -> bool:
        """Whether it was stopped (SIGSTOP) and waits to be let go on."""
        with contextlib.suppress(psutil.Error):
            return self.process is not None and self.process.status() == psutil.STATUS_STOPPED
        return False


@dataclass(frozen=True)
class StackInfo:
    """What ``run/stack.json`` says; it holds no secret."""

    home: str
    state: Literal["starting", "ready", "stopping"]
    airflow_url: str
    mlflow_url: str
    database_socket: str
    """Folder of PostgreSQL's Unix socket."""
    started: float
    """When ``up`` was called, UTC seconds."""
    boot_seconds: float | None = None
    """From ``up`` to ready."""
    parts: dict[str, PartInfo] = field(default_factory=dict)
    """``supervisor``, ``guardian`` and the services by name."""

    def process(self, name: str) -> psutil.Process | None:
        """Return the process of a part, if there is one and it still runs."""
        return self.parts[name].process if name in self.parts else None

    @property
    def ready(self) -> bool:
        """Whether it runs and every part has answered."""
        return self.state == "ready" and self.process(SUPERVISOR) is not None


class Home:
    """Paths inside one home folder (``settings.home``), and what lies there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.marker = root / MARKER
        self.logs = root / "logs"
        self.supervisor_log = self.log(SUPERVISOR)
        self.secrets = root / "secrets"
        """Generated keys and the admin password; 0700, files 0600."""
        self.airflow = root / "airflow"
        """``AIRFLOW_HOME``: task logs, DAG processor logs."""
        self.postgres = root / "postgres"
        self.mlflow_artifacts = root / "mlflow-artifacts"
        self.run = root / "run"
        """Files that matter only while the stack runs."""
        self.state_file = self.run / "stack.json"
        """Holds the :class:`StackInfo`."""
        self.lock_file = self.run / "lock"
        """Held (``flock``) by the supervisor for as long as it lives."""
        self.scheduler_ready_file = self.run / "scheduler.ready"
        """Written by the warm executor once its workers can take tasks."""
        self.scheduler_bell = self.run / "scheduler.bell"
        """The pipe on which the API server wakes the scheduler."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the home that the settings name."""
        # Resolved: two ways to write one path are one home.
        return cls(settings.home.resolve())

    def log(self, part: str) -> Path:
        """Return the log file of a part."""
        return self.logs / f"{part}.log"

    def create(self, *, earlier: bool = False) -> None:
        """Make the folders and mark the home as Windsock's; with ``earlier`` one of an earlier layout is taken, too.

        Raises:
            SpecError: The folder is one that must never become a home, or another version's home, or cannot be made.
        """
        refuse_unsafe_home(self.root)
        self.look(earlier=earlier)
        try:
            for folder in (self.root, self.run, self.logs, self.airflow, self.mlflow_artifacts):
                folder.mkdir(parents=True, exist_ok=True)
            self._close()
            self.secrets.mkdir(mode=0o700, exist_ok=True)
            self.secrets.chmod(0o700)
            if not self.marker.exists():
                self.mark()
        except OSError as err:
            raise SpecError(
                f"{self.root} cannot be made Windsock's home: {err.strerror}: {err.filename or self.root}. "
                "Name a folder that this user may write to, with --home or WINDSOCK_HOME."
            ) from err

    def look(self, *, earlier: bool = False) -> None:
        """Look whether this version can use the home; ``earlier`` as in :meth:`create`.

        Raises:
            SpecError: It cannot.
        """
        format_numbers.check_marker("home", self.said(), self.marker, earlier=earlier)

    def said(self) -> dict[str, Any]:
        """Return what the marker says, name to value; nothing if there is none."""
        if not self.marker.exists():
            return {}
        text = self.marker.read_text(encoding="utf-8")
        found: dict[str, Any] = dict(re.findall(r"^([a-z]+): *(.*?) *$", text, re.MULTILINE))
        if format_numbers.KEY not in found:
            found = {format_numbers.WROTE: format_numbers.FIRST, format_numbers.KEY: "1", **found}
        number = found[format_numbers.KEY]
        return {**found, format_numbers.KEY: int(number) if number.isdecimal() else number}

    def mark(self, fields: Mapping[str, Any] = _NEW_MARKER) -> None:
        """Write the marker; default: that of a new home."""
        lines = "".join(f"{name}: {value}\n" for name, value in fields.items())
        replace_file(self.marker, f"State of a Windsock stack. `windsock down --wipe` removes it.\n{lines}".encode())

    def _close(self) -> None:
        """Keep other users out; started by root, the database's own user passes through (``Postgres.prepare``)."""
        mode, most = self.root.stat().st_mode & 0o777, 0o710 if os.geteuid() == 0 else 0o700
        if mode & ~most:
            self.root.chmod(mode & most)

    def secret(self, name: str) -> str:
        """Return one of :data:`SECRETS`, kept in the file of its name; it is made if it is missing."""
        return self.secret_file(name).read_text(encoding="utf-8").strip()

    def secret_file(self, name: str) -> Path:
        """Return the file of one of :data:`SECRETS`; it is made if it is missing."""
        path = self.secrets / name
        if not path.exists():
            replace_file(path, SECRETS[name]().encode(), mode=0o600)
        return path

    def passwords_file(self, users: Iterable[str] = (ADMIN_USER,)) -> Path:
        """Return the file that Airflow's simple auth manager reads; passwords that are missing there are made."""
        path = self.secrets / "airflow_passwords.json"
        known: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        own = {ADMIN_USER: self.secret("admin_password")}
        made = {user: own.get(user) or secrets.token_urlsafe(15) for user in users if user not in known}
        if made or not path.exists():
            replace_file(path, json.dumps({**known, **made}).encode(), mode=0o600)
        return path

    def admin_password(self) -> str:
        """Return the password of a home in which a stack was started before.

        Raises:
            UpstreamUnavailable: None was.
        """
        try:
            return (self.secrets / "admin_password").read_text(encoding="utf-8").strip()
        except OSError as err:
            raise UpstreamUnavailable(
                f"The admin password in {self.secrets} cannot be read: {err.strerror}. "
                "Start the stack with `windsock up`."
            ) from err

    def open_secrets(self) -> list[Path]:
        """Return the secret files and folders that others than their owner may read."""
        if not self.secrets.is_dir():
            return []
        return [p for p in (self.secrets, *sorted(self.secrets.iterdir())) if p.stat().st_mode & 0o077]

    def record(self, info: StackInfo) -> None:
        """Replace the state file."""
        replace_file(self.state_file, json.dumps(asdict(info), indent=1).encode())

    def recorded(self) -> StackInfo | None:
        """Return the last recorded state, be its stack alive or not."""
        try:
            raw = json.loads(self.state_file.read_text(encoding="utf-8"))
            raw["parts"] = {name: PartInfo(**_known(PartInfo, part)) for name, part in raw["parts"].items()}
            return StackInfo(**_known(StackInfo, raw))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def forget_run(self) -> None:
        """Remove what says that a stack runs."""
        self.state_file.unlink(missing_ok=True)
        self.scheduler_ready_file.unlink(missing_ok=True)


def signing_secret(settings: Settings) -> str:
    """Return what signs the keys to MLflow's door, by the settings or in the home; empty: there is none."""
    file = Home.of(settings).secrets / MLFLOW_SECRET
    return settings.mlflow_secret or (file.read_text(encoding="utf-8").strip() if file.is_file() else "")


def read_stack(settings: Settings) -> StackInfo | None:
    """Return the stack that runs, or starts, under these settings' home, or ``None``."""
    info = Home.of(settings).recorded()
    return info if info is not None and info.process(SUPERVISOR) else None


def refuse_unsafe_home(root: Path) -> None:
    """Refuse a folder that a home, and its wiping, would endanger.

    Raises:
        SpecError: It is the root folder, the user's home or a source checkout.
    """
    resolved = root.resolve()
    forbidden = {Path("/"), Path("/tmp"), Path.home().resolve(), REPO_ROOT.resolve()}
    if resolved in forbidden or (resolved / ".git").exists():
        raise SpecError(
            f"{root} cannot be Windsock's home: `windsock down --wipe` would endanger what else lies there. "
            "Name a folder of its own with --home or WINDSOCK_HOME."
        )


def _known(kind: type[PartInfo | StackInfo], raw: dict[str, Any]) -> dict[str, Any]:
    """Return what this version knows of a record: a stack that another one started may say more."""
    return {each.name: raw[each.name] for each in fields(kind) if each.name in raw}
