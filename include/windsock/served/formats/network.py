"""Windsock's own network as a model: ``model.safetensors`` holds its numbers, ``model.json`` its architecture.

Everything that a score depends on is part of the module. :class:`Preparation` does what learns nothing, once for all
rows, by means and spreads of the training rows: a number enters twice, standardised as it is and after a signed
logarithm (amounts and counts have long tails), with a flag beside it where the training rows had gaps. The body, which
learns, is :class:`Perceptron` or a module of the user's own. It looks a category up in a table with one row more than
there are values: the last stands for missing and for values that training never saw.

The network is built from the card, and the numbers are put in by name: the file is nothing but named arrays, and each
must have exactly the shape and type that the card asks for.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import nn
from torch.nn import functional

from windsock.errors import DataContractError
from windsock.served.matrix import Feature
from windsock.served.model import MODEL_CARD, Floats, Scorer, Task, scored, threads
from windsock.store import to_json

FORMAT = "windsock-network/1"
MODEL_FILE = "model.safetensors"
FARTHEST = 8.0
"""Standardised numbers are cut off here: a single wild value must not swamp a row."""
_MOST_LAYERS, _MOST_UNITS, _MOST_BYTES = 8, 1 << 20, 1 << 31
_MOST_HEADER = 1 << 20
_SHORT_TABLE = 256
"""Rows of a category's table up to which a product is quicker than a lookup on a GPU."""


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
    def fit(cls, features: Sequence[Feature], x: Floats) -> Self:
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
            h = torch.cat([h, *(_looked_up(table, codes[:, i]) for i, table in enumerate(self.tables))], dim=1)
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


def _looked_up(table: nn.Embedding, codes: Any) -> Any:
    """Return a table's rows by their numbers, shape ``(rows,)``."""
    # On a GPU a lookup's gradient is added up row after row where it must come out the same every time, and a short
    # table has many rows of a batch to add up in each of its own: a product is up to forty times as quick.
    by_product = codes.device.type != "cpu" and table.num_embeddings <= _SHORT_TABLE
    return multiplied(table, codes) if by_product else table(codes)


def multiplied(table: nn.Embedding, codes: Any) -> Any:
    """Return what ``table(codes)`` gives of finite weights, by a product that has a matrix product as its gradient.

    Equal to the bit; under autocast in the precision of products.
    """
    chosen = codes[:, None] == torch.arange(table.num_embeddings, device=codes.device)
    return chosen.to(table.weight.dtype) @ table.weight


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


def _mean_and_spread(x: Floats) -> Floats:
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


def network_files(network: Any, task: Task, features: Sequence[Feature]) -> dict[str, bytes]:
    """Return the model folder of a trained network: equal weights give equal bytes."""
    tensors = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    hidden = [layer.out_features for layer in network.body.layers[:-1]]
    card = {
        "format": FORMAT, "task": task, "features": [f.to_json() for f in features],
        "network": {"hidden": hidden, "gaps": network.preparation.gaps},
    }  # fmt: skip
    return {MODEL_FILE: safetensors.save(tensors), MODEL_CARD: to_json(card)}


def read(folder: str, data: bytes, card: Mapping[str, Any], inputs: Sequence[Feature]) -> tuple[Any, Scorer]:
    """Build the :class:`TabularNetwork` that a card describes and put its numbers in.

    Raises:
        DataContractError: The card describes no network, or the file is damaged or another network's.
    """
    network = _built(f"{folder}/{MODEL_CARD}", card, inputs)
    network.load_state_dict(_tensors(f"{folder}/{MODEL_FILE}", data, network.state_dict()), assign=True)
    network.eval().requires_grad_(False)
    return network, partial(module_scores, network)


def _built(where: str, card: Mapping[str, Any], inputs: Sequence[Feature]) -> Any:
    """Return the card's network without memory for its numbers."""
    about = card.get("network")
    hidden, gaps = (about.get(name) for name in ("hidden", "gaps")) if isinstance(about, dict) else (None, None)
    numbers = sum(f.categories is None for f in inputs)
    if (
        not (isinstance(hidden, list) and 1 <= len(hidden) <= _MOST_LAYERS and isinstance(gaps, list) and inputs)
        or not all(type(units) is int and 1 <= units <= _MOST_UNITS for units in hidden)
        or not all(type(place) is int and 0 <= place < numbers for place in gaps)
        or sorted(set(gaps)) != gaps
    ):
        raise DataContractError(
            f"{where}: describes no network that {FORMAT} knows. Its field 'network' must have 'hidden', the units of "
            f"1 to {_MOST_LAYERS} layers (up to {_MOST_UNITS:,} each), and 'gaps', the places of the numeric inputs "
            "that have a flag for missing values. Fetch it again or train the version again."
        )
    with torch.device("meta"):
        preparation = Preparation(inputs, gaps)
        body = Perceptron(preparation.width, preparation.tables, hidden)
        network = TabularNetwork(preparation, body, binary=card["task"] == "binary")
    if sum(tensor.nbytes for tensor in network.state_dict().values()) > _MOST_BYTES:
        raise DataContractError(f"{where}: describes a network of more than {_MOST_BYTES >> 30} GiB; none is loaded.")
    return network


def _tensors(where: str, raw: bytes, wanted: Mapping[str, Any]) -> dict[str, Any]:
    if len(raw) > sum(tensor.nbytes for tensor in wanted.values()) + _MOST_HEADER:
        raise _refused(where, f"it has {len(raw):,} bytes, far more than the card's network takes")
    if int.from_bytes(raw[:8], "little") > min(_MOST_HEADER, len(raw)):
        raise _refused(where, "it does not begin with a safetensors header")
    try:
        tensors: dict[str, Any] = safetensors.load(raw)
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError, OverflowError) as err:
        raise _refused(where, f"safetensors cannot read it: {type(err).__name__}: {str(err)[:200]}") from err
    if sorted(tensors) != sorted(wanted):
        odd = sorted(set(tensors) ^ set(wanted))
        raise _refused(where, f"it does not hold the arrays of the card's network: {', '.join(odd)[:200]}")
    for name, tensor in tensors.items():
        expected = wanted[name]
        if tensor.shape != expected.shape or tensor.dtype != expected.dtype:
            raise _refused(
                where,
                f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}, but the card's network has "
                f"{expected.dtype} of shape {tuple(expected.shape)}",
            )
        if not torch.isfinite(tensor).all():
            raise _refused(where, f"{name} holds numbers that are not finite")
    return tensors


def _refused(where: str, why: str) -> DataContractError:
    return DataContractError(f"{where}: is refused: {why}. Fetch it again, or train the version again.")


def module_scores(network: Callable[[Any], Any], x: Floats) -> Floats:
    """Score a matrix, shape ``(rows, features)``, by a network that takes float64 rows, with ``WINDSOCK_THREADS``."""

    def scores(part: Floats) -> Any:
        return network(torch.from_numpy(np.ascontiguousarray(part, dtype=np.float64))).to(torch.float64).numpy()

    with torch.no_grad(), threads_limited():
        return scored(scores, x)


@contextmanager
def threads_limited() -> Iterator[None]:
    """Let PyTorch use ``WINDSOCK_THREADS`` threads for a while, then as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads())
    try:
        yield
    finally:
        torch.set_num_threads(before)
