"""What lies in a store: files with their sizes and times, and how much of it is a model's.

A listing tells both, so in a bucket it costs one request for a thousand files, and none for each of them.
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from windsock.errors import WindsockError
from windsock.faults import found_below
from windsock.store import Store

AREAS: Mapping[str, str] = MappingProxyType(
    {
        "tables": "{model}",
        "raw": "raw/{model}",
        "runs": "runs/{model}",
        "reports": "reports/{model}",
        "quarantine": "quarantine/{model}",
    }
)
"""Parts of a model to the folder that each lies in; ``tables`` are its records, too."""
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")
"""What the kinds of file systems call the time at which a file was written."""
_AT_ONCE = 8


@dataclass(frozen=True)
class Listed:
    """A file as a listing shows it."""

    name: str
    """Path relative to the store's root."""
    size: int
    """Bytes."""
    written: datetime
    tag: str = ""
    """What is another one whenever the file was replaced, if its file system says such a thing."""


def listed(store: Store, folder: str) -> list[Listed]:
    """List the files below a folder of a store, in order of their names; none if there is no folder."""
    root = store.path().rstrip("/")
    found = found_below(store.fs, store.path(folder))
    return [
        Listed(
            name[len(root) :].lstrip("/"), info["size"], _written(info), str(info.get("ETag") or info.get("ino", ""))
        )
        for name, info in sorted(found.items())
    ]


def written_at(info: Mapping[str, Any]) -> datetime | None:
    """Return when a file was written, by what its file system says of it; None if that is not said."""
    value = next((info[name] for name in _TIMES if info.get(name) is not None), None)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    return None if value is None else datetime.fromtimestamp(value, UTC)


def _written(info: Mapping[str, Any]) -> datetime:
    if (written := written_at(info)) is None:
        raise WindsockError(
            f"{info['name']}: the store does not say when it was written, so it is not known how old it is."
        )
    return written


def disk_use(store: Store, models: Iterable[str]) -> dict[str, dict[str, int]]:
    """Return model to the bytes in each of its :data:`AREAS`."""
    places = [(model, area, folder.format(model=model)) for model in models for area, folder in AREAS.items()]
    store.look()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        sizes = pool.map(lambda place: sum(file.size for file in listed(store, place[2])), places)
    found: dict[str, dict[str, int]] = {}
    for (model, area, _), size in zip(places, sizes, strict=True):
        found.setdefault(model, {})[area] = size
    return found
