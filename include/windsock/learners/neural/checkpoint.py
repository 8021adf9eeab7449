"""Going on after a kill: the state of a training between two steps, as one small file.

``training.npz`` holds weights, averages and optimiser state as plain arrays and the counters as JSON, all in one
object that is replaced in one step. Weights as they stood after each epoch are files of their own, written once.
A checkpoint of another training (parameters, rows, seed, number of processes), or a damaged one, is left aside.
"""

import hashlib
import io
import json
import logging
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from windsock.learners.learner import Rows
from windsock.runs.checkpoints import CheckpointFolder

log = logging.getLogger(__name__)

Arrays = dict[str, npt.NDArray[Any]]

STATE = "training.npz"
_ABOUT = "about"


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
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
