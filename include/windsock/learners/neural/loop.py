"""The training loop.

Nothing in it depends on how many epochs there will be in the end: the learning rate is
constant and what is judged (and kept) is a running average of the weights, which settles
as a falling learning rate would. So the number of epochs that was best on a fold is also
right for a training on all rows.
"""

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from windsock.errors import SpecError
from windsock.learners.learner import Report
from windsock.learners.neural.checkpoint import Arrays, Checkpoints, Progress
from windsock.learners.neural.data import Batch, Batches
from windsock.learners.neural.device import add_up
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
        self,
        network: TabularNetwork,
        plan: Plan,
        device: Any,
        batches: Batches,
        judged: tuple[Any, Any] | None = None,
        checkpoints: Checkpoints | None = None,
        report: Report | None = None,
    ) -> None:
        """Put the network on the device; ``judged`` holds prepared rows and labels to measure a curve on."""
        self._plan, self._device, self._batches, self._judged = plan, device, batches, judged
        self._checkpoints, self._report = checkpoints, report
        # Half an epoch of memory, but never less than ten steps.
        self._step = Step(network, plan, device, 1 - 1 / max(10.0, batches.steps / 2))
        self._saved, self._pause = 0.0, 0.0
        self.progress = Progress(step=0)

    def run(self) -> None:
        """Train to the end, from a checkpoint if there is one.

        Raises:
            SpecError: The loss is no number any more.
        """
        devices = [self._device] if self._device.type == "cuda" else []
        # Randomness comes from PyTorch's own generators, seeded for every step; nobody else shall notice.
        with torch.random.fork_rng(devices):
            self._resume()
            first = self.progress.step
            while not self._finished():
                with _sigterm_noted() as noted:
                    self._epoch(noted)
                if noted.is_set() and rank() == 0:
                    kept = "kept" if self._checkpoints else "nothing to keep"
                    log.warning("SIGTERM after step %d; %s", self.progress.step, kept)
                    # Now it does what it would have done. Where that is nothing, the training goes on.
                    signal.raise_signal(signal.SIGTERM)
            if self.progress.step > first:
                self._save()

    def averaged(self) -> Arrays:
        """Return the averaged weights and buffers as they are now."""
        return _on_host(self._step.averaged())

    def _finished(self) -> bool:
        curve = self.progress.curve
        if self.progress.step // self._batches.steps >= self._plan.epochs:
            return True
        return bool(curve) and len(curve) - 1 - int(np.argmin(curve)) >= self._plan.patience

    def _epoch(self, noted: threading.Event) -> None:
        """Take the steps that are left of an epoch, or those before SIGTERM."""
        epoch, within = divmod(self.progress.step, self._batches.steps)
        for batch in self._batches.epoch(epoch, within):
            self._learn(batch)
            step = self.progress.step
            if step % self._batches.steps == 0 and self._judged is not None:
                self._judge(epoch, *self._judged)
            due = step % self._plan.checkpoint_steps == 0 and time.monotonic() >= self._saved + self._pause
            if due or noted.is_set():
                self._save()
            if noted.is_set() and rank() == 0:
                return

    def _learn(self, batch: Batch) -> None:
        self._step.take(batch, self.progress.step)
        self.progress.step += 1

    def _judge(self, epoch: int, rows: Any, labels: Any) -> None:
        """Measure the loss of the averaged weights on the judged rows, plain and in the label's own unit."""
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        first, last = (len(rows) * r // world() for r in (rank(), rank() + 1))
        with self._step.judging():
            for start in range(first, last, _JUDGED_AT_ONCE):
                part = slice(start, min(start + _JUDGED_AT_ONCE, last))
                outcome = self._step.judge(rows[part].to(self._device))
                # Scores are corrected for the weight of positives, so the loss is a plain one.
                total += loss_of(self._plan.loss, 1.0, outcome, labels[part].to(self._device))
        add_up(total)
        loss = float(total) / len(rows)
        if not np.isfinite(loss):
            raise SpecError(
                f"The network's loss after epoch {epoch + 1} is {loss}: its training diverged. Lower "
                f"params.learning_rate (it was {self._plan.learning_rate:g}) or the range searched for it."
            )
        self.progress.curve.append(loss)
        self.progress.kept.append(self.averaged())
        log.info("epoch %d of %d at most: %s loss %.6g", epoch + 1, self._plan.epochs, self._plan.loss, loss)
        if self._report is not None:
            shared(partial(self._report, epoch + 1, loss))

    def _save(self) -> None:
        if self._checkpoints is None or rank() != 0:
            return
        began = time.monotonic()
        self._checkpoints.save(replace(self.progress, state=_on_host(self._step.state())))
        self._saved = time.monotonic()
        self._pause = (self._saved - began) / _WRITING

    def _resume(self) -> None:
        found = shared(self._checkpoints.load) if self._checkpoints is not None else None
        if found is None:
            return
        self._step.restore({name: torch.from_numpy(array) for name, array in found.state.items()})
        self.progress = found
        log.info("going on after step %d (%d epochs judged)", found.step, len(found.curve))
        if self._report is not None:
            # Whoever listens now may be another process than the one that heard it before.
            for epoch, loss in enumerate(found.curve, 1):
                shared(partial(self._report, epoch, loss))


def _on_host(tensors: dict[str, Any]) -> Arrays:
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors.items()}


@contextmanager
def _sigterm_noted() -> Iterator[threading.Event]:
    """Note SIGTERM, so that a training ends between two steps and not within one."""
    noted = threading.Event()
    # Python lets only the main thread handle signals; elsewhere SIGTERM keeps its meaning.
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = signal.signal(signal.SIGTERM, lambda *_: noted.set())
    try:
        yield noted
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
