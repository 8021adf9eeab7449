"""A trained network: scores after any epoch, the model folder, and what each input is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from windsock.learners.neural.data import seed_of
from windsock.learners.neural.onnx_export import exported
from windsock.learners.neural.step import Plan, loss_of
from windsock.learners.rows import Rows
from windsock.served.formats.network import network_files, scored, threads_limited
from windsock.served.matrix import Feature
from windsock.served.model import Task
from windsock.served.network import Perceptron, TabularNetwork

if TYPE_CHECKING:
    from windsock.learners.neural.loop import Training

_SAMPLE_ROWS = 10_000
"""Training rows that importance is measured on, and that an exported module is tried on."""


class TrainedNetwork:
    """One trained network, on the CPU; see :class:`windsock.learners.learner.Learned`."""

    def __init__(
        self,
        network: TabularNetwork,
        features: Sequence[Feature],
        task: Task,
        training: Training,
        plan: Plan,
        rows: Rows,
    ) -> None:
        """Keep a sample of the training rows.

        Args:
            network: On the CPU; the training's weights are put into it.
            features: Inputs in order.
            task: Of the model.
            training: That has ended.
            plan: How it was trained.
            rows: What it was trained on.
        """
        self._network: TabularNetwork = network.eval()
        self._trained = [p for p in network.body.parameters() if p.requires_grad]
        network.requires_grad_(False)
        self._features, self._task, self._plan = tuple(features), task, plan
        self._final, self._kept, self._curve = training.averaged(), training.kept, training.curve
        picked = np.random.default_rng(plan.seed).permutation(len(rows.y))[:_SAMPLE_ROWS]
        self._sample = rows.x[picked], rows.y[picked]

    @property
    def curve(self) -> list[float]:
        """Loss on the judged rows after each epoch; empty if there were none."""
        return list(self._curve)

    def predict(self, x: npt.NDArray[np.float64], rounds: int | None = None) -> npt.NDArray[np.float64]:
        """Score rows as the network stood after some epochs."""
        return scored(self._as_of(rounds), x)

    def files(self) -> dict[str, bytes]:
        """Return the model folder: safetensors of Windsock's own network, ONNX of a user's module.

        Raises:
            SpecError: The module cannot be exported, or the export does not score as it does.
        """
        network = self._as_of(None)
        if isinstance(network.body, Perceptron):
            return network_files(network, self._task, self._features)
        with threads_limited():
            return exported(network, self._task, self._features, self._sample[0])

    def importance(self) -> dict[str, float] | None:
        """Return each feature's share of what the loss gains by mixing up a feature's values; None if it never does."""
        x, y = self._sample
        self._as_of(None)
        plain, gains = self._loss(x, y), []
        for place in range(len(self._features)):
            mixed = x.copy()
            order = np.random.default_rng(seed_of(self._plan.seed, "importance", place)).permutation(len(x))
            mixed[:, place] = x[order, place]
            gains.append(max(0.0, self._loss(mixed, y) - plain))
        total = sum(gains)
        if not total > 0:
            return None
        return {f.name: round(gain / total, 6) for f, gain in zip(self._features, gains, strict=True)}

    def _loss(self, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float:
        network = self._network
        with torch.no_grad(), threads_limited():
            prepared = network.preparation.split(network.preparation(torch.from_numpy(x)))
            # Scores are corrected for the weight of positives, so the loss is a plain one.
            return float(loss_of(self._plan.loss, 1.0, network.outcome(network.body(*prepared)), torch.from_numpy(y)))

    def _as_of(self, rounds: int | None) -> TabularNetwork:
        state = self._final if rounds is None or not self._kept else self._kept[rounds - 1]
        start = 0
        for parameter in self._trained:
            part = slice(start, start + parameter.numel())
            parameter.copy_(torch.from_numpy(state["weights"][part]).view_as(parameter))
            start = part.stop
        for name, buffer in self._network.body.named_buffers():
            buffer.copy_(torch.from_numpy(state[f"buffers.{name}"]))
        return self._network
