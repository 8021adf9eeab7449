"""DAG files are parsed again when a model's files change, not over and over in case they did."""

import contextlib
import logging

from windsock.errors import WindsockError
from windsock.settings import Settings
from windsock_local.stack.credentials import ADMIN_USER, admin_password
from windsock_local.stack.layout import Home

log = logging.getLogger(__name__)


class SpecWatch:
    """Looks at the models' folders and asks Airflow to parse its DAG files when something in them is new.

    Airflow itself sees when a DAG file changes, but here a file's DAGs follow from the model specs.
    """

    def __init__(self, settings: Settings, airflow_url: str) -> None:
        self._settings, self._airflow_url = settings, airflow_url
        self._seen = self._files()

    def look(self) -> None:
        """Ask for parsing if anything changed since the last look; asked again next time if Airflow does not answer."""
        files = self._files()
        if files == self._seen:
            return
        # Imported when there is something to ask: the supervisor is small otherwise.
        from windsock_local.stack.airflow_session import AirflowSession

        try:
            password = admin_password(Home.of(self._settings))
            # Impatient: whoever waits here cannot look after the parts meanwhile.
            with AirflowSession(self._airflow_url, ADMIN_USER, password, call_seconds=5, attempts=1) as airflow:
                tokens = {dag["file_token"] for dag in airflow.pages("dags", "dags")}
                for token in sorted(tokens):
                    airflow.put(f"parseDagFile/{token}")
        except WindsockError as err:
            log.warning("Airflow cannot be asked to parse its DAG files: %s", err)
            return
        log.info("A model's files changed: asked Airflow to parse %d DAG files.", len(tokens))
        self._seen = files

    def _files(self) -> set[tuple[str, int]]:
        """Return what the DAGs follow from: each file's name and time of change."""
        paths = [path for folder in self._settings.models for path in folder.glob("*/*")]
        if self._settings.compute_file is not None:
            paths.append(self._settings.compute_file)
        found = set()
        for path in paths:
            with contextlib.suppress(OSError):  # gone between the two questions
                found.add((str(path), path.stat().st_mtime_ns))
        return found
