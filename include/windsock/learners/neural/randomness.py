"""Everything random in a training, each as a function of the seed and of where it is used.

No generator's history is carried from step to step, so a training that goes on from a
checkpoint draws what the uninterrupted one would have drawn, and so do several processes
that share a batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch

_LEVELS = 1 << 16


def seed_of(seed: int, use: str, number: int = 0) -> int:
    """Return a seed of 63 bits for one use, for example ``("order", epoch)``."""
    digest = hashlib.blake2b(f"{seed}/{use}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def order(seed: int, epoch: int, rows: int) -> Any:
    """Return the order in which an epoch reads the rows, shape ``(rows,)``; the same on every device."""
    generator = torch.Generator().manual_seed(seed_of(seed, "order", epoch))
    return torch.randperm(rows, generator=generator)


class Dropout:
    """Masks for the hidden layers of one batch, all from a single draw."""

    def __init__(self, seed: int, rate: float, hidden: Sequence[int], device: Any) -> None:
        self._seed = seed
        # 16 random bits decide about a unit: four units for the price of one number.
        self._dropped = round(rate * _LEVELS)
        self.rate = self._dropped / _LEVELS
        self._hidden = tuple(hidden)
        self._generator = torch.Generator(device=device)
        self._device = device

    def masks(self, step: int, rows: int, own: slice, dtype: Any) -> list[Any]:
        """Return one mask per hidden layer, zeros and ``1 / (1 - rate)``.

        Args:
            step: Optimiser step that they are for.
            rows: Rows of the whole batch.
            own: Those of this process.
            dtype: Of the masks.

        Returns:
            Shapes ``(own rows, units)``; an empty list if nothing is dropped.
        """
        if self._dropped == 0:
            return []
        self._generator.manual_seed(seed_of(self._seed, "dropout", step))
        wide = sum(self._hidden)
        drawn = torch.empty((rows * wide + 3) // 4, dtype=torch.int64, device=self._device)
        drawn.random_(-(1 << 63), None, generator=self._generator)
        bits = drawn.view(torch.int16)[: rows * wide].view(rows, wide)[own]
        kept = (bits >= self._dropped - _LEVELS // 2).to(dtype).mul_(1 / (1 - self.rate))
        return list(kept.split(self._hidden, dim=1))
