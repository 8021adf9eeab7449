"""What lies where in a Windsock home, and which folders may be one at all."""

from __future__ import annotations

from pathlib import Path

from windsock.errors import SpecError
from windsock.format_numbers import check, written
from windsock.settings import REPO_ROOT, Settings

MARKER = ".windsock-home"
_MARKER_TEXT = f"State of a Windsock stack. `windsock down --wipe` removes it.\nformat: {written('home')}\n"


class Home:
    """Paths inside one home folder (``settings.home``)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.marker = root / MARKER
        """The file that says: this folder is Windsock's."""
        self.logs = root / "logs"
        """One log file per part."""
        self.secrets = root / "secrets"
        """Generated keys and the admin password; 0700, files 0600."""
        self.airflow = root / "airflow"
        """``AIRFLOW_HOME``: task logs, DAG processor logs."""
        self.postgres = root / "postgres"
        """Data folder of the database."""
        self.mlflow_artifacts = root / "mlflow-artifacts"
        """Artifacts behind the MLflow server."""
        self.run = root / "run"
        """Files that matter only while the stack runs."""
        self.state_file = self.run / "stack.json"
        """Addresses and process ids of the running stack; holds no secret."""
        self.lock_file = self.run / "lock"
        """Held (``flock``) by the supervisor for as long as it lives."""
        self.scheduler_ready_file = self.run / "scheduler.ready"
        """Written by the warm executor once its workers can take tasks."""
        self.scheduler_bell = self.run / "scheduler.bell"
        """The pipe on which the API server wakes the scheduler."""

    @classmethod
    def of(cls, settings: Settings) -> Home:
        """Return the layout of the home that the settings name."""
        # Resolved: two ways to write one path are one home.
        return cls(settings.home.resolve())

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

    def forget_run(self) -> None:
        """Remove what says that a stack runs."""
        self.state_file.unlink(missing_ok=True)
        self.scheduler_ready_file.unlink(missing_ok=True)


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
