"""``torch``: rows a second through an epoch of the network's training, by batch size.

The loop as the trainer runs it, with rows resident and streamed, against a bare loop: rows
on the device, an order drawn anew, ``nn.Sequential``, ``torch.optim``; on a GPU compiled and
captured by PyTorch itself. The same network, the same rows, on the CPU and on a GPU if there
is one. Beside that, whether a training that was killed ends in the same bytes: in every way
to run a step that the device has.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args
from unittest import mock

import numpy as np

from bench.figures import Figure, Limit, say, time_runs
from bench.world import Size
from windsock.learners.neural.device import (
    DEVICE,
    Mode,
    choose_device,
    choose_mode,
    describe,
    deterministic,
    uses_bf16,
)
from windsock.runs.run_folder import CheckpointFolder
from windsock.served.matrix import Feature

if TYPE_CHECKING:
    from windsock.learners.neural.step import Plan

_RATE_SECONDS = 2.0
_NUMBERS, _CATEGORIES = 13, 2
_HIDDEN, _DROPOUT = (128, 64), 0.1
"""The reference model's features, and the spec's own network."""


def run(size: Size) -> Iterator[Figure]:
    """Measure an epoch on every device that is here."""
    import torch

    from windsock.served.formats.network import threads_limited

    rows = 200_000 if size.days > 10 else 4_000
    batch_sizes = (1024, 4096, 16384, 65536) if size.days > 10 else (256, 1024)
    for name in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        with mock.patch.dict(os.environ, {DEVICE: name}), threads_limited(), deterministic(True):
            bench = _Bench(rows if name == "cpu" else 20 * rows, choose_device(), size.data_runs)
            for batch_size in batch_sizes:
                yield from bench.figures(batch_size)
            yield from bench.resumes()


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

        from windsock.learners.neural.data import make_table

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
        self.table = make_table(self._network().preparation, self.x, self.y)
        say(f"torch: {rows:,} rows on {describe(device)}, {self.dtype}: what it can do at best ...")
        self.rates = self._rates()

    def figures(self, batch_size: int) -> Iterator[Figure]:
        """Yield one figure for each way to feed the loop."""
        bare = time_runs(self._bare(batch_size), self.runs)
        for what, epoch, streamed in (
            ("resident", self._ours(batch_size, resident=True), False),
            ("streamed", self._ours(batch_size, resident=False), True),
        ):
            say(f"torch: {self.device.type}, batches of {batch_size}, {what} ...")
            timing = time_runs(epoch, self.runs)
            yield self._figure(f"{what} rows", batch_size, timing, streamed, timing.median / bare.median)
        yield self._figure("a bare loop", batch_size, bare, False, 1.0)

    def _figure(self, what: str, batch_size: int, timing: Any, streamed: bool, ratio: float) -> Figure:
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
                "rows": rows, "rows_per_s": rows / timing.median, "times_bare_loop": ratio,
                "us_per_step": 1e6 * timing.median * batch_size / rows,
                "limit_flops_s": computing, "limit_bytes_s": moving,
                "gflops": rates.flops / 1e9, "copy_gb_s": rates.copied / 1e9, "device": describe(self.device),
                **timing.context(),
            },
        )  # fmt: skip

    def _network(self) -> Any:
        from windsock.served.formats.network import Perceptron, Preparation, TabularNetwork

        preparation = Preparation.fit(self.features, self.x[:20_000])  # enough for means and spreads
        return TabularNetwork(preparation, Perceptron(preparation.width, preparation.tables, _HIDDEN), binary=True)

    def _flops(self) -> float:
        """Of one row: forward, and backward to weights and to inputs."""
        return 6.0 * sum(layer.weight.numel() for layer in self._network().body.layers)

    def _plan(self, mode: Mode, epochs: int) -> Plan:
        from windsock.learners.neural.step import Plan

        return Plan(
            loss="log", positive_weight=1.0, mean_weight=1.0, learning_rate=1e-3, weight_decay=1e-4, dropout=_DROPOUT,
            seed=0, epochs=epochs, patience=1, bf16=self.bf16, mode=mode, deterministic=True, checkpoint_steps=1,
        )  # fmt: skip

    def _ours(self, batch_size: int, *, resident: bool) -> Callable[[], object]:
        from windsock.learners.neural.data import Batches
        from windsock.learners.neural.step import Step

        batches = Batches(self.table, self.device, resident=resident, batch_size=batch_size, seed=0)
        # So many steps that compiling is worth it where it can be done.
        step = Step(self._network(), self._plan(choose_mode("auto", self.device, 1 << 30), 1), self.device, 0.9)
        count = itertools.count()

        def epoch() -> None:
            for batch in batches.epoch(0):
                step.take(batch, next(count))
            float(step.averaged()["weights"].sum())  # waits for the device

        epoch()  # compiles and captures
        return epoch

    def resumes(self) -> Iterator[Figure]:
        """Yield for each way to run a step whether a training that goes on from a checkpoint ends in the same bytes."""
        from windsock.learners.neural.loop import Checkpoints

        for mode in ("eager",) if self.device.type == "cpu" else get_args(Mode):
            with tempfile.TemporaryDirectory() as folder:
                checkpoints = Checkpoints(CheckpointFolder(folder), "bench")
                began = time.perf_counter()
                whole = self._trained(mode, 2, None)
                seconds = time.perf_counter() - began
                self._trained(mode, 1, checkpoints)
                began = time.perf_counter()
                equal = whole == self._trained(mode, 2, checkpoints)
            say(f"torch: {self.device.type}, {mode} steps, resumed: {'the same bytes' if equal else 'OTHER BYTES'}")
            yield Figure(
                "torch", f"two epochs on {self.device.type}, {mode} steps, the second after a restart",
                time.perf_counter() - began, Limit("two epochs without a restart, in the same run", seconds),
                context={"same_bytes": equal, "device": describe(self.device)},
            )  # fmt: skip

    def _trained(self, mode: Mode, epochs: int, checkpoints: Any) -> dict[str, bytes]:
        import torch

        from windsock.learners.neural.data import Batches
        from windsock.learners.neural.loop import Training

        torch.manual_seed(0)
        batches = Batches(self.table, self.device, resident=True, batch_size=4096, seed=0)
        plan = self._plan(mode, epochs)
        training = Training(self._network(), plan, self.device, batches, checkpoints=checkpoints)
        training.run()
        return {name: array.tobytes() for name, array in training.averaged().items()}

    def _bare(self, batch_size: int) -> Callable[[], object]:
        import torch

        network = self._network()
        model = _Plain(network).module.to(self.device)
        on_gpu = self.device.type == "cuda"
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4, fused=True, capturable=on_gpu)
        loss_of = torch.nn.BCEWithLogitsLoss()
        table = self.table.to(self.device)

        def step(rows: Any) -> Any:
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
                output = model(rows[:, :-1])
            loss = loss_of(output.float(), rows[:, -1])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            return loss.detach()

        # "reduce-overhead" captures what it has compiled.
        taken = torch.compile(step, mode="reduce-overhead") if on_gpu else step

        def epoch() -> None:
            # A tutorial's loop does not ask for the same bits every time.
            with deterministic(False):
                order = torch.randperm(len(table), device=self.device)
                for places in order.split(batch_size):
                    loss = taken(table.index_select(0, places))
                float(loss)  # waits for the device

        epoch()
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

        width, body = network.preparation.width, network.body

        class Module(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.tables = torch.nn.ModuleList(torch.nn.Embedding(*t.weight.shape) for t in body.tables)
                parts: list[Any] = []
                for layer in body.layers[:-1]:
                    made = torch.nn.Linear(layer.in_features, layer.out_features)
                    parts += [made, torch.nn.ReLU(), torch.nn.Dropout(_DROPOUT)]
                last = body.layers[-1]
                self.layers = torch.nn.Sequential(*parts, torch.nn.Linear(last.in_features, last.out_features))

            def forward(self, x: Any) -> Any:
                found = [table(x[:, width + i].long()) for i, table in enumerate(self.tables)]
                return self.layers(torch.cat([x[:, :width], *found], dim=1)).squeeze(1)

        self.module = Module()
