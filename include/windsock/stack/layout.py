"""What lies where in a Windsock home, and which folders may be one at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from windsock.errors import SpecError
from windsock.format_numbers import check, written
from windsock.settings import REPO_ROOT, Settings

MARKER = ".windsock-home"
_MARKER_TEXT = f"State of a Windsock stack. `windsock down --wipe` removes it.\nformat: {written('home')}\n"


@dataclass(frozen=True)
class Home:
    """Paths inside one home folder (``settings.home``)."""

    root: Path

    @classmethod
    def of(cls, settings: Settings) -> Home:
        """Return the layout of the home that the settings name."""
        # Resolved: two ways to write one path are one home.
        return cls(settings.home.resolve())

    @property
    def marker(self) -> Path:
        """The file that says: this folder is Windsock's."""
        return self.root / MARKER

    @property
    def run(self) -> Path:
        """Files that matter only while the stack runs."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """One log file per part."""
        return self.root / "logs"

    @property
    def secrets(self) -> Path:
        """Generated keys and the admin password; 0700, files 0600."""
        return self.root / "secrets"

    @property
    def airflow(self) -> Path:
        """``AIRFLOW_HOME``: task logs, DAG processor logs."""
        return self.root / "airflow"

    @property
    def postgres(self) -> Path:
        """Data folder of the database."""
        return self.root / "postgres"

    @property
    def mlflow_artifacts(self) -> Path:
        """Artifacts behind the MLflow server."""
        return self.root / "mlflow-artifacts"

    @property
    def state_file(self) -> Path:
        """Addresses and process ids of the running stack; holds no secret."""
        return self.run / "stack.json"

    @property
    def lock_file(self) -> Path:
        """Held (``flock``) by the supervisor for as long as it lives."""
        return self.run / "lock"

    @property
    def scheduler_ready_file(self) -> Path:
        """Written by the warm executor once its workers can take tasks."""
        return self.run / "scheduler.ready.json"

    def log(self, part: str) -> Path:
        """Return the log file of a part."""
        return self.logs / f"{part}.log"

    def create(self) -> None:
        """Make the folders and mark the home as Windsock's.

        Raises:
            SpecError: The folder is one that must never become a home, or another version's home.
        """
        refuse_unsafe_home(self.root)
        if self.marker.exists():
            check("home", _number(self.marker.read_text(encoding="utf-8")), self.marker)
        for folder in (self.root, self.run, self.logs, self.airflow, self.mlflow_artifacts):
            folder.mkdir(parents=True, exist_ok=True)
        self.secrets.mkdir(mode=0o700, exist_ok=True)
        self.secrets.chmod(0o700)
        if not self.marker.exists():
            self.marker.write_text(_MARKER_TEXT, encoding="utf-8")


def _number(marker: str) -> int | str | None:
    """Return the format that a home's marker names; None if it is of version 0.1, which named none."""
    found = next((line.partition(":")[2].strip() for line in marker.splitlines() if line.startswith("format:")), None)
    return int(found) if found is not None and found.isdecimal() else found


def refuse_unsafe_home(root: Path) -> None:
    """Raise if ``root`` is a folder that a home, and its wiping, would endanger.

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
