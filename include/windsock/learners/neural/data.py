"""Rows as the training loop reads them: one float32 table, in a new order every epoch.

``resident`` keeps the table on the device and picks each batch there. ``streamed`` leaves it in host memory: a thread
picks the next batches and, on a GPU, sends them on a stream of its own, so that copying hides behind computing. The
order of both is a function of seed, epoch and kind of device, so any epoch can be entered at any step.
"""

import hashlib
import logging
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from windsock.learners.ranks import rank, world
from windsock.served.formats.network import Preparation

log = logging.getLogger(__name__)

_Shares = list[tuple[slice, int]]
"""Of some batches: which of its rows are this process's, and how many it has."""

_PREPARED_AT_ONCE = 1 << 16
_PICKED_AT_ONCE = {"cpu": 1, "cuda": 1 << 16}
"""Rows of whole batches (at least one) by kind of device: a GPU is through with a small batch before Python has picked
another, a CPU has one still in its cache."""
_AHEAD = 3
"""Streamed picks that are made before they are asked for."""
_ROOM = 1.5
"""Free memory that a resident table needs, as a multiple of its own: activations want some too."""


def seed_of(seed: int, use: str, number: int = 0) -> int:
    """Return a seed of 63 bits for one use, for example ``("order", epoch)``.

    No generator's history is carried from step to step, so a training that goes on from a
    checkpoint draws what the uninterrupted one would have drawn.
    """
    digest = hashlib.blake2b(f"{seed}/{use}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@dataclass(frozen=True)
class Batch:
    """This process's share of one batch."""

    rows: Any
    """Prepared rows and, as the last column, the target; float32, shape ``(own, width + categories + 1)``."""
    own: slice
    """Which rows of the whole batch these are."""
    size: int
    """Rows of the whole batch."""


def make_table(preparation: Preparation, x: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> Any:
    """Prepare raw rows, shape ``(rows, features)``, once, in host memory: float32, ``(rows, width + categories + 1)``.

    The last column is ``target``: what the body shall give, shape ``(rows,)``.
    """
    columns = preparation.width + len(preparation.categories)
    table = torch.empty((len(x), columns + 1), dtype=torch.float32)
    for start in range(0, len(x), _PREPARED_AT_ONCE):
        part = slice(start, start + _PREPARED_AT_ONCE)
        table[part, :columns] = preparation(torch.from_numpy(np.ascontiguousarray(x[part])))
    table[:, columns] = torch.from_numpy(target)
    return table


def keeps_resident(wanted: Literal["auto", "resident", "streamed"], table: Any, device: Any) -> bool:
    """Decide whether a table lives on the device; on a CPU it already does."""
    if wanted != "auto" or device.type == "cpu":
        return wanted != "streamed"
    free, _ = torch.cuda.mem_get_info(device)
    if table.nbytes * _ROOM < free:
        return True
    log.info("%.1f GB of rows do not fit into %.1f GB free on %s: streamed", table.nbytes / 1e9, free / 1e9, device)
    return False


class Batches:
    """The training rows, batch by batch."""

    def __init__(self, table: Any, device: Any, *, resident: bool, batch_size: int, seed: int) -> None:
        self._table = table.to(device) if resident else table
        self._device, self._resident, self._seed = device, resident, seed
        self.rows, self.width = table.shape
        self.steps = -(-self.rows // batch_size)
        self._at_once = max(1, _PICKED_AT_ONCE[device.type] // batch_size)
        # Batches of nearly equal size: a last one of a few rows would be noise.
        self._bounds = np.linspace(0, self.rows, self.steps + 1).round().astype(np.int64).tolist()

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch (from 0), beginning at any of its steps."""
        # Drawn on the device: a GPU is through with an epoch before a CPU has drawn its order.
        generator = torch.Generator(self._device).manual_seed(seed_of(self._seed, "order", epoch))
        order = torch.randperm(self.rows, generator=generator, device=self._device)
        if not self._resident:
            order = order.cpu()
        for rows, shares in (self._resident_rows if self._resident else self._streamed_rows)(order, first):
            parts = rows.split([own.stop - own.start for own, _ in shares])
            for part, (own, size) in zip(parts, shares, strict=True):
                yield Batch(part, own, size)

    def _picks(self, order: Any, first: int) -> Iterator[tuple[Any, _Shares]]:
        """Yield this process's shares of some batches at a time, and where in the table their rows are."""
        for begin in range(first, self.steps, self._at_once):
            shares, places = [], []
            for step in range(begin, min(begin + self._at_once, self.steps)):
                start, size = self._bounds[step], self._bounds[step + 1] - self._bounds[step]
                own = slice(size * rank() // world(), size * (rank() + 1) // world())
                shares.append((own, size))
                places.append(order[start + own.start : start + own.stop])
            yield torch.cat(places), shares

    def _resident_rows(self, order: Any, first: int) -> Iterator[tuple[Any, _Shares]]:
        for places, shares in self._picks(order, first):
            yield self._table.index_select(0, places), shares

    def _streamed_rows(self, order: Any, first: int) -> Iterator[tuple[Any, _Shares]]:
        stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        ahead: deque[tuple[Future[tuple[Any, Any]], _Shares]] = deque()
        with ThreadPoolExecutor(1, "windsock-batches") as picker:
            for places, shares in self._picks(order, first):
                ahead.append((picker.submit(self._send, stream, places), shares))
                if len(ahead) > _AHEAD:
                    yield self._arrived(*ahead.popleft())
            while ahead:
                yield self._arrived(*ahead.popleft())

    def _send(self, stream: Any, places: Any) -> tuple[Any, Any]:
        if stream is None:
            return self._table.index_select(0, places), None
        picked = torch.empty((len(places), self.width), pin_memory=True)
        torch.index_select(self._table, 0, places, out=picked)
        with torch.cuda.stream(stream):
            # PyTorch keeps the pinned memory until the copy is done.
            return picked.to(self._device, non_blocking=True), stream.record_event()

    def _arrived(self, sent: Future[tuple[Any, Any]], shares: _Shares) -> tuple[Any, _Shares]:
        rows, event = sent.result()
        if event is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_event(event)
            rows.record_stream(current)
        return rows, shares
