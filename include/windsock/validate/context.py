"""Great Expectations' file context: opened once per process, never written to.

GX rewrites ``great_expectations.yml`` whenever something is added to a context, and two
processes doing so lose each other's changes. So everything that runs need (the data source, the
stores) stands in the committed file, and only the place for output is filled in at run time.
"""

import logging
import os
import threading
from pathlib import Path
from typing import Any

from windsock.errors import SpecError
from windsock.settings import Settings

log = logging.getLogger(__name__)

_OUTPUT = "WINDSOCK_GX_OUTPUT"
_contexts: dict[tuple[Path, Path], Any] = {}
_lock = threading.Lock()


def output_folder(settings: Settings) -> Path:
    """Return the folder of validation results and Data Docs."""
    return settings.home / "great_expectations" / "uncommitted"


def great_expectations() -> Any:
    """Import Great Expectations without its telemetry and its chatter."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    import great_expectations as gx

    return gx


def open_context(settings: Settings) -> Any:
    """Return this installation's file context.

    Raises:
        SpecError: The folder holds no context.
    """
    key = (settings.gx_root, output_folder(settings))
    with _lock:
        if key not in _contexts:
            if not (settings.gx_root / "great_expectations.yml").is_file():
                raise SpecError(
                    f"{settings.gx_root} holds no great_expectations.yml. Set WINDSOCK_GX_ROOT to the folder that does."
                )
            _contexts[key] = great_expectations().get_context(
                mode="file", context_root_dir=str(key[0]), runtime_environment={_OUTPUT: str(key[1])}
            )
        return _contexts[key]
