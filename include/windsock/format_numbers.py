"""Format numbers: as what each kind of file was written, and what this version of Windsock reads.

What outlives an upgrade says by which rules it was written. Version 0.1 wrote numbers in requests only: another file
without one is of format 1. Whoever changes the rules of a kind raises its number here, and reads the earlier ones too.
The numbers of store and home are those of their layout: of an earlier one ``windsock upgrade`` makes today's, and until
then it is refused, since the code that wrote it could not go on after today's has written anything there.
A number never enters a content hash: equal content stays equal.
"""

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from windsock import __version__
from windsock.errors import SpecError

KEY = "format"
"""Field of a JSON object, or of ``model.yaml``, that holds the number."""
WROTE = "windsock"
"""Field of the marker of a store or home: the version that made it."""
RESTORING = "restoring"
"""Field of the marker of a store or home that is being restored: the backup's place and name."""
UPGRADING = "upgrading"
"""Field of the marker of a store or home that is being upgraded: place and name of the backup from before, or none."""
FIRST = "0.1"
"""The version that wrote no numbers."""

NEWEST: Mapping[str, int] = {
    "day record": 1,
    "promotion": 1,
    "look": 1,
    "model version": 1,
    "training request": 1,
    "trainer request": 1,
    "definition": 1,
    "feature definitions": 1,
    "profile": 1,
    "run of a DAG": 1,
    "alert": 1,
    "wait": 1,
    "told": 1,
    "store": 2,  # days of features have a record for each definition, days of tables no Delta log; a mark
    "home": 2,  # databases and Feast's registry know such features
    "backup": 1,
}
"""Kind of file to the format that this version writes; it reads that one and all before it."""

_NAMES = {"training request": "windsock-request", "trainer request": "windsock-trainer"}
"""Kinds that programs of others read too, and the name before their number: ``windsock-trainer/1``."""


def written(kind: str, number: int | None = None) -> int | str:
    """Return what a file of a kind says of its format; default: the one that this version writes."""
    number = number or NEWEST[kind]
    return f"{_NAMES[kind]}/{number}" if kind in _NAMES else number


def numbered(kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with the number of the format in which this version writes its kind."""
    return {**content, KEY: written(kind)}


def check(kind: str, found: object, where: object, wrote: str = "") -> None:
    """Refuse a file of a format that this version does not read; ``found`` None: it says nothing, as in version 0.1.

    ``wrote`` is the version that it says it was written by.

    Raises:
        SpecError: This version knows no such format.
    """
    reads = [written(kind, number) for number in range(1, NEWEST[kind] + 1)]
    # Not ``found in reads``: JSON's true and 1.0 are equal to 1.
    if found is None or any(type(found) is type(known) and found == known for known in reads):
        return
    raise SpecError(
        f"{where}: is a {kind} of format {found!r}, but this version of Windsock reads {', '.join(map(repr, reads))}: "
        "go on with the version that wrote it or a later one, or restore what lay there before."
        + (f" Windsock {wrote} wrote it; this is {__version__}." if wrote else "")
    )


def new_marker(kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the marker of a new store or home says."""
    return numbered(kind, {**content, WROTE: __version__})


def layout(kind: str, marker: Mapping[str, Any]) -> int:
    """Return the number of the layout that a store's or home's marker names; what is not there yet has the newest."""
    return int(marker.get(KEY, NEWEST[kind])) if marker else NEWEST[kind]


def check_marker(kind: str, marker: Mapping[str, Any], where: object, *, earlier: bool = False) -> None:
    """Refuse a store or home by its marker: of another layout, half restored, half upgraded; an empty one says nothing.

    ``earlier`` takes one of an earlier layout, too: to copy it, or to upgrade it.

    Raises:
        SpecError: This version cannot use it.
    """
    if RESTORING in marker:
        target, _, name = str(marker[RESTORING]).rpartition(" ")
        raise SpecError(
            f"{where}: this {kind} is half restored: the restoring was cut off, or is still going on. Run "
            f"`windsock restore {target} --backup {name}` again, which goes on with it."
        )
    wrote = str(marker.get(WROTE, ""))
    command = "windsock upgrade" + (f" --home {quote(str(Path(str(where)).parent))}" if kind == "home" else "")
    check(kind, marker.get(KEY), where, wrote)
    if earlier:
        return
    if UPGRADING in marker:
        target, _, name = str(marker[UPGRADING]).rpartition(" ")
        back = f', or go back by the backup {name} in {target} (docs/runbook.md, "Upgrades")' if target else ""
        raise SpecError(
            f"{where}: this {kind} is half upgraded: the upgrade was cut off, or is still going on. Run "
            f"`{command}` again, which goes on with it{back}."
        )
    if (found := layout(kind, marker)) < NEWEST[kind]:
        raise SpecError(
            f"{where}: this {kind} is laid out in format {found}, by Windsock {wrote or FIRST}; this is Windsock "
            f"{__version__}, which lays it out in format {NEWEST[kind]}. Run `{command}`, which takes a backup "
            "first, or go on with the version that wrote it; until then nothing is read or written."
        )


def taken(kind: str, raw: Mapping[str, Any], where: object) -> dict[str, Any]:
    """Check a JSON object's number, and return the object without it.

    Raises:
        SpecError: See :func:`check`.
    """
    check(kind, raw.get(KEY), where)
    return {name: value for name, value in raw.items() if name != KEY}
