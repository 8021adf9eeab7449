"""The training loop.

Nothing in it depends on how many epochs there will be in the end: the learning rate is
constant and what is judged (and kept) is a running average of the weights, which settles
as a falling learning rate would. So the number of epochs that was best on a fold is also
right for a training on all rows.
"""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from windsock.errors import SpecError
from windsock.learners.neural.checkpoint import Arrays, Checkpoints, Progress
from windsock.learners.neural.data import Batch, Batches
from windsock.learners.neural.distributed import SignalNoted, add_up
from windsock.learners.neural.step import Plan, Step, loss_of
from windsock.learners.ranks import rank, shared, world
from windsock.served.network import TabularNetwork

log = logging.getLogger(__name__)

_JUDGED_AT_ONCE = 1 << 16
_WRITING = 0.05
"""Share of the time that checkpoints may take; a GPU takes thousands of steps while one is written."""


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
        # Half an epoch of memory, but never less than ten steps.
        self._state = Step(network, plan, device, 1 - 1 / max(10.0, batches.steps / 2))
        self._step = 0
        self._saved, self._pause = 0.0, 0.0
        self.kept: list[Arrays] = []
        """Averaged weights and buffers after each epoch of the curve."""
        self.curve: list[float] = []

    def run(self, checkpoints: Checkpoints | None, report: Callable[[int, float], None] | None) -> None:
        """Train to the end, from a checkpoint if there is one.

        Raises:
            SpecError: The loss is no number any more.
        """
        devices = [self._device] if self._device.type == "cuda" else []
        # Randomness comes from PyTorch's own generators, seeded for every step; nobody else shall notice.
        with torch.random.fork_rng(devices), SignalNoted() as sigterm:
            self._go_on(checkpoints, report)
            first = self._step
            while not self._finished():
                self._epoch(checkpoints, report, sigterm)
            if checkpoints is not None and self._step > first:
                self._save(checkpoints)

    def averaged(self) -> Arrays:
        """Return the averaged weights and buffers as they are now."""
        return _on_host(self._state.averaged())

    def _finished(self) -> bool:
        done = self._step // self._batches.steps
        if done >= self._plan.epochs:
            return True
        return bool(self.curve) and len(self.curve) - 1 - int(np.argmin(self.curve)) >= self._plan.patience

    def _epoch(
        self, checkpoints: Checkpoints | None, report: Callable[[int, float], None] | None, sigterm: SignalNoted
    ) -> None:
        epoch, within = divmod(self._step, self._batches.steps)
        for batch in self._batches.epoch(epoch, within):
            self._learn(batch)
            if self._step % self._batches.steps == 0 and self._judged is not None:
                self._judge(epoch, report)
            due = self._step % self._plan.checkpoint_steps == 0 and time.monotonic() >= self._saved + self._pause
            if checkpoints is not None and (due or sigterm.noted):
                self._save(checkpoints)
            if sigterm.noted and rank() == 0:
                log.warning("SIGTERM after step %d; %s", self._step, "kept" if checkpoints else "nothing to keep")
                sigterm.pass_on()

    def _learn(self, batch: Batch) -> None:
        self._state.take(batch, self._step)
        self._step += 1

    def _judge(self, epoch: int, report: Callable[[int, float], None] | None) -> None:
        """Measure the loss of the averaged weights on the judged rows, plain and in the label's own unit."""
        loss = self._judged_loss()
        if not np.isfinite(loss):
            raise SpecError(
                f"The network's loss after epoch {epoch + 1} is {loss}: its training diverged. Lower "
                f"params.learning_rate (it was {self._plan.learning_rate:g}) or the range searched for it."
            )
        self.curve.append(loss)
        self.kept.append(self.averaged())
        log.info("epoch %d of %d at most: %s loss %.6g", epoch + 1, self._plan.epochs, self._plan.loss, loss)
        if report is not None:
            shared(partial(report, epoch + 1, loss))

    def _judged_loss(self) -> float:
        rows, labels = self._judged  # type: ignore[misc]
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        first, last = (len(rows) * r // world() for r in (rank(), rank() + 1))
        with self._state.judging():
            for start in range(first, last, _JUDGED_AT_ONCE):
                part = slice(start, min(start + _JUDGED_AT_ONCE, last))
                outcome = self._state.judge(rows[part].to(self._device))
                # Scores are corrected for the weight of positives, so the loss is a plain one.
                total += loss_of(self._plan.loss, 1.0, outcome, labels[part].to(self._device))
        add_up(total)
        return float(total) / len(rows)

    def _save(self, checkpoints: Checkpoints) -> None:
        if rank() != 0:
            return
        began = time.monotonic()
        checkpoints.save(Progress(self._step, _on_host(self._state.state()), list(self.curve), self.kept))
        self._saved = time.monotonic()
        self._pause = (self._saved - began) / _WRITING

    def _go_on(self, checkpoints: Checkpoints | None, report: Callable[[int, float], None] | None) -> None:
        found = shared(checkpoints.load) if checkpoints is not None else None
        if found is None:
            return
        self._state.restore({name: torch.from_numpy(array) for name, array in found.state.items()})
        self._step, self.curve, self.kept = found.step, found.curve, found.kept
        log.info("going on after step %d (%d epochs judged)", self._step, len(self.curve))
        if report is not None:
            # Whoever listens now may be another process than the one that heard it before.
            for epoch, loss in enumerate(self.curve, 1):
                shared(partial(report, epoch, loss))


def _on_host(tensors: dict[str, Any]) -> Arrays:
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors.items()}
