"""Which files are pages: reports and verdicts in the store, and Data Docs in the home; read a part at a time.

A path is taken by its letters first, then opened, and only then is asked where that file really lies: a link that leads
out of its root is no page, whenever it was put there, and neither is a pipe or a device.
"""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from windsock.settings import Settings
from windsock.store import Store

DATA_DOCS = "data-docs"
"""What the paths of Data Docs begin with."""

_NAME = r"[A-Za-z0-9_-][A-Za-z0-9_.~+-]{0,199}"
_PAGE = re.compile(rf"(?:reports|runs)/{_NAME}/{_NAME}/{_NAME}\.(?P<ending>html|json|png)")
_DOCS = re.compile(rf"{DATA_DOCS}/(?P<path>(?:{_NAME}/){{0,8}}{_NAME}\.(?P<ending>html|css|js|png|svg|ico|woff2?|ttf))")
_KINDS = {
    "html": "text/html; charset=utf-8", "json": "application/json", "png": "image/png", "css": "text/css",
    "js": "text/javascript", "svg": "image/svg+xml", "ico": "image/x-icon", "woff": "font/woff", "woff2": "font/woff2",
    "ttf": "font/ttf",
}  # fmt: skip
_PART = 1 << 18


class Page(NamedTuple):
    """A page that is there."""

    file: IO[bytes]
    media_type: str

    def parts(self) -> Iterator[bytes]:
        """Yield its bytes, never much of them at once, and close it."""
        with self.file:
            while part := self.file.read(_PART):
                yield part


def open_page(path: str) -> Page | None:
    """Return what a path names, None for whatever is not a page, or not there.

    Raises:
        WindsockError: The store cannot be read.
    """
    settings = Settings.from_env()
    if (found := _DOCS.fullmatch(path)) is not None:
        root = settings.home / "great_expectations" / "uncommitted" / "data_docs" / "local_site"
        file: IO[Any] | None = _open_below(root, found["path"])
    elif (found := _PAGE.fullmatch(path)) is not None:
        store = Store.of(settings)
        store.look()
        file = _open_below(Path(store.url()), path) if store.is_local else _open_object(store, path)
    else:
        return None
    return Page(file, _KINDS[found["ending"]]) if file is not None else None


def _open_below(root: Path, path: str) -> IO[bytes] | None:
    """Open a plain file that lies below a folder, wherever links lead."""
    try:
        # Without waiting for whoever would write into a pipe.
        number = os.open(root / path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    really = Path(os.readlink(f"/proc/self/fd/{number}"))
    if stat.S_ISREG(os.fstat(number).st_mode) and really.is_relative_to(root.resolve()):
        return os.fdopen(number, "rb")
    os.close(number)
    return None


def _open_object(store: Store, path: str) -> IO[bytes] | None:
    try:
        return store.fs.open(store.path(path), "rb", block_size=_PART, cache_type="readahead")  # type: ignore[no-any-return]
    except OSError:  # not there, or not ours to read
        return None
