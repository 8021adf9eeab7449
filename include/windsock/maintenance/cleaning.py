"""One cleaning: what lies where, how old it is, and what was removed."""

import logging
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path

from windsock.listing import AREAS, Listed, listed
from windsock.runs.run_folder import RunFolder
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store

log = logging.getLogger(__name__)


@dataclass
class Cleaning:
    """What one run of the step does to one model."""

    settings: Settings
    spec: ModelSpec
    retention: timedelta
    """What is younger belongs to a run that is still going on, or is about to be repeated."""
    dry: bool
    now: datetime
    files: Counter[str] = field(default_factory=Counter)
    """Files removed (or that would be), by kind."""
    bytes: Counter[str] = field(default_factory=Counter)

    @cached_property
    def store(self) -> Store:
        """The settings' store."""
        return Store.of(self.settings)

    @cached_property
    def _listed(self) -> dict[str, list[Listed]]:
        return {area: listed(self.store, folder.format(model=self.spec.name)) for area, folder in AREAS.items()}

    @cached_property
    def areas(self) -> dict[str, list[Listed]]:
        """Every file of the model as it lay there at the beginning, by area."""
        return {area: [file for file in files if not _is_temporary(file)] for area, files in self._listed.items()}

    @property
    def temporary(self) -> list[Listed]:
        """Files that are, or were, being written; an object store has none."""
        return [file for files in self._listed.values() for file in files if _is_temporary(file)]

    def age(self, file: Listed) -> timedelta:
        """Return how long ago a file was written."""
        return self.now - file.written

    def older(self, files: Iterable[Listed], age: timedelta) -> list[Listed]:
        """Return the files that are at least so old."""
        return [file for file in files if self.age(file) >= age]

    def remove(self, kind: str, files: Iterable[Listed], why: str) -> None:
        """Remove files, one after the other in the order given; that one is gone already is no error."""
        for file in files:
            log.info("%s: %s goes (%d bytes, %d days old): %s", self.spec.name, file.name, file.size,
                     self.age(file).days, why)  # fmt: skip
            self.count(kind, file.size)
            if not self.dry:
                self.store.remove(file.name)
                self._remove_empty_folders(file.name)

    def _remove_empty_folders(self, name: str) -> None:
        if self.store.is_local:
            with suppress(OSError):  # something lies there, or nothing does any more
                for folder in Path(self.store.path(name)).parents:
                    folder.rmdir()

    def count(self, kind: str, size: int) -> None:
        """Count a file that was removed."""
        self.files[kind] += 1
        self.bytes[kind] += size

    def run_folder(self, run: str) -> RunFolder:
        """Return a run folder of the model."""
        return RunFolder(self.store.root, self.store.memory, f"runs/{self.spec.name}/{run}")


def _is_temporary(file: Listed) -> bool:
    last = file.name.rsplit("/", 1)[-1]
    return last.startswith(".") and last.endswith(".tmp")
