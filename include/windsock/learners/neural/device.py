"""Where a network is trained: on which device and how precisely, in how many processes.

Several processes each take a share of every batch, and the gradients are added up. ``torchrun``
starts them and says by environment variables which is which (:mod:`windsock.learners.ranks`).
Every process holds the same weights and makes the same decisions; the one of rank 0 alone writes.
"""

import atexit
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import distributed

from windsock.errors import SpecError
from windsock.learners.ranks import rank, world

log = logging.getLogger(__name__)

Mode = Literal["eager", "captured", "compiled"]
"""How a step is run: operation by operation, as a CUDA graph, or compiled before that."""

DEVICE = "WINDSOCK_DEVICE"
"""Environment variable that names the device: ``cpu`` or ``cuda``; absent: a GPU if there is one."""
PROCESSES = "WINDSOCK_PROCESSES"
"""Environment variable: how many processes train together; absent: one per GPU."""
_TELLING = (64, 65, 75)
"""Exit codes that say what a caller should do; of several failures these count."""
_WORTH_COMPILING = 40_000
"""Steps: compiling takes about eight seconds for the two sizes of batch and saves about 0.2 ms a step."""


def choose_device() -> Any:
    """Return the ``torch.device`` to train on: a GPU if there is one, else the CPU.

    Raises:
        SpecError: ``WINDSOCK_DEVICE`` names something that is not here.
    """
    wanted = os.environ.get(DEVICE, "").strip().lower()
    if wanted not in ("", "cpu", "cuda"):
        raise SpecError(f"{DEVICE}={wanted!r}: must be cpu or cuda, or not set at all.")
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise SpecError(
            f"{DEVICE}=cuda, but PyTorch {torch.__version__} sees no GPU here. Ask for one "
            "(compute.gpu), use an image built with CUDA, or unset the variable to train on the CPU."
        )
    if not available or wanted == "cpu":
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def describe(device: Any) -> str:
    """Return a device's name as a person knows it."""
    if device.type == "cpu":
        return "cpu"
    return f"{device} ({torch.cuda.get_device_name(device)})"


def uses_bf16(precision: Literal["auto", "bf16", "float32"], device: Any) -> bool:
    """Say whether to compute in bfloat16: if asked for, or if it is a GPU with units for it."""
    if precision != "auto" or device.type != "cuda":
        return precision == "bf16"
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def choose_mode(wanted: Mode | Literal["auto"], device: Any, steps: int) -> Mode:
    """Return how steps are run: on a GPU captured, and compiled before that where it can be and so many steps pay."""
    if device.type == "cpu" or world() > 1:  # a graph cannot wait for other processes
        return "eager"
    if wanted != "auto":
        return wanted
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
    if find_spec("triton") is None or compiler is None:
        log.info("steps are captured but not compiled: that takes Triton and a C compiler, which are not both here")
        return "captured"
    if steps < _WORTH_COMPILING:
        log.info("steps are captured but not compiled: %d at most are too few to be worth it", steps)
        return "captured"
    return "compiled"


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Let PyTorch use only operations that give the same bits every time, then as before."""
    before, filled = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(wanted)
    # Nothing reads memory that it has not written; filling it first would cost a kernel for every tensor.
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = filled


def ensure_process_group() -> None:
    """Join the other processes, if there are any and it has not happened yet; part from them at the end."""
    if world() == 1:
        return
    device = choose_device()
    if distributed.is_initialized():
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, device_id=device if device.type == "cuda" else None)
    atexit.register(distributed.destroy_process_group)
    log.info("process %d of %d on %s (%s)", rank() + 1, world(), device, backend)


def add_up(tensor: Any) -> None:
    """Replace a tensor by its sum over all processes, in place."""
    if world() > 1:
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
    return max(1, int(torch.cuda.device_count()))


def relaunch_if_several(module: str) -> int | None:
    """Run a module (as ``python -m`` would) in several processes, if there should be several, and wait for them.

    Returns:
        The exit code; None at once if one process is enough, and in the processes that this has started.
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
