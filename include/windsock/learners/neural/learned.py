"""A trained network: scores after any epoch, the model folder, and what each input is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from windsock.learners.neural.checkpoint import Floats
from windsock.learners.neural.device import threads_limited
from windsock.learners.neural.gradient import loss_of
from windsock.learners.neural.loop import Plan
from windsock.learners.neural.network import TabularNetwork
from windsock.learners.neural.randomness import seed_of
from windsock.learners.rows import Rows
from windsock.served.formats.torch import MODEL_FILE, card_of, scored
from windsock.served.matrix import Feature
from windsock.served.model import MODEL_CARD

_SAMPLE_ROWS = 10_000
"""Training rows that importance is measured on."""


class LearnedNetwork:
    """One trained network, on the CPU."""

    def __init__(
        self,
        network: TabularNetwork,
        features: Sequence[Feature],
        task: Literal["binary", "regression"],
        curve: list[float],
        final: Floats,
        kept: list[Floats],
        plan: Plan,
        rows: Rows,
    ) -> None:
        """Keep a sample of the training rows.

        Args:
            network: On the CPU; its weights are set from the vectors below.
            features: Inputs in order.
            task: Of the model.
            curve: Loss on the judged rows after each epoch.
            final: Weights as they are now, in the order of the network's parameters.
            kept: Weights after each epoch of the curve.
            plan: How it was trained.
            rows: What it was trained on.
        """
        self._network: TabularNetwork = network.eval().requires_grad_(False)
        self._features, self._task = tuple(features), task
        self._final, self._kept, self._plan = final, kept, plan
        self._curve = curve
        picked = np.random.default_rng(plan.seed).permutation(len(rows.y))[:_SAMPLE_ROWS]
        self._sample = rows.x[picked], rows.y[picked]

    @property
    def curve(self) -> list[float]:
        """Loss on the judged rows after each epoch; empty if there were none."""
        return list(self._curve)

    def predict(self, x: npt.NDArray[np.float64], rounds: int | None = None) -> npt.NDArray[np.float64]:
        """Score rows as the network stood after some epochs.

        Args:
            x: Shape ``(rows, features)``.
            rounds: Up to the length of the curve; None: as it is now.

        Returns:
            Probability of 1 or the expected value, shape ``(rows,)``.
        """
        return scored(self._as_of(rounds), x)

    def files(self) -> dict[str, bytes]:
        """Return the model folder: file name to bytes."""
        from windsock.learners.neural.export import exported

        with threads_limited():
            program = exported(self._as_of(None), len(self._features))
        return {MODEL_FILE: program, MODEL_CARD: card_of(self._task, self._features)}

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
            outcome = network.outcome(network.body(network.prepare(torch.from_numpy(x))))
            # Scores are corrected for the weight of positives, so the loss is a plain one.
            return float(loss_of(self._plan.loss, 1.0, outcome, torch.from_numpy(y))) / len(y)

    def _as_of(self, rounds: int | None) -> TabularNetwork:
        vector: Floats = self._final if rounds is None or not self._kept else self._kept[rounds - 1]
        start = 0
        for parameter in self._network.parameters():
            part = slice(start, start + parameter.numel())
            # A copy each: the export would keep the whole vector for every view of it.
            parameter.data = torch.from_numpy(vector[part].copy()).view_as(parameter)
            start = part.stop
        return self._network
