"""The training loop, and how it goes on after a kill.

Nothing in it depends on how many epochs there will be in the end: the learning rate is constant and what is judged (and
kept) is a running average of the weights, which settles as a falling learning rate would. So the number of epochs that
was best on a fold is also right for a training on all rows.

Its state between two steps is one small file that is replaced in one step: ``training.npz`` holds weights, averages and
optimiser state as plain arrays and the counters as JSON. Weights as they stood after each epoch are files of their own,
written once. A checkpoint of another training (parameters, rows, seed, number of processes), or a damaged one, is left
aside.
"""

import hashlib
import io
import json
import logging
import signal
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from windsock.errors import SpecError
from windsock.learners.learner import Report, Rows
from windsock.learners.neural.data import Batch, Batches
from windsock.learners.neural.device import add_up
from windsock.learners.neural.step import Plan, Step, loss_of
from windsock.learners.ranks import rank, shared, world
from windsock.runs.run_folder import CheckpointFolder
from windsock.served.formats.network import TabularNetwork

log = logging.getLogger(__name__)

Arrays = dict[str, npt.NDArray[Any]]

STATE = "training.npz"
_ABOUT = "about"
_JUDGED_AT_ONCE = 1 << 16
_WRITING = 0.05
"""Share of the time that checkpoints may take; a GPU takes thousands of steps while one is written."""


@dataclass
class Progress:
    """A training between two steps."""

    step: int
    """Optimiser steps done."""
    state: Arrays = field(default_factory=dict)
    """Of the optimiser; see :meth:`windsock.learners.neural.step.Step.state`."""
    curve: list[float] = field(default_factory=list)
    """Loss on the judged rows after each epoch done."""
    kept: list[Arrays] = field(default_factory=list)
    """Averaged weights and buffers after each epoch of the curve."""


def fingerprint(about: Mapping[str, Any], *parts: Rows | None) -> str:
    """Return what a training is known by: its rows, and everything beside them that decides (JSON types)."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for rows in parts:
        for array in (rows.x, rows.y) if rows is not None else ():
            digest.update(f"{array.shape}{array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).data)
        digest.update(b"/")
    return digest.hexdigest()


class Checkpoints:
    """The checkpoints of one training."""

    def __init__(self, folder: CheckpointFolder, fingerprint: str) -> None:
        self._folder, self._fingerprint = folder, fingerprint
        self._hashes: list[str] = []
        """Of the epochs' files that are written."""

    def save(self, progress: Progress) -> None:
        """Write the progress; until this returns, the one before stays."""
        for epoch in range(len(self._hashes), len(progress.kept)):
            data = _packed(progress.kept[epoch])
            self._folder.write(_epoch_file(epoch), data)
            self._hashes.append(hashlib.sha256(data).hexdigest())
        about = {"mark": self._fingerprint, "step": progress.step, "curve": progress.curve, "epochs": self._hashes}
        text = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
        self._folder.write(STATE, _packed({**progress.state, _ABOUT: text}))

    def load(self) -> Progress | None:
        """Return the progress of this very training, or None."""
        data = self._folder.read(STATE)
        if data is None:
            return None
        try:
            arrays = _unpacked(data)
            about = json.loads(arrays.pop(_ABOUT).tobytes())
            if about["mark"] != self._fingerprint:
                log.info("%s: the checkpoint there is another training's; beginning anew", self._folder.root)
                return None
            kept = [self._epoch(i, expected) for i, expected in enumerate(about["epochs"])]
            progress = Progress(int(about["step"]), arrays, [float(v) for v in about["curve"]], kept)
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error, OSError) as err:
            log.warning("%s: the checkpoint there is damaged (%r); beginning anew", self._folder.root, err)
            return None
        self._hashes = list(about["epochs"])
        return progress

    def _epoch(self, epoch: int, expected: str) -> Arrays:
        data = self._folder.read(_epoch_file(epoch))
        if data is None or hashlib.sha256(data).hexdigest() != expected:
            raise ValueError(f"{_epoch_file(epoch)} is missing or not what was written")
        return _unpacked(data)


def _epoch_file(epoch: int) -> str:
    return f"epoch-{epoch + 1:04d}.npz"


def _packed(arrays: Arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _unpacked(data: bytes) -> Arrays:
    return dict(np.load(io.BytesIO(data), allow_pickle=False))


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
