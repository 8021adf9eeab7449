"""Where tests find the real data that lies beside the project, if it is there."""

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared_data_root() -> Path | None:
    """Return the folder of real data (``WINDSOCK_SHARED_DATA`` or ``../shared/data``), or None."""
    root = Path(os.environ.get("WINDSOCK_SHARED_DATA") or _BESIDE)
    return root if root.is_dir() else None


def shared_data(name: str) -> Path:
    """Return one data set's folder, or skip the calling test and say why."""
    root = shared_data_root()
    if root is None or not (root / name).exists():
        pytest.skip(f"real data '{name}' is not here: put it at ../shared/data/{name} or set WINDSOCK_SHARED_DATA")
    return root / name
