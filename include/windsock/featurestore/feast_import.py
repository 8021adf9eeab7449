"""Importing Feast without importing torch.

Feast imports torch as soon as it is imported, wherever torch is installed, for a helper
that Windsock does not use: over two seconds and 170 MB in every process. Here it finds
no torch for that moment; torch itself stays importable for everybody else.
"""

import importlib
import sys
from types import ModuleType


def import_feast() -> ModuleType:
    """Return the module ``feast``."""
    if "feast" in sys.modules:
        return sys.modules["feast"]
    hide = "torch" not in sys.modules
    if hide:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        importlib.import_module("feast")
    finally:
        if hide:
            del sys.modules["torch"]
    return sys.modules["feast"]
