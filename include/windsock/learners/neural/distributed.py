"""Several processes train one network: each takes a share of every batch, the gradients are added up.

``torchrun`` starts the processes and says by environment variables which is which (see
:mod:`windsock.learners.ranks`). Every process holds the same weights and makes the same
decisions; the one of rank 0 alone writes.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
from typing import Any

from windsock.errors import SpecError
from windsock.learners.neural.device import DEVICE, choose_device, prepare_process
from windsock.learners.ranks import rank, world

log = logging.getLogger(__name__)

PROCESSES = "WINDSOCK_PROCESSES"
"""Environment variable: how many processes train together; absent: one per GPU."""
_TELLING = (64, 65, 75)
"""Exit codes that say what a caller should do; of several failures these count."""


def ensure_process_group() -> None:
    """Join the other processes, if there are any and it has not happened yet; part from them at the end."""
    if world() == 1:
        return
    device = choose_device()
    from torch import distributed

    if distributed.is_initialized():
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, device_id=device if device.type == "cuda" else None)
    atexit.register(distributed.destroy_process_group)
    log.info("process %d of %d on %s (%s)", rank() + 1, world(), device, backend)


def add_up(tensor: Any) -> None:
    """Replace a tensor by its sum over all processes, in place."""
    if world() > 1:
        from torch import distributed

        distributed.all_reduce(tensor)


def processes_wanted() -> int:
    """Return how many processes should train together on this machine.

    Raises:
        SpecError: ``WINDSOCK_PROCESSES`` is no number above zero.
    """
    wanted = os.environ.get(PROCESSES, "").strip()
    if wanted:
        if not wanted.isdigit() or int(wanted) == 0:
            raise SpecError(f"{PROCESSES}={wanted!r}: must be a number above zero, or not set at all.")
        return int(wanted)
    if os.environ.get(DEVICE, "").strip().lower() == "cpu":
        return 1
    prepare_process()
    import torch

    return max(1, int(torch.cuda.device_count()))


def relaunch_if_several(module: str) -> int | None:
    """Run a module (as ``python -m`` would) in several processes, if there should be several, and wait for them.

    Returns:
        The exit code to end with; None at once if one process is enough, and in the processes
        that this has started.
    """
    if "WORLD_SIZE" in os.environ or (count := processes_wanted()) == 1:
        return None
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    log.info("starting %s in %d processes", module, count)
    arguments = ["--standalone", "--nproc-per-node", str(count), "--module", module, *sys.argv[1:]]
    try:
        run(parse_args(arguments))
    except ChildFailedError as err:
        codes = [failure.exitcode for failure in err.failures.values()]
        code = next((c for c in codes if c in _TELLING), codes[0])
        # Killed by a signal is a negative number here; shells and pods count from 128.
        return int(code if code > 0 else 128 - code)
    except SignalException as err:
        return 128 + int(err.sigval)
    return 0


class SignalNoted:
    """Notes SIGTERM, so that a training ends between two steps and not within one."""

    def __init__(self) -> None:
        self.noted = False
        self._before: Any = None

    def __enter__(self) -> SignalNoted:
        # Python lets only the main thread handle signals; elsewhere SIGTERM keeps its meaning.
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def _note(self, *_: object) -> None:
        self.noted = True

    def pass_on(self) -> None:
        """Let the signal do what it would have done; return only if that is nothing."""
        self.__exit__()
        self.noted = False
        signal.raise_signal(signal.SIGTERM)
        self.__enter__()

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None
