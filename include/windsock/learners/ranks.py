"""Which of several trainer processes this is (``torchrun``), and how they agree.

Without ``torchrun`` there is one process of rank 0 and nothing here loads PyTorch.
Everything that chooses or writes happens on rank 0; the others follow what it decided,
so that clocks, databases and folders cannot tell the processes different things.
"""

import os
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def rank() -> int:
    """Return this process's place among its kind; 0 leads."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def shared(decide: Callable[[], T]) -> T:
    """Let rank 0 decide something and return the same value everywhere.

    An error on rank 0 is raised on every rank, so that none waits for ever.
    """
    if world() == 1:
        return decide()
    from torch import distributed

    told: list[tuple[T | None, Exception | None]] = [(None, None)]
    if rank() == 0:
        try:
            told = [(decide(), None)]
        except Exception as err:
            told = [(None, err)]
    distributed.broadcast_object_list(told, src=0)
    value, error = told[0]
    if error is not None:
        raise error
    return value  # type: ignore[return-value]
