"""The network: from a row as tables hold it to a score.

Everything a score depends on is part of the module. :class:`Preparation` does what learns nothing, once for all rows,
by means and spreads of the training rows: a number enters twice, standardised as it is and after a signed logarithm
(amounts and counts have long tails), with a flag beside it where the training rows had gaps. The body, which learns, is
:class:`Perceptron` or a module of the user's own. It looks a category up in a table with one row more than there are
values: the last stands for missing and for values that training never saw.
"""

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from windsock.served.matrix import Feature

FARTHEST = 8.0
"""Standardised numbers are cut off here: a single wild value must not swamp a row."""


class Preparation(nn.Module):  # type: ignore[misc]
    """Raw rows to what a body takes: float32 numbers, then the row of each category in its table."""

    def __init__(self, features: Sequence[Feature], gaps: Sequence[int]) -> None:
        """Lay out the columns; ``gaps`` says which of the numbers, counted from 0, have a flag for missing values.

        Means and spreads are zero and one until :meth:`fit` or a file sets them.
        """
        super().__init__()
        self.numbers = [i for i, f in enumerate(features) if f.categories is None]
        self.categories = [(i, len(f.categories)) for i, f in enumerate(features) if f.categories is not None]
        self.gaps = list(gaps)
        for name in ("plain", "logs"):
            standard = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
            self.register_buffer(name, standard.repeat(1, len(self.numbers)))

    @classmethod
    def fit(cls, features: Sequence[Feature], x: npt.NDArray[np.float64]) -> Self:
        """Learn means, spreads and gaps of training rows, shape ``(rows, features)``; NaN is missing."""
        numbers = x[:, [i for i, f in enumerate(features) if f.categories is None]]
        preparation = cls(features, np.flatnonzero(np.isnan(numbers).any(axis=0)).tolist())
        preparation.plain = torch.from_numpy(_mean_and_spread(numbers))
        preparation.logs = torch.from_numpy(_mean_and_spread(np.sign(numbers) * np.log1p(np.abs(numbers))))
        return preparation

    @property
    def width(self) -> int:
        """Prepared numbers of a row: each twice, and the flags."""
        return 2 * len(self.numbers) + len(self.gaps)

    @property
    def tables(self) -> list[int]:
        """Rows of each category's table: its values and one for all others."""
        return [count + 1 for _, count in self.categories]

    def forward(self, x: Any) -> Any:
        """Prepare raw rows, float64, shape ``(rows, features)``, to float32, shape ``(rows, width + categories)``."""
        numbers = x.index_select(1, torch.tensor(self.numbers, dtype=torch.int64, device=x.device))
        logs = torch.sign(numbers) * torch.log1p(torch.abs(numbers))
        parts = [_standardised(numbers, self.plain), _standardised(logs, self.logs)]
        if self.gaps:
            gaps = numbers.index_select(1, torch.tensor(self.gaps, device=x.device))
            parts.append(torch.isnan(gaps).to(torch.float32))
        for place, count in self.categories:
            code = x[:, place : place + 1]
            known = torch.logical_and(code >= 0, code < count)
            parts.append(torch.where(known, torch.floor(code), float(count)).to(torch.float32))
        return torch.cat(parts, dim=1)

    def split(self, prepared: Any) -> tuple[Any, Any]:
        """Return a body's inputs: float32 numbers, shape ``(rows, width)``, and int64 codes ``(rows, categories)``."""
        end = self.width + len(self.categories)
        return prepared[:, : self.width], prepared[:, self.width : end].to(torch.int64)


class Perceptron(nn.Module):  # type: ignore[misc]
    """A multilayer perceptron over numbers and looked-up categories."""

    def __init__(self, inputs: int, tables: Sequence[int], hidden: Sequence[int]) -> None:
        """Draw the first weights for rows of so many prepared numbers, category tables and hidden units."""
        super().__init__()
        sizes = [min(16, math.ceil(math.sqrt(rows))) for rows in tables]
        self.tables = nn.ModuleList(nn.Embedding(rows, size) for rows, size in zip(tables, sizes, strict=True))
        for table in self.tables:
            nn.init.normal_(table.weight, std=0.5)
            with torch.no_grad():
                # Never trained if nothing was missing; zero is the middle of the other rows.
                table.weight[-1].zero_()
        widths = [inputs + sum(sizes), *hidden]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, [*hidden, 1], strict=True))
        for layer in self.layers[:-1]:
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
        nn.init.xavier_uniform_(self.layers[-1].weight)
        for layer in self.layers:
            nn.init.zeros_(layer.bias)

    def forward(self, numbers: Any, codes: Any, kept: Sequence[Any] = (), dropout: float = 0.0) -> Any:
        """Return the last layer's output, shape ``(rows, 1)``.

        Args:
            numbers: float32, shape ``(rows, inputs)``.
            codes: int64, shape ``(rows, tables)``.
            kept: Which units of each hidden layer are not zeroed, shape ``(rows, units)`` each; for training.
            dropout: Share of the units that were drawn to be dropped.
        """
        h = numbers
        if self.tables:
            h = torch.cat([h, *(table(codes[:, i]) for i, table in enumerate(self.tables))], dim=1)
        for i, layer in enumerate(self.layers[:-1]):
            h = self._linear(layer, h, dropout if i else 0.0)
            if kept:
                # The rectifier's own gradient is zero where its result is, so this needs none.
                with torch.no_grad():
                    h.mul_(kept[i])
            h = h.relu_()
        return self._linear(self.layers[-1], h, dropout)

    def _linear(self, layer: nn.Linear, h: Any, dropout: float) -> Any:
        # What is left of a layer counts for more; scaling the next weights is less work than scaling all rows.
        weight = layer.weight / (1 - dropout) if dropout else layer.weight
        return functional.linear(h, weight, layer.bias)


class TabularNetwork(nn.Module):  # type: ignore[misc]
    """Preparation, body and the way back to the label's unit: makes scores of raw rows."""

    def __init__(self, preparation: Preparation, body: nn.Module, *, binary: bool) -> None:
        """Put the parts together; ``body`` makes ``(numbers, codes)`` of :meth:`Preparation.split` one output a row."""
        super().__init__()
        self.preparation, self.body, self.binary = preparation, body, binary
        self.register_buffer("target", torch.tensor([0.0, 1.0], dtype=torch.float64))
        """Mean and spread of a regression's labels."""
        # Weighting positives multiplies the odds that the body learns; this takes it back.
        self.register_buffer("shift", torch.zeros((), dtype=torch.float64))

    def outcome(self, output: Any) -> Any:
        """Turn the body's output into log odds or a value in the label's unit, float64, shape ``(rows,)``."""
        output = output.flatten().to(torch.float64)
        return output - self.shift if self.binary else output * self.target[1] + self.target[0]

    def forward(self, x: Any) -> Any:
        """Return the probability of 1, or the expected value, of raw rows: float64, shape ``(rows,)``."""
        outcome = self.outcome(self.body(*self.preparation.split(self.preparation(x))))
        return torch.sigmoid(outcome) if self.binary else outcome


def _mean_and_spread(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return mean and spread of each column's finite values, shape ``(2, columns)``."""
    finite = np.isfinite(x)
    count = np.maximum(finite.sum(axis=0), 1)
    mean = np.where(finite, x, 0.0).sum(axis=0) / count
    spread = np.sqrt((np.where(finite, x - mean, 0.0) ** 2).sum(axis=0) / count)
    # A column without spread says nothing; a tiny one is rounding.
    spread[~(spread > 1e-12 * np.maximum(np.abs(mean), 1.0))] = 1.0
    return np.stack([mean, spread])


def _standardised(numbers: Any, standard: Any) -> Any:
    scaled = (numbers - standard[0]) / standard[1]
    # Of a missing value nothing is known, so it stands at the mean.
    return torch.clamp(torch.nan_to_num(scaled, nan=0.0), -FARTHEST, FARTHEST).to(torch.float32)
