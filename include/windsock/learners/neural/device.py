"""What a network is trained on: which device, how precisely, with how many threads."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from windsock.errors import SpecError
from windsock.served.model import threads

log = logging.getLogger(__name__)

Precision = Literal["auto", "bf16", "float32"]

DEVICE = "WINDSOCK_DEVICE"
"""Environment variable that names the device: ``cpu`` or ``cuda``; absent: a GPU if there is one."""


def prepare_process() -> None:
    """Set what the libraries read only once; to be called before PyTorch is first imported."""
    # Waiting threads must sleep: spinning ones burn the cores that other tasks need.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # Without it cuBLAS may add up in another order each time.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def choose_device() -> Any:
    """Return the ``torch.device`` to train on: a GPU if there is one, else the CPU.

    Raises:
        SpecError: ``WINDSOCK_DEVICE`` names something that is not here.
    """
    prepare_process()
    import torch

    wanted = os.environ.get(DEVICE, "").strip().lower()
    if wanted not in ("", "cpu", "cuda"):
        raise SpecError(f"{DEVICE}={wanted!r}: must be cpu or cuda, or not set at all.")
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise SpecError(
            f"{DEVICE}=cuda, but PyTorch {torch.__version__} sees no GPU here. Ask for one "
            "(compute.gpu), use an image built with CUDA, or unset the variable to train on the CPU."
        )
    if not there or wanted == "cpu":
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def describe(device: Any) -> str:
    """Return a device's name as a person knows it."""
    if device.type == "cpu":
        return "cpu"
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})"


def uses_bf16(precision: Precision, device: Any) -> bool:
    """Say whether to compute in bfloat16: if asked for, or if the device has units for it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type != "cuda":
        # CPUs without such units only lose digits by it.
        return False
    import torch

    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def free_bytes(device: Any) -> int:
    """Return how much memory a GPU could still give."""
    import torch

    return int(torch.cuda.mem_get_info(device)[0])


@contextmanager
def threads_limited() -> Iterator[None]:
    """Let PyTorch use ``WINDSOCK_THREADS`` threads for a while, then as many as before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads())
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Let PyTorch use only operations that give the same bits every time, then as before."""
    import torch

    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
