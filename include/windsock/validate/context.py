"""Great Expectations' file context: opened once per process, never written to.

GX rewrites ``great_expectations.yml`` whenever something is added to a context, and two
processes doing so lose each other's changes. So everything that runs need (the data source, the
stores) stands in the committed file, and only the place for output is filled in at run time.
"""

import logging
from functools import cache
from pathlib import Path
from typing import Any

import great_expectations as gx

from windsock.errors import SpecError
from windsock.settings import Settings


def output_folder(settings: Settings) -> Path:
    """Return the folder of validation results and Data Docs."""
    return settings.home / "great_expectations" / "uncommitted"


def open_context(settings: Settings) -> Any:
    """Return this installation's file context.

    Raises:
        SpecError: The folder holds no context.
    """
    return _open(settings.gx_root, output_folder(settings))


@cache
def _open(root: Path, output: Path) -> Any:
    if not (root / "great_expectations.yml").is_file():
        raise SpecError(f"{root} holds no great_expectations.yml. Set WINDSOCK_GX_ROOT to the folder that does.")
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    environment = {"WINDSOCK_GX_OUTPUT": str(output)}
    return gx.get_context(mode="file", context_root_dir=str(root), runtime_environment=environment)
