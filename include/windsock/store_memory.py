"""What an installation knows of its store: a store that is gone is not an empty store.

A store has a mark of its own, made with its first object. A home remembers the mark of the first store that it saw; a
pod, which has no home, gets it from its environment. A store with another mark, or with none, is then refused: its
folder is not mounted, its address is mistyped, or somebody emptied it.
"""

import json
import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from windsock.errors import SpecError, UpstreamUnavailable
from windsock.files import create_file
from windsock.redact import redact
from windsock.settings import Settings

log = logging.getLogger(__name__)

MARK = "mark"
"""Field of a store's marker, and of what a home remembers."""
REMEMBERED = "store-mark.json"
"""In the home: mark and address of its store."""


@dataclass(frozen=True)
class StoreMemory:
    """Where the mark of an installation's store is remembered."""

    home: Path
    given: str = ""
    """The mark by ``WINDSOCK_STORE_MARK``, which goes before what the home remembers."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return where the settings say that it is remembered."""
        return cls(settings.home, settings.store_mark)

    @property
    def file(self) -> Path:
        """Where the home remembers."""
        return self.home / REMEMBERED

    def compare(self, found: str | None, root: str) -> None:
        """Refuse another store than the one that is remembered; a home that remembers none remembers this one.

        Args:
            found: The mark of the store; None: it has none.
            root: Its address.

        Raises:
            SpecError: It is another store, or what the home remembers cannot be read.
            UpstreamUnavailable: A store is remembered, but here is none.
        """
        expected, source = self.expected()
        if expected is None:
            if found is not None and self.home.is_dir():
                self._remember(found, root)
        elif found is None:
            raise UpstreamUnavailable(
                f"{redact(root)}: here is no store, but this installation has one ({source}). Its folder may not be "
                f"mounted, its bucket be emptied, or WINDSOCK_STORE be mistyped. {self._anew()}"
            )
        elif found != expected:
            raise SpecError(
                f"{redact(root)}: is another store than this installation's: its mark is {found[:12]}, not "
                f"{expected[:12]} ({source}). Check WINDSOCK_STORE. {self._anew()}"
            )

    def expected(self) -> tuple[str | None, str]:
        """Return the mark that the store must have, None if it may have any, and from where it is known.

        Raises:
            SpecError: What the home remembers cannot be read.
        """
        if self.given:
            return self.given, "by WINDSOCK_STORE_MARK"
        try:
            raw = json.loads(self.file.read_text(encoding="utf-8"))
            return str(raw[MARK]), f"{raw['store']}, says {self.file}"
        except (FileNotFoundError, NotADirectoryError):
            return None, ""
        except (OSError, ValueError, TypeError, KeyError) as err:
            raise SpecError(
                f"{self.file}: which store this installation has cannot be read: {type(err).__name__}. Remove the file "
                "once you have checked WINDSOCK_STORE; the store is remembered anew."
            ) from err

    def _anew(self) -> str:
        what = "the variable" if self.given else str(self.file)
        return f"If another store is meant from now on, remove {what}."

    def _remember(self, mark: str, root: str) -> None:
        try:
            with suppress(FileExistsError):  # another process was first
                create_file(self.file, json.dumps({MARK: mark, "store": redact(root)}, indent=1).encode())
        except OSError as err:
            log.warning(
                "%s: the store's mark cannot be remembered (%s), so that another or an empty store in its place would "
                "not be noticed. Set WINDSOCK_STORE_MARK to %s.", self.file, err.strerror, mark
            )  # fmt: skip
