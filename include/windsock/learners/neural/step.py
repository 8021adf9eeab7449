"""One optimiser step: PyTorch's autograd and fused AdamW over all weights as one vector.

The body's parameters are views of that vector, so gradient, optimiser, running average,
checkpoint and the sum over processes are one tensor each, however many layers there are.

On a GPU a step of a small network is far shorter than Python takes to ask for it, so it is captured as a CUDA graph,
optimiser included, one graph for each size of batch (there are two). Everything that changes between steps lies in
tensors that the graph reads again: rows, random bits, the optimiser's count of steps. What is random is drawn from a
generator that is seeded before every step, so it is a function of seed and step in every mode.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn import functional

from windsock.learners.neural.data import Batch, seed_of
from windsock.learners.neural.device import Mode, add_up
from windsock.served.formats.network import Perceptron, TabularNetwork

Loss = Literal["log", "square", "absolute"]

_LEVELS = 1 << 16
_WARM_UP = 3
"""Steps before a capture: libraries choose their kernels and take their memory in them."""


@dataclass(frozen=True)
class Plan:
    """How to train."""

    loss: Loss
    positive_weight: float
    mean_weight: float
    """Mean over the training rows of what their loss is weighted by."""
    learning_rate: float
    weight_decay: float
    dropout: float
    """Of the hidden layers of Windsock's own network; a user's module has its own."""
    seed: int
    epochs: int
    patience: int
    bf16: bool
    mode: Mode
    deterministic: bool
    checkpoint_steps: int


def loss_of(loss: Loss, positive_weight: float, output: Any, target: Any) -> Any:
    """Return the sum of the rows' losses, weighted; ``output`` and ``target`` have shape ``(rows,)``."""
    if loss == "log":
        weight = 1 + (positive_weight - 1) * target if positive_weight != 1 else None
        return functional.binary_cross_entropy_with_logits(output, target, weight, reduction="sum")
    if loss == "absolute":
        return functional.l1_loss(output, target, reduction="sum")
    return functional.mse_loss(output, target, reduction="sum")


class Step:
    """The state of a training on one device, and the step that moves it."""

    def __init__(self, network: TabularNetwork, plan: Plan, device: Any, memory: float) -> None:
        """Put the network on the device; ``memory`` is how much of the running average a step keeps once settled."""
        self._plan, self._device, self._memory = plan, device, memory
        self._network = network.to(device)
        self._body = network.body.train()
        self._parameters = [p for p in self._body.parameters() if p.requires_grad]
        self._weights = torch.cat([p.detach().reshape(-1) for p in self._parameters])
        parts = self._weights.split([p.numel() for p in self._parameters])
        for parameter, part in zip(self._parameters, parts, strict=True):
            parameter.data = part.view(parameter.shape)
        self._average = self._weights.clone()
        on_gpu = device.type == "cuda"
        self._optimiser = torch.optim.AdamW(
            [self._weights], plan.learning_rate, weight_decay=plan.weight_decay, fused=True, capturable=on_gpu
        )
        # As the optimiser would at its first step; a checkpoint and a capture need it before.
        count, mean, square = torch.zeros((), device=device), *(torch.zeros_like(self._average) for _ in range(2))
        self._optimiser.state[self._weights] = {"step": count, "exp_avg": mean, "exp_avg_sq": square}
        self._state = {
            "weights": self._weights, "average": self._average, "step": count, "mean": mean, "square": square,
        }  # fmt: skip
        self._weights.grad = torch.zeros_like(self._average)
        index = device.index or 0
        self._generator = torch.cuda.default_generators[index] if on_gpu else torch.default_generator
        hidden = [layer.out_features for layer in self._body.layers[:-1]] if isinstance(self._body, Perceptron) else []
        # 16 random bits decide about a unit: four units for the price of one number.
        self._dropped = round(plan.dropout * _LEVELS)
        self._masked = hidden if self._dropped else []
        self._graphs: dict[int, tuple[Any, Batch]] = {}
        self._random: dict[int, Any] = {}
        """Random bits by size of batch."""
        self._loss = self._loss_of_rows
        if plan.mode == "compiled":
            # Code compiled for an earlier training counts against the number of versions that PyTorch keeps.
            torch.compiler.reset()
            options = {"deterministic": plan.deterministic}
            self._loss = torch.compile(self._loss_of_rows, dynamic=False, options=options)

    def state(self) -> dict[str, Any]:
        """Return all tensors that steps change; writing into them sets the state."""
        return {**self._state, **self._buffers()}

    def averaged(self) -> dict[str, Any]:
        """Return what a model is made of: the averaged weights and the body's buffers."""
        return {"weights": self._average, **self._buffers()}

    def restore(self, state: dict[str, Any]) -> None:
        """Set the state to what :meth:`state` gave."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])

    def take(self, batch: Batch, number: int) -> None:
        """Take one step; ``number`` counts the steps from 0."""
        graph = None
        if self._plan.mode != "eager":
            if batch.size not in self._graphs:
                self._graphs[batch.size] = self._capture(batch)
            graph, inputs = self._graphs[batch.size]
            inputs.rows.copy_(batch.rows)
        self._generator.manual_seed(seed_of(self._plan.seed, "dropout", number))
        bits = self._draw(batch.size)
        if graph is not None:
            graph.replay()
        else:
            self._move(batch, bits)

    def judge(self, rows: Any) -> Any:
        """Return the network's outcome for prepared rows; see :meth:`TabularNetwork.outcome`."""
        with torch.no_grad():
            return self._network.outcome(self._output(rows))

    @contextmanager
    def judging(self) -> Iterator[None]:
        """Let the network have its averaged weights for a while, and drop nothing."""
        own = self._weights.clone()
        self._weights.copy_(self._average)
        self._body.eval()
        yield
        self._body.train()
        self._weights.copy_(own)

    def _capture(self, batch: Batch) -> tuple[Any, Batch]:
        inputs, bits = Batch(batch.rows.clone(), batch.own, batch.size), self._draw(batch.size)
        before = {name: tensor.clone() for name, tensor in self.state().items()}
        side, current = torch.cuda.Stream(self._device), torch.cuda.current_stream(self._device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                self._move(inputs, bits)
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._move(inputs, bits)
        self.restore(before)
        return graph, inputs

    def _move(self, batch: Batch, bits: Any) -> None:
        loss = self._loss(batch.rows, bits[batch.own] if bits is not None else None)
        share = 1 / (batch.size * self._plan.mean_weight)
        slopes = torch.autograd.grad(loss * share, self._parameters, materialize_grads=True)
        torch.cat([slope.reshape(-1) for slope in slopes], out=self._weights.grad)
        add_up(self._weights.grad)
        self._optimiser.step()
        count = self._state["step"]
        memory = torch.clamp((1 + count) / (10 + count), max=self._memory)
        self._average.lerp_(self._weights, 1 - memory)

    def _loss_of_rows(self, rows: Any, bits: Any) -> Any:
        output = self._output(rows, () if bits is None else self._kept(bits)).to(torch.float32)
        return loss_of(self._plan.loss, self._plan.positive_weight, output, rows[:, -1])

    def _kept(self, bits: Any) -> Sequence[Any]:
        """Return which units of each hidden layer are kept, shape ``(rows, units)`` each."""
        least = self._dropped - _LEVELS // 2
        # On a CPU, comparing into numbers and multiplying by them takes a tenth of the time that truth values take.
        on_cpu = bits.device.type == "cpu"
        kept = torch.ge(bits, least, out=torch.empty(bits.shape)) if on_cpu else bits >= least
        return kept.split(self._masked, dim=1)  # type: ignore[no-any-return]

    def _output(self, rows: Any, kept: Sequence[Any] = ()) -> Any:
        inputs = self._network.preparation.split(rows)
        with self._autocast():
            output = self._body(*inputs, kept, self._dropped / _LEVELS) if kept else self._body(*inputs)
        return output.flatten()

    def _autocast(self) -> AbstractContextManager[Any]:
        if not self._plan.bf16:
            return nullcontext()
        # The cache would keep casts from one capture to the next.
        return torch.autocast(self._device.type, torch.bfloat16, cache_enabled=False)  # type: ignore[no-any-return]

    def _draw(self, size: int) -> Any:
        """Draw the random bits of a whole batch, so that processes that share it see one drawing; None: none is needed.

        They are int16, of shape ``(size, units)``, and lie where those of the last batch of this size lay.
        """
        if not self._masked:
            return None
        wide = sum(self._masked)
        if size not in self._random:
            self._random[size] = torch.empty((size * wide + 3) // 4, dtype=torch.int64, device=self._device)
        # Generators fill whole 64-bit numbers quickest.
        self._random[size].random_(-(1 << 63), None, generator=self._generator)
        return self._random[size].view(torch.int16)[: size * wide].view(size, wide)

    def _buffers(self) -> dict[str, Any]:
        return {f"buffers.{name}": buffer for name, buffer in self._body.named_buffers()}
