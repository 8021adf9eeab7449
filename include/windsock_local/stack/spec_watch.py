"""Has Airflow parse its DAG files when a model has changed: Airflow itself only sees that a DAG file did."""

import contextlib
import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path

from windsock.errors import WindsockError
from windsock.settings import Settings
from windsock_local.stack.airflow_api import AirflowApi
from windsock_local.stack.home import Home

log = logging.getLogger(__name__)

_AHEAD_NS = 2 * 10**9
"""A parse that began before a change may end after it; it must not be taken for a later one."""


class SpecWatch:
    """Looks at the models' folders for one stack."""

    def __init__(self, settings: Settings, airflow_url: str, dags_folder: Path) -> None:
        self._settings, self._airflow_url, self._dags_folder = settings, airflow_url, dags_folder
        self._seen = self._files()

    def look(self) -> None:
        """Ask for parsing if anything changed since the last look; asked again next time if Airflow does not answer."""
        files = self._files()
        if files == self._seen:
            return
        try:
            password = Home.of(self._settings).admin_password()
            # Impatient: whoever waits here cannot look after the parts meanwhile.
            with AirflowApi(self._airflow_url, password, call_seconds=5, attempts=1) as api:
                known = {dag["file_token"]: dag["relative_fileloc"] for dag in api.pages("dags", "dags")}
                for token in sorted(known):
                    api.call("PUT", f"parseDagFile/{token}")
        except WindsockError as err:
            log.warning("Airflow cannot be asked to parse its DAG files: %s", err)
            return
        log.info("A model's files changed: asked Airflow to parse %d DAG files.", len(known))
        self._touch_others(known.values())
        self._seen = files

    def _touch_others(self, known: Iterable[str]) -> None:
        """Have the files parsed of which Airflow knows no DAG, as no model has had one: it can be asked for none."""
        for path in {*self._dags_folder.glob("*.py")} - {self._dags_folder / name for name in known}:
            soon = time.time_ns() + _AHEAD_NS
            try:
                os.utime(path, ns=(soon, soon))
            except OSError as err:
                log.warning("%s: cannot be marked as changed (%s), so Airflow parses it later.", path, err.strerror)

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
