"""The gradient of one batch, written out by hand straight into one vector.

A network for a table is so small that PyTorch's bookkeeping for automatic gradients costs
more than the arithmetic. The rule is short: through a linear layer the error goes back by
its matrix, through a rectifier only where it let something through. A test holds it
against automatic differentiation of :func:`loss_of`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch.nn import functional

from windsock.learners.neural.network import TabularNetwork

Loss = Literal["log", "square", "absolute"]


class Weights:
    """All weights of a network as one vector, and its gradient likewise; the layers hold views."""

    def __init__(self, network: TabularNetwork) -> None:
        self.parameters = [p.requires_grad_(False) for p in network.parameters()]
        self.vector = torch.cat([p.reshape(-1) for p in self.parameters])
        self.gradient = torch.zeros_like(self.vector)
        for parameter, view in zip(self.parameters, self.views(self.vector), strict=True):
            parameter.data = view

    def views(self, vector: Any) -> list[Any]:
        """Return the parts of a vector that belong to each parameter, in its shape."""
        parts = vector.split([p.numel() for p in self.parameters])
        return [part.view(p.shape) for part, p in zip(parts, self.parameters, strict=True)]


def loss_of(loss: Loss, positive_weight: float, output: Any, target: Any) -> Any:
    """Return the sum of the rows' losses, weighted; ``output`` and ``target`` have shape ``(rows,)``."""
    if loss == "log":
        weight = 1 + (positive_weight - 1) * target if positive_weight != 1 else None
        return functional.binary_cross_entropy_with_logits(output, target, weight, reduction="sum")
    if loss == "absolute":
        return functional.l1_loss(output, target, reduction="sum")
    return functional.mse_loss(output, target, reduction="sum")


class Gradient:
    """Computes gradients of one network, in float32 or in bfloat16."""

    def __init__(
        self,
        network: TabularNetwork,
        weights: Weights,
        *,
        loss: Loss,
        positive_weight: float,
        dropout: float,
        dtype: Any,
    ) -> None:
        """Set up views that stay valid as the weights move.

        Args:
            network: Whose weights they are.
            weights: Its vectors.
            loss: See :func:`loss_of`.
            positive_weight: Of positive rows in the ``log`` loss.
            dropout: Share that the masks drop.
            dtype: What the layers compute in; weights and gradient are float32 all the same.
        """
        self._weights, self._loss, self._positive_weight = weights, loss, positive_weight
        self._kept, self._width, self.dtype = 1 / (1 - dropout), network.width, dtype
        coarse = dtype != torch.float32
        self._vector = weights.vector.to(dtype) if coarse else weights.vector
        self._gradient = weights.gradient.to(dtype) if coarse else weights.gradient
        of = {id(p): i for i, p in enumerate(weights.parameters)}
        values, slopes = weights.views(self._vector), weights.views(self._gradient)
        self._tables = [(values[of[id(t.weight)]], slopes[of[id(t.weight)]]) for t in network.tables]
        self._layers = [
            (values[w], values[w].t(), values[b], slopes[w], slopes[b])
            for w, b in ((of[id(layer.weight)], of[id(layer.bias)]) for layer in network.layers)
        ]

    def compute(self, rows: Any, masks: Sequence[Any], share: float) -> None:
        """Put the gradient of a batch into the weights' gradient vector.

        Args:
            rows: Prepared rows and the target, float32, shape ``(rows, width + categories + 1)``.
            masks: One per hidden layer, or none.
            share: What each row's loss is multiplied by.
        """
        if self._vector is not self._weights.vector:
            self._vector.copy_(self._weights.vector)
        codes = [rows[:, self._width + i].to(torch.int64) for i in range(len(self._tables))]
        inputs, output = self._forward(rows, codes, masks)
        self._backward(inputs, self._error(output, rows[:, -1], share), codes, bool(masks))
        if self._gradient is not self._weights.gradient:
            self._weights.gradient.copy_(self._gradient)

    def _forward(self, rows: Any, codes: list[Any], masks: Sequence[Any]) -> tuple[list[Any], Any]:
        """Return each layer's inputs, and the last one's output, shape ``(rows,)``."""
        h = rows[:, : self._width]
        if self._tables:
            found = [table.index_select(0, code) for (table, _), code in zip(self._tables, codes, strict=True)]
            h = torch.cat([h if self.dtype == torch.float32 else h.to(self.dtype), *found], dim=1)
        elif self.dtype != torch.float32:
            h = h.to(self.dtype)
        inputs = [h]
        for i, (_, turned, bias, _, _) in enumerate(self._layers[:-1]):
            h = torch.addmm(bias, h, turned).relu_()
            if masks:
                h.mul_(masks[i])
            inputs.append(h)
        _, turned, bias, _, _ = self._layers[-1]
        return inputs, torch.addmm(bias, h, turned)[:, 0]

    def _error(self, output: Any, target: Any, share: float) -> Any:
        """Return the loss's slope at the output, shape ``(rows, 1)``."""
        output = output.to(torch.float32)
        if self._loss == "log":
            error = torch.sigmoid(output).sub_(target).mul_(share)
            if self._positive_weight != 1:
                error.addcmul_(error, target, value=self._positive_weight - 1)
        elif self._loss == "absolute":
            error = torch.sign(output - target).mul_(share)
        else:
            error = (output - target).mul_(2 * share)
        return error.to(self.dtype)[:, None]

    def _backward(self, inputs: list[Any], error: Any, codes: list[Any], dropped: bool) -> None:
        for i in range(len(self._layers) - 1, -1, -1):
            weight, _, _, weight_slope, bias_slope = self._layers[i]
            torch.mm(error.t(), inputs[i], out=weight_slope)
            torch.sum(error, dim=0, out=bias_slope)
            if i == 0 and not self._tables:
                return
            error = error.mm(weight)
            if i:
                # What a mask dropped or the rectifier stopped is zero there, and nothing else is.
                error = torch.ops.aten.threshold_backward(error, inputs[i], 0)
                if dropped:
                    error.mul_(self._kept)
        start = self._width
        for (table, slope), code in zip(self._tables, codes, strict=True):
            slope.zero_().index_add_(0, code, error[:, start : start + table.shape[1]])
            start += table.shape[1]
