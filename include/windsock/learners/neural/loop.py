"""The training loop.

Nothing in it depends on how many epochs there will be in the end: the learning rate is
constant and what is judged (and kept) is a running average of the weights, which settles
as a falling learning rate would. So the number of epochs that was best on a fold is also
right for a training on all rows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from windsock.errors import SpecError
from windsock.learners.neural.adamw import AdamW
from windsock.learners.neural.batches import Batch, Batches
from windsock.learners.neural.checkpoint import Checkpoints, Floats, Progress
from windsock.learners.neural.distributed import SignalNoted, add_up
from windsock.learners.neural.gradient import Gradient, Loss, Weights
from windsock.learners.neural.network import TabularNetwork
from windsock.learners.neural.randomness import Dropout
from windsock.learners.ranks import rank, shared, world

log = logging.getLogger(__name__)

_JUDGED_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Plan:
    """How to train."""

    loss: Loss
    positive_weight: float
    mean_weight: float
    """Mean over the training rows of what their loss is weighted by."""
    learning_rate: float
    weight_decay: float
    dropout: float
    hidden: tuple[int, ...]
    seed: int
    epochs: int
    patience: int
    bf16: bool
    checkpoint_steps: int


class Training:
    """One training of one network on one device."""

    def __init__(
        self, network: TabularNetwork, plan: Plan, device: Any, batches: Batches, judged: tuple[Any, Any] | None
    ) -> None:
        """Put the network on the device.

        Args:
            network: Is changed.
            plan: How to train.
            device: Where.
            batches: The training rows.
            judged: Prepared rows, shape ``(rows, columns)``, and their labels, shape ``(rows,)``; None: no curve.
        """
        self._plan, self._device, self._batches, self._judged = plan, device, batches, judged
        self._network = network.to(device)
        self._weights = Weights(self._network)
        self._optimiser = AdamW(self._weights.vector, learning_rate=plan.learning_rate, weight_decay=plan.weight_decay)
        self._average = self._weights.vector.clone()
        # Half an epoch of memory, but never less than ten steps.
        self._memory = 1 - 1 / max(10.0, batches.steps / 2)
        self._dropout = Dropout(plan.seed, plan.dropout, plan.hidden, device)
        self._gradient = Gradient(
            self._network, self._weights, loss=plan.loss, positive_weight=plan.positive_weight,
            dropout=self._dropout.rate, dtype=torch.bfloat16 if plan.bf16 else torch.float32,
        )  # fmt: skip
        self._kept: list[Floats] = []
        self._step = 0
        self.curve: list[float] = []

    def run(self, checkpoints: Checkpoints | None, report: Callable[[int, float], None] | None) -> None:
        """Train to the end, from a checkpoint if there is one.

        Raises:
            SpecError: The loss is no number any more.
        """
        self._go_on(checkpoints, report)
        began, first = time.monotonic(), self._step
        with SignalNoted() as sigterm:
            while not self._finished():
                self._epoch(checkpoints, report, sigterm)
            if checkpoints is not None and rank() == 0 and self._step > first:
                checkpoints.save(self._progress())
        seconds = time.monotonic() - began
        log.debug("%d steps in %.1f s", self._step - first, seconds)

    def averages(self) -> tuple[Floats, list[Floats]]:
        """Return the averaged weights as they are, and as they were after each epoch of the curve."""
        return _on_host(self._average), self._kept

    def _finished(self) -> bool:
        done = self._step // self._batches.steps
        if done >= self._plan.epochs:
            return True
        return bool(self.curve) and len(self.curve) - 1 - int(np.argmin(self.curve)) >= self._plan.patience

    def _epoch(
        self,
        checkpoints: Checkpoints | None,
        report: Callable[[int, float], None] | None,
        sigterm: SignalNoted,
    ) -> None:
        epoch, within = divmod(self._step, self._batches.steps)
        for batch in self._batches.epoch(epoch, within):
            self._learn(batch)
            if self._step % self._batches.steps == 0 and self._judged is not None:
                self._judge(epoch, report)
            due = self._step % self._plan.checkpoint_steps == 0
            if checkpoints is not None and rank() == 0 and (due or sigterm.noted):
                checkpoints.save(self._progress())
            if sigterm.noted and rank() == 0:
                log.warning("SIGTERM after step %d; %s", self._step, "kept" if checkpoints else "nothing to keep")
                sigterm.pass_on()

    def _autocast(self) -> AbstractContextManager[Any]:
        if not self._plan.bf16:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=torch.bfloat16)  # type: ignore[no-any-return]

    def _learn(self, batch: Batch) -> None:
        masks = self._dropout.masks(self._step, batch.size, batch.own, self._gradient.dtype)
        self._gradient.compute(batch.rows, masks, 1 / (batch.size * self._plan.mean_weight))
        add_up(self._weights.gradient)
        self._step += 1
        self._optimiser.step(self._weights.gradient, self._step)
        memory = min(self._memory, (1 + self._step) / (10 + self._step))
        self._average.lerp_(self._weights.vector, 1 - memory)

    def _judge(self, epoch: int, report: Callable[[int, float], None] | None) -> None:
        """Measure the loss of the averaged weights on the judged rows, plain and in the label's own unit."""
        own = self._weights.vector.clone()
        self._weights.vector.copy_(self._average)
        loss = self._judged_loss()
        self._weights.vector.copy_(own)
        if not np.isfinite(loss):
            raise SpecError(
                f"The network's loss after epoch {epoch + 1} is {loss}: its training diverged. Lower "
                f"params.learning_rate (it was {self._plan.learning_rate:g}) or the range searched for it."
            )
        self.curve.append(loss)
        self._kept.append(_on_host(self._average))
        log.info("epoch %d of %d at most: %s loss %.6g", epoch + 1, self._plan.epochs, self._plan.loss, loss)
        if report is not None:
            shared(partial(report, epoch + 1, loss))

    def _judged_loss(self) -> float:
        rows, labels = self._judged  # type: ignore[misc]
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        first, last = (len(rows) * r // world() for r in (rank(), rank() + 1))
        with torch.no_grad(), self._autocast():
            for start in range(first, last, _JUDGED_AT_ONCE):
                part = slice(start, min(start + _JUDGED_AT_ONCE, last))
                outcome = self._network.outcome(self._network.body(rows[part].to(self._device)))
                label = labels[part].to(self._device)
                if self._plan.loss == "log":
                    total += functional.binary_cross_entropy_with_logits(outcome, label, reduction="sum")
                elif self._plan.loss == "absolute":
                    total += (outcome - label).abs().sum()
                else:
                    total += ((outcome - label) ** 2).sum()
        add_up(total)
        return float(total) / len(rows)

    def _vectors(self) -> dict[str, Any]:
        return {
            "weights": self._weights.vector,
            "average": self._average,
            "mean": self._optimiser.mean,
            "square": self._optimiser.square,
        }

    def _progress(self) -> Progress:
        vectors = {name: _on_host(vector) for name, vector in self._vectors().items()}
        return Progress(self._step, vectors, list(self.curve), self._kept)

    def _go_on(self, checkpoints: Checkpoints | None, report: Callable[[int, float], None] | None) -> None:
        found = shared(checkpoints.load) if checkpoints is not None else None
        if found is None:
            return
        for name, vector in self._vectors().items():
            vector.copy_(torch.from_numpy(found.vectors[name]))
        self._step, self.curve, self._kept = found.step, found.curve, found.kept
        log.info("going on after step %d (%d epochs judged)", self._step, len(self.curve))
        if report is not None:
            # Whoever listens now may be another process than the one that heard it before.
            for epoch, loss in enumerate(self.curve, 1):
                shared(partial(report, epoch, loss))


def _on_host(vector: Any) -> Floats:
    return vector.detach().cpu().numpy().copy()  # type: ignore[no-any-return]
