"""The network: from a row as tables hold it to a score.

Everything a score depends on is part of the module: means, spreads and category counts
are buffers learnt from the training rows, so that the exported file needs no code beside
it. A number enters twice, standardised as it is and standardised after a signed
logarithm (amounts and counts have long tails), with a flag beside it where the training
rows had gaps. A category is looked up in a table with one row more than there are
values: the last stands for missing and for values that training never saw.

:meth:`TabularNetwork.prepare` does the part that learns nothing, once for all rows;
:meth:`TabularNetwork.body` does the part that learns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from windsock.served.matrix import Feature

FARTHEST = 8.0
"""Standardised numbers are cut off here: a single wild value must not swamp a row."""


class TabularNetwork(nn.Module):  # type: ignore[misc]
    """A multilayer perceptron over numbers and categories; makes scores of raw rows."""

    def __init__(
        self,
        features: Sequence[Feature],
        x: npt.NDArray[np.float64],
        y: npt.NDArray[np.float64],
        *,
        hidden: Sequence[int],
        binary: bool,
        positive_weight: float,
        seed: int,
    ) -> None:
        """Learn the buffers from training rows and draw the first weights.

        Args:
            features: Inputs in order.
            x: Training rows, shape ``(rows, features)``; NaN is missing.
            y: Their labels, shape ``(rows,)``.
            hidden: Units of each hidden layer.
            binary: Whether a score is a probability.
            positive_weight: Weight of positive rows in the loss; scores are corrected for it.
            seed: Of the first weights.
        """
        super().__init__()
        self.numbers = [i for i, f in enumerate(features) if f.categories is None]
        self.categories = [i for i, f in enumerate(features) if f.categories is not None]
        self.counts = [len(features[i].categories or ()) for i in self.categories]
        self.binary = binary
        plain, gaps = _standard(x[:, self.numbers])
        logs, _ = _standard(_signed_log(x[:, self.numbers]))
        self.gaps = np.flatnonzero(gaps).tolist()
        self.register_buffer("number_places", torch.tensor(self.numbers, dtype=torch.int64))
        self.register_buffer("gap_places", torch.tensor(self.gaps, dtype=torch.int64))
        # Adding zeros of type float64 turns a float32 matrix into float64 without a check of its type in the export.
        self.register_buffer("zero", torch.zeros(x.shape[1], dtype=torch.float64))
        self.register_buffer("plain", torch.from_numpy(plain))
        self.register_buffer("logs", torch.from_numpy(logs))
        centre, spread = (0.0, 1.0) if binary else (float(y.mean()), float(y.std()) or 1.0)
        self.register_buffer("target", torch.tensor([centre, spread], dtype=torch.float64))
        # Weighting positives multiplies the odds that the network learns; this takes it back.
        self.register_buffer("shift", torch.tensor(math.log(positive_weight) if binary else 0.0, dtype=torch.float64))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._make_layers(hidden)
        if binary:
            share = min(max(float(y.mean()), 1e-6), 1 - 1e-6)
            with torch.no_grad():
                self.layers[-1].bias.fill_(math.log(share / (1 - share) * positive_weight))

    def _make_layers(self, hidden: Sequence[int]) -> None:
        sizes = [min(16, math.ceil(math.sqrt(n + 1))) for n in self.counts]
        self.tables = nn.ModuleList(nn.Embedding(n + 1, size) for n, size in zip(self.counts, sizes, strict=True))
        for table in self.tables:
            nn.init.normal_(table.weight, std=0.5)
            with torch.no_grad():
                # Never trained if nothing was missing; zero is the middle of the other rows.
                table.weight[-1].zero_()
        widths = [self.width + sum(sizes), *hidden]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, [*hidden, 1], strict=True))
        for layer in self.layers[:-1]:
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        nn.init.xavier_uniform_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    @property
    def width(self) -> int:
        """Prepared numbers of a row: each twice, and the flags."""
        return 2 * len(self.numbers) + len(self.gaps)

    def prepare(self, x: Any) -> Any:
        """Turn raw rows into what the layers take; learns nothing.

        Args:
            x: float64 or float32, shape ``(rows, features)``; NaN is missing.

        Returns:
            float32, shape ``(rows, width + categories)``: prepared numbers, then each category's row in its table.
        """
        x = x + self.zero
        numbers = x.index_select(1, self.number_places)
        parts = [
            _scaled(numbers, self.plain),
            _scaled(torch.sign(numbers) * torch.log1p(torch.abs(numbers)), self.logs),
        ]
        if self.gaps:
            parts.append(torch.isnan(numbers.index_select(1, self.gap_places)).to(torch.float32))
        for place, count in zip(self.categories, self.counts, strict=True):
            code = x[:, place : place + 1]
            known = torch.logical_and(code >= 0, code < count)
            parts.append(torch.where(known, torch.floor(code), float(count)).to(torch.float32))
        return torch.cat(parts, dim=1)

    def body(self, prepared: Any, masks: Sequence[Any] = ()) -> Any:
        """Return the last layer's output, shape ``(rows,)``; ``masks`` are multiplied onto the hidden layers."""
        h = prepared[:, : self.width]
        if self.tables:
            looked_up = [
                functional.embedding(prepared[:, self.width + i].to(torch.int64), table.weight)
                for i, table in enumerate(self.tables)
            ]
            h = torch.cat([h, *looked_up], dim=1)
        for i, layer in enumerate(self.layers[:-1]):
            h = functional.relu(layer(h))
            if masks:
                h = h * masks[i]
        return self.layers[-1](h)[:, 0]

    def outcome(self, output: Any) -> Any:
        """Turn the last layer's output into log odds or a value in the label's unit, float64."""
        output = output.to(torch.float64)
        return output - self.shift if self.binary else output * self.target[1] + self.target[0]

    def forward(self, x: Any) -> Any:
        """Score raw rows.

        Args:
            x: float64 or float32, shape ``(rows, features)``; NaN is missing, a category is its value's position.

        Returns:
            float64, shape ``(rows,)``: probability of 1, or the expected value.
        """
        outcome = self.outcome(self.body(self.prepare(x)))
        return torch.sigmoid(outcome) if self.binary else outcome


def _signed_log(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.sign(x) * np.log1p(np.abs(x))


def _standard(x: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return mean and spread of each column, shape ``(2, columns)``, and which columns have gaps."""
    finite = np.isfinite(x)
    count = np.maximum(finite.sum(axis=0), 1)
    mean = np.where(finite, x, 0.0).sum(axis=0) / count
    spread = np.sqrt((np.where(finite, x - mean, 0.0) ** 2).sum(axis=0) / count)
    # A column without spread says nothing; a tiny one is rounding.
    spread[~(spread > 1e-12 * np.maximum(np.abs(mean), 1.0))] = 1.0
    gaps = np.asarray(np.isnan(x).any(axis=0))
    return np.stack([mean, spread]), gaps


def _scaled(numbers: Any, standard: Any) -> Any:
    scaled = torch.clamp((numbers - standard[0]) / standard[1], -FARTHEST, FARTHEST)
    # Of a missing value nothing is known, so it stands at the mean.
    return torch.nan_to_num(scaled, nan=0.0).to(torch.float32)
