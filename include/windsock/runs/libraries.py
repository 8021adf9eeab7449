"""Versions of what makes a training set and a model."""

import platform
from importlib.metadata import PackageNotFoundError, version

from windsock import __version__

_LIBRARIES = ("lightgbm", "torch", "optuna", "numpy", "pyarrow", "duckdb", "deltalake", "feast")


def libraries() -> dict[str, str]:
    """Return each library's version here; ``absent`` where it is not installed, as Feast in a trainer's image."""
    # By its own word: in a trainer's image Windsock is a folder on the path, not an installed package.
    found = {"python": platform.python_version(), "windsock": __version__}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found
