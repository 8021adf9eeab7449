"""What the stack asks of its own Airflow: a pool for the GPUs, and to parse DAG files when a model's files change.

REST client and compute are imported when there is something to ask: the supervisor is small otherwise.
"""

import contextlib
import logging
import os
from collections.abc import Mapping

from windsock.errors import SpecError, WindsockError
from windsock.settings import Settings
from windsock_local.stack.home import Home

log = logging.getLogger(__name__)

_GPUS_VARIABLE = "WINDSOCK_GPUS"


def ensure_gpu_pool(airflow_url: str, home: Home, environ: Mapping[str, str] = os.environ) -> None:
    """Make the pool that keeps Airflow from starting more GPU steps at a time than there are GPUs.

    That is for steps on Kubernetes. Its slots are ``WINDSOCK_GPUS``, else 1; a pool that is there keeps its slots
    unless ``WINDSOCK_GPUS`` says otherwise.

    Raises:
        SpecError: ``WINDSOCK_GPUS`` is no number.
    """
    settings = Settings.from_env(dict(environ))
    if settings.compute != "kubernetes":
        return
    given = environ.get(_GPUS_VARIABLE, "")
    if given and not given.isdecimal():
        raise SpecError(f"{_GPUS_VARIABLE} is the number of GPUs that steps may use at a time; given: {given!r}.")
    from windsock.compute import SiteCompute, load_site
    from windsock_local.stack.airflow_api import AirflowApi, AirflowRefused

    try:
        name = load_site(settings).pool
    except SpecError as err:
        log.warning("%s", err)
        name = SiteCompute().pool
    body = {
        "name": name,
        "slots": int(given or 1),
        "description": "GPUs of the cluster; a step takes as many slots as it asks for GPUs.",
        "include_deferred": True,  # a deferred step's pod goes on holding its GPUs
    }
    with AirflowApi(airflow_url, home.admin_password()) as api:
        try:
            api.call("POST", "pools", body)
        except AirflowRefused as err:
            if err.status != 409:
                raise
            if given:
                api.call("PATCH", f"pools/{name}", {**body, "pool": name})


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
        from windsock_local.stack.airflow_api import AirflowApi

        try:
            password = Home.of(self._settings).admin_password()
            # Impatient: whoever waits here cannot look after the parts meanwhile.
            with AirflowApi(self._airflow_url, password, call_seconds=5, attempts=1) as api:
                tokens = {dag["file_token"] for dag in api.pages("dags", "dags")}
                for token in sorted(tokens):
                    api.call("PUT", f"parseDagFile/{token}")
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
