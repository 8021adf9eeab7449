"""``torch``: rows a second through an epoch of the network's training, by batch size.

The loop as the trainer runs it, with rows resident and streamed, against what a PyTorch
tutorial would write: ``DataLoader(TensorDataset)``, ``nn.Sequential``, ``torch.optim``.
The same network, the same rows, on the CPU and on a GPU if there is one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np

from bench.figures import Figure, Limit, say, time_runs
from bench.world import Size
from windsock.learners.neural.device import DEVICE, choose_device, describe, threads_limited, uses_bf16
from windsock.served.matrix import Feature

_RATE_SECONDS = 2.0
_NUMBERS, _CATEGORIES = 13, 2
_HIDDEN, _DROPOUT = (128, 64), 0.1
"""The reference model's features, and the spec's own network."""


def run(size: Size) -> Iterator[Figure]:
    """Measure an epoch on every device that is here."""
    import torch

    rows = 100_000 if size.days > 10 else 4_000
    batch_sizes = (256, 1024, 4096, 16384) if size.days > 10 else (256, 1024)
    for name in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        with mock.patch.dict(os.environ, {DEVICE: name}), threads_limited():
            bench = _Bench(rows if name == "cpu" else 40 * rows, choose_device(), size.data_runs)
            for batch_size in batch_sizes if name == "cpu" else (*batch_sizes, 65536):
                yield from bench.figures(batch_size)


@dataclass(frozen=True)
class _Rates:
    """What the device can do at best."""

    flops: float
    """Of a large matrix product, a second."""
    copied: float
    """Bytes read and bytes written, a second."""
    sent: float
    """Bytes from host to device, a second."""


class _Bench:
    def __init__(self, rows: int, device: Any, runs: int) -> None:
        import torch
        from windsock.learners.neural.batches import make_table

        rng = np.random.default_rng(0)
        self.features = [
            *(Feature(f"number_{i}") for i in range(_NUMBERS)),
            *(Feature(f"flag_{i}", (0, 1)) for i in range(_CATEGORIES)),
        ]
        self.x = np.column_stack(
            [rng.exponential(50, (rows, _NUMBERS)), rng.integers(0, 2, (rows, _CATEGORIES))]
        ).astype(np.float64)
        self.y = (rng.random(rows) < 0.01).astype(np.float64)
        self.device, self.runs = device, runs
        self.bf16 = uses_bf16("auto", device)
        self.dtype = torch.bfloat16 if self.bf16 else torch.float32
        self.table = make_table(self._network(), self.x, self.y)
        say(f"torch: {rows:,} rows on {describe(device)}, {self.dtype}: what it can do at best ...")
        self.rates = self._rates()

    def figures(self, batch_size: int) -> Iterator[Figure]:
        """Yield one figure for each way to feed the loop."""
        plain = time_runs(self._plain(batch_size), self.runs)
        for what, epoch, streamed in (
            ("resident", self._ours(batch_size, resident=True), False),
            ("streamed", self._ours(batch_size, resident=False), True),
        ):
            say(f"torch: {self.device.type}, batches of {batch_size}, {what} ...")
            timing = time_runs(epoch, self.runs)
            yield self._figure(f"{what} rows", batch_size, timing, streamed, plain.median / timing.median)
        yield self._figure("a plain DataLoader loop", batch_size, plain, self.device.type == "cuda", 1.0)

    def _figure(self, what: str, batch_size: int, timing: Any, streamed: bool, faster: float) -> Figure:
        rows, rates = len(self.y), self.rates
        computing = rows * self._flops() / rates.flops
        size = self.table.numel() * self.table.element_size()
        moving = size / rates.sent if streamed and self.device.type == "cuda" else 2 * size / rates.copied
        return Figure(
            "torch",
            f"an epoch on {self.device.type}, batches of {batch_size}, {what}",
            timing.median,
            Limit("the longer of: its FLOPs at the matrix-product rate, its bytes at the copying rate",
                  max(computing, moving)),
            context={
                "rows": rows, "rows_per_s": rows / timing.median, "times_dataloader": faster,
                "us_per_step": 1e6 * timing.median * batch_size / rows,
                "limit_flops_s": computing, "limit_bytes_s": moving,
                "gflops": rates.flops / 1e9, "copy_gb_s": rates.copied / 1e9, "device": describe(self.device),
                **timing.context(),
            },
        )  # fmt: skip

    def _network(self) -> Any:
        from windsock.learners.neural.network import TabularNetwork

        # A sample is enough for means and spreads.
        part = slice(0, 20_000)
        return TabularNetwork(
            self.features, self.x[part], self.y[part], hidden=_HIDDEN, binary=True, positive_weight=1.0, seed=0
        )

    def _flops(self) -> float:
        """Of one row: forward, and backward to weights and to inputs."""
        return 6.0 * sum(layer.weight.numel() for layer in self._network().layers)

    def _ours(self, batch_size: int, *, resident: bool) -> Callable[[], object]:
        from windsock.learners.neural.batches import Batches

        from windsock.learners.neural.loop import Plan, Training

        plan = Plan(
            loss="log", positive_weight=1.0, mean_weight=1.0, learning_rate=1e-3, weight_decay=1e-4, dropout=_DROPOUT,
            hidden=_HIDDEN, seed=0, epochs=1, patience=1, bf16=self.bf16, checkpoint_steps=1,
        )  # fmt: skip
        batches = Batches(self.table, self.device, resident=resident, batch_size=batch_size, seed=0)
        trainings = [Training(self._network(), plan, self.device, batches, None) for _ in range(self.runs + 1)]

        def epoch() -> None:
            training = trainings.pop()
            training.run(None, None)
            training.averages()  # waits for the device

        epoch()
        return epoch

    def _plain(self, batch_size: int) -> Callable[[], object]:
        import torch
        from torch.utils.data import DataLoader, TensorDataset

        network = self._network()
        model = _Plain(network).module.to(self.device)
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
        loss_of = torch.nn.BCEWithLogitsLoss()
        loader = DataLoader(
            TensorDataset(self.table[:, :-1].contiguous(), self.table[:, -1].contiguous()),
            batch_size=batch_size, shuffle=True, pin_memory=self.device.type == "cuda",
        )  # fmt: skip

        def epoch() -> None:
            for x, y in loader:
                with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
                    output = model(x.to(self.device, non_blocking=True))
                loss = loss_of(output.float(), y.to(self.device, non_blocking=True))
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            float(loss.detach())  # waits for the device

        return epoch

    def _rates(self) -> _Rates:
        import torch

        on_gpu = self.device.type == "cuda"
        side = 8192 if on_gpu else 512
        a = torch.randn(side, side, device=self.device, dtype=self.dtype)
        source = torch.empty(256 << 20 if on_gpu else 32 << 20, dtype=torch.uint8, device=self.device)
        host = torch.empty(64 << 20, dtype=torch.uint8, pin_memory=on_gpu)
        target, arrived = torch.empty_like(source), torch.empty_like(host, device=self.device)
        return _Rates(
            2 * side**3 / self._best(lambda: torch.mm(a, a)),
            2 * source.numel() / self._best(lambda: target.copy_(source)),
            host.numel() / self._best(lambda: arrived.copy_(host, non_blocking=True)),
        )

    def _best(self, action: Callable[[], object]) -> float:
        """Return the seconds of the fastest of many short runs: a limit is what happens undisturbed."""
        import torch

        seconds, end = [], time.perf_counter() + _RATE_SECONDS
        while len(seconds) < 10 or time.perf_counter() < end:
            began = time.perf_counter()
            action()
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
        return min(seconds)


class _Plain:
    """The same layers as a tutorial has them."""

    def __init__(self, network: Any) -> None:
        import torch

        width = network.width

        class Module(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.tables = torch.nn.ModuleList(torch.nn.Embedding(*t.weight.shape) for t in network.tables)
                parts: list[Any] = []
                for layer in network.layers[:-1]:
                    made = torch.nn.Linear(layer.in_features, layer.out_features)
                    parts += [made, torch.nn.ReLU(), torch.nn.Dropout(_DROPOUT)]
                last = network.layers[-1]
                self.layers = torch.nn.Sequential(*parts, torch.nn.Linear(last.in_features, last.out_features))

            def forward(self, x: Any) -> Any:
                found = [table(x[:, width + i].long()) for i, table in enumerate(self.tables)]
                return self.layers(torch.cat([x[:, :width], *found], dim=1)).squeeze(1)

        self.module = Module()
