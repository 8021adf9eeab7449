"""What a person sees while the demo runs: bars in a terminal, plain lines in a log."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

_PLAIN_EVERY_S = 10.0


class Display:
    """Phases with a count each, and sentences about what happened."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, soft_wrap=True)
        self.seconds: dict[str, float] = {}
        self._started = time.monotonic()
        self._said_at = 0.0
        self._running: list[tuple[str, int | None, TaskID]] = []
        self._bars = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=18),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._started

    @contextmanager
    def phase(self, key: str, title: str, total: int | None = None) -> Iterator[None]:
        """Time one phase; its seconds stand in ``seconds[key]`` afterwards."""
        began = time.monotonic()
        bar = self._bars.add_task(title, total=total, count="")
        self._running.append((title, total, bar))
        if not self.console.is_terminal:
            self._line(f"{title} ...")
        try:
            yield
        finally:
            self._running.pop()
            self.seconds[key] = round(self.seconds.get(key, 0.0) + time.monotonic() - began, 1)
        self._bars.update(bar, total=total or 1, completed=total or 1)
        if not self.console.is_terminal:
            self._line(f"{title}: done in {time.monotonic() - began:.0f} s")

    def count(self, done: int) -> None:
        """Say how far the innermost running phase is."""
        title, total, bar = self._running[-1]
        if total is None:
            return
        self._bars.update(bar, completed=done, count=f"{done}/{total}")
        if not self.console.is_terminal and time.monotonic() - self._said_at > _PLAIN_EVERY_S:
            self._line(f"{title}: {done} of {total}")

    def say(self, sentence: str, style: str = "") -> None:
        """Tell what happened."""
        self._line(sentence, style)

    def _line(self, text: str, style: str = "") -> None:
        self._said_at = time.monotonic()
        stamp = f"{int(self.elapsed_s) // 60:d}:{int(self.elapsed_s) % 60:02d}"
        self.console.print(f"[dim]{stamp:>5}[/dim]  {text}", style=style or None, highlight=False)
