"""AdamW on one long vector.

All weights of a network lie in one vector (see :class:`windsock.learners.neural.gradient.Weights`),
so a step is a handful of operations however many layers there are, and the whole state
is two vectors beside the weights: easy to write down and to take up again.
"""

from __future__ import annotations

import math
from typing import Any

import torch

_BETA1, _BETA2, _TINY = 0.9, 0.999, 1e-8


class AdamW:
    """Adam with decoupled weight decay; the same steps as ``torch.optim.AdamW``."""

    def __init__(self, weights: Any, *, learning_rate: float, weight_decay: float) -> None:
        self._weights = weights
        self._rate, self._decay = learning_rate, weight_decay
        self.mean = torch.zeros_like(weights)
        self.square = torch.zeros_like(weights)
        self._room = torch.empty_like(weights)

    def step(self, gradient: Any, number: int) -> None:
        """Move the weights.

        Args:
            gradient: As long as the weights.
            number: Of this step, from 1.
        """
        self.mean.lerp_(gradient, 1 - _BETA1)
        self.square.mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
        if self._decay:
            self._weights.mul_(1 - self._rate * self._decay)
        torch.sqrt(self.square, out=self._room)
        self._room.div_(math.sqrt(1 - _BETA2**number)).add_(_TINY)
        self._weights.addcdiv_(self.mean, self._room, value=-self._rate / (1 - _BETA1**number))
