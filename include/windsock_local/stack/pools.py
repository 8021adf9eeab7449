"""The pool that keeps Airflow from starting more GPU steps at a time than there are GPUs."""

import logging
import os
from collections.abc import Mapping

from windsock.compute import SiteCompute, load_site
from windsock.errors import SpecError
from windsock.settings import Settings
from windsock_local.stack.credentials import ADMIN_USER, admin_password
from windsock_local.stack.layout import Home

log = logging.getLogger(__name__)

GPUS_VARIABLE = "WINDSOCK_GPUS"


def ensure_gpu_pool(airflow_url: str, home: Home, environ: Mapping[str, str] = os.environ) -> None:
    """Make the pool of the GPUs if steps run on Kubernetes; its slots are ``WINDSOCK_GPUS``, else 1.

    A pool that is there keeps its slots unless ``WINDSOCK_GPUS`` says otherwise.

    Raises:
        SpecError: ``WINDSOCK_GPUS`` is no number.
    """
    settings = Settings.from_env(dict(environ))
    if settings.compute != "kubernetes":
        return
    given = environ.get(GPUS_VARIABLE, "")
    if given and not given.isdecimal():
        raise SpecError(f"{GPUS_VARIABLE} is the number of GPUs that steps may use at a time; given: {given!r}.")
    from windsock_local.stack.airflow_session import AirflowRefused, AirflowSession  # a laptop does without httpx here

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
    with AirflowSession(airflow_url, ADMIN_USER, admin_password(home)) as session:
        try:
            session.post("pools", body)
        except AirflowRefused as err:
            if err.status != 409:
                raise
            if given:
                session.patch(f"pools/{name}", {**body, "pool": name})
