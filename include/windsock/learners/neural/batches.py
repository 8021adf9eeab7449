"""Rows as the training loop reads them: one float32 table, in a new order every epoch.

``resident`` keeps the table on the device and picks each batch there. ``streamed`` leaves
it in host memory: a thread picks the next batches into pinned buffers while the device
works, and a second CUDA stream sends them, so that copying hides behind computing. Both
give the same batches in the same order, and any epoch can be entered at any step.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from windsock.learners.neural.device import free_bytes
from windsock.learners.neural.network import TabularNetwork
from windsock.learners.neural.randomness import order

log = logging.getLogger(__name__)

_PREPARED_AT_ONCE = 1 << 16
_BUFFERS = 4
_ROOM = 1.5
"""Free memory that a resident table needs, as a multiple of its own: activations want some too."""


@dataclass(frozen=True)
class Batch:
    """This process's share of one batch."""

    rows: Any
    """Prepared rows and, as the last column, the target; float32, shape ``(own, width + categories + 1)``."""
    own: slice
    """Which rows of the whole batch these are."""
    size: int
    """Rows of the whole batch."""


def make_table(network: TabularNetwork, x: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> Any:
    """Prepare rows once, in host memory.

    Args:
        network: On the CPU.
        x: Raw rows, shape ``(rows, features)``.
        target: What the last layer shall say, shape ``(rows,)``.

    Returns:
        float32, shape ``(rows, width + categories + 1)``.
    """
    columns = network.width + len(network.categories)
    table = torch.empty((len(x), columns + 1), dtype=torch.float32)
    for start in range(0, len(x), _PREPARED_AT_ONCE):
        part = slice(start, start + _PREPARED_AT_ONCE)
        table[part, :columns] = network.prepare(torch.from_numpy(np.ascontiguousarray(x[part])))
        table[part, columns] = torch.from_numpy(target[part])
    return table


def keeps_resident(wanted: Literal["auto", "resident", "streamed"], table: Any, device: Any) -> bool:
    """Decide whether a table lives on the device."""
    if wanted != "auto":
        return wanted == "resident"
    if device.type == "cpu":
        return True  # it already lies in the device's memory
    size, free = table.numel() * table.element_size(), free_bytes(device)
    fits: bool = size * _ROOM < free
    if not fits:
        log.info("%.1f GB of rows do not fit into %.1f GB free on %s: streamed", size / 1e9, free / 1e9, device)
    return fits


class Batches:
    """The training rows, batch by batch."""

    def __init__(
        self, table: Any, device: Any, *, resident: bool, batch_size: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        self._table = table.to(device) if resident else table
        self._device, self._resident = device, resident
        self._seed, self._rank, self._world = seed, rank, world
        self.rows = len(table)
        self.steps = -(-self.rows // batch_size)
        # Batches of nearly equal size: a last one of a few rows would be noise.
        self._bounds = np.linspace(0, self.rows, self.steps + 1).round().astype(np.int64)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch (from 0), beginning at any of its steps."""
        places = order(self._seed, epoch, self.rows)
        return self._from_device(places, first) if self._resident else self._from_host(places, first)

    def _shares(self, first: int) -> Iterator[tuple[slice, slice, int]]:
        """Yield this process's share of each batch: where in the order, where in the batch, rows of the batch."""
        for step in range(first, self.steps):
            start, size = int(self._bounds[step]), int(self._bounds[step + 1] - self._bounds[step])
            low, high = size * self._rank // self._world, size * (self._rank + 1) // self._world
            yield slice(start + low, start + high), slice(low, high), size

    def _from_device(self, places: Any, first: int) -> Iterator[Batch]:
        places = places.to(self._device)
        for share, own, size in self._shares(first):
            yield Batch(self._table.index_select(0, places[share]), own, size)

    def _from_host(self, places: Any, first: int) -> Iterator[Batch]:
        with contextlib.closing(_Picker(self._table, places, list(self._shares(first)), self._device)) as picker:
            yield from picker.batches()


class _Picker:
    """Picks batches out of host memory in a thread of its own, ahead of the loop."""

    def __init__(self, table: Any, places: Any, shares: list[tuple[slice, slice, int]], device: Any) -> None:
        self._table, self._places, self._shares, self._device = table, places, shares, device
        most = max((share.stop - share.start for share, _, _ in shares), default=0)
        self._free: queue.Queue[Any] = queue.Queue()
        self._ready: queue.Queue[Any] = queue.Queue()
        for _ in range(min(_BUFFERS, len(shares))):
            self._free.put(torch.empty((most, table.shape[1]), pin_memory=device.type == "cuda"))
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._pick, name="windsock-batches", daemon=True)
        self._thread.start()

    def _pick(self) -> None:
        try:
            for share, own, size in self._shares:
                buffer = self._free.get()
                if self._closed.is_set():
                    return
                picked = buffer[: share.stop - share.start]
                torch.index_select(self._table, 0, self._places[share], out=picked)
                self._ready.put((buffer, Batch(picked, own, size)))
        except Exception as err:
            self._ready.put(err)

    def _next(self) -> tuple[Any, Batch]:
        got = self._ready.get()
        if isinstance(got, Exception):
            raise got
        return got  # type: ignore[no-any-return]

    def batches(self) -> Iterator[Batch]:
        """Yield every batch on the device."""
        return self._sent() if self._device.type == "cuda" else self._as_they_are()

    def _as_they_are(self) -> Iterator[Batch]:
        for _ in self._shares:
            buffer, batch = self._next()
            yield batch
            self._free.put(buffer)

    def _sent(self) -> Iterator[Batch]:
        side, main = torch.cuda.Stream(self._device), torch.cuda.current_stream(self._device)
        ahead = self._send(side) if self._shares else None
        for place in range(len(self._shares)):
            buffer, batch, sent = ahead  # type: ignore[misc]
            # The next copy is on its way before this batch is worked on.
            ahead = self._send(side) if place + 1 < len(self._shares) else None
            main.wait_event(sent)
            batch.rows.record_stream(main)
            yield batch
            sent.synchronize()
            self._free.put(buffer)

    def _send(self, side: Any) -> tuple[Any, Batch, Any]:
        buffer, batch = self._next()
        with torch.cuda.stream(side):
            rows = batch.rows.to(self._device, non_blocking=True)
            sent = torch.cuda.Event()
            sent.record(side)
        return buffer, Batch(rows, batch.own, batch.size), sent

    def close(self) -> None:
        """Stop the thread, also in the middle of an epoch."""
        self._closed.set()
        self._free.put(None)
        self._thread.join()
