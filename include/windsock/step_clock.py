"""How long a step has taken so far: its records say it, whichever module publishes them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_began: ContextVar[float | None] = ContextVar("began", default=None)


@contextmanager
def timing() -> Iterator[None]:
    """Let the block be what :func:`seconds_so_far` counts from."""
    before = _began.set(time.monotonic())
    try:
        yield
    finally:
        _began.reset(before)


def seconds_so_far() -> float:
    """Return for how many seconds the step of this context has run; 0 outside of one."""
    began = _began.get()
    return 0.0 if began is None else round(time.monotonic() - began, 3)
