"""The one fork server of a test process, whose children start with every heavy library in memory.

Python keeps one fork server per process, and what it imported when it started is what its children have. Were each file
to name its own libraries, the children of all later files would import theirs anew, seconds each.
"""

import multiprocessing
import os
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from unittest.mock import patch


def fork_context() -> ForkServerContext:
    """Return the context whose processes and pools come from the fork server, which runs from now on."""
    context = multiprocessing.get_context("forkserver")
    # Only imports: a fork server that had used a library's threads would fork broken children.
    context.set_forkserver_preload(["forked_imports"])
    # It looks for what it is to import where a new interpreter does, not where this one does, and passes over the rest.
    with patch.dict(os.environ, {"PYTHONPATH": str(Path(__file__).parent)}):
        forkserver.ensure_running()
    return context
