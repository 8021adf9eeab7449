"""Which versions of a model still matter, and by what their features are computed."""

from collections.abc import Mapping
from datetime import date, timedelta
from functools import lru_cache
from typing import Any

from windsock import promotions
from windsock.errors import SpecError
from windsock.format_numbers import taken
from windsock.runs.run_folder import DEFINITIONS, LINEAGE, RunFolder
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store
from windsock.version_index import VersionInfo, judged_twin, list_versions, version_info


def versions_needed(settings: Settings, spec: ModelSpec, day: date) -> list[str]:
    """List the versions whose features of a day are needed: the day's champion (if any) first.

    After it come the champion that is about to follow, a challenger that waits, and the champions of the last
    ``serving.rollback_days``.
    """
    entries = promotions.history(settings, spec)
    recent = [day - timedelta(days=n) for n in range(spec.serving.rollback_days + 1)]
    found = [entry.version for d in recent if (entry := promotions.champion_of(entries, d)) is not None]
    found[1:1] = [entry.version for entry in entries[-1:]]
    promoted, newest = {entry.version for entry in entries}, list_versions(settings, spec)[-1:]
    found += [version for version in newest if version not in promoted and not _was_refused(settings, spec, version)]
    return list(dict.fromkeys(found))


def unjudged_version(settings: Settings, spec: ModelSpec) -> str | None:
    """Return the newest version if no gate has judged it and it has never been champion, else None."""
    versions = list_versions(settings, spec)
    if not versions:
        return None
    newest = versions[-1]
    promoted = any(entry.version == newest for entry in promotions.history(settings, spec))
    info = judged_twin(settings, spec, version_info(settings, spec, newest))
    judged = Store.of(settings).exists(info.run_folder, "gate.json")
    return None if promoted or judged else newest


def _was_refused(settings: Settings, spec: ModelSpec, version: str) -> bool:
    folder = judged_twin(settings, spec, version_info(settings, spec, version)).run_folder
    try:
        return Store.of(settings).read_json(folder, "gate.json").get("passed") is False
    except FileNotFoundError:
        return False


@lru_cache(maxsize=64)
def read_definitions(root: str, info: VersionInfo) -> Mapping[str, Any]:
    """Return the definitions that a version of the store at ``root`` carries (see ``features.frozen``).

    Raises:
        SpecError: They are gone, or of a format that this version of Windsock cannot read.
    """
    folder = RunFolder.named(Store(root.rstrip("/")), info.model, info.run)
    if info.definitions:
        return taken("feature definitions", info.definitions, f"version {info.version} of {info.model}")
    if folder.exists(DEFINITIONS):
        return taken("feature definitions", folder.read_json(DEFINITIONS), folder.url(DEFINITIONS))
    lineage = folder.read_json(LINEAGE)
    if "spec" not in lineage:
        raise SpecError(
            f"{folder.url(LINEAGE)}: does not say by which features version {info.version} of {info.model} was made. "
            "Restore the file, or train and register the model again."
        )
    return _of_lineage(lineage)


def _of_lineage(lineage: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a run of version 0.1 says of its definitions; the order of row features is in its list."""
    spec, order = lineage["spec"], list(lineage["features"])
    row, views = spec["features"].get("row", {}), spec["features"].get("views", ())
    return {
        "row": [[name, row[name]] for name in sorted(row, key=order.index)],
        "views": [{**view, "file": view["sql"], "sql": lineage["sql"][view["sql"]]} for view in views],
        "entities": spec["entities"],
        "label": spec["label"]["column"],
        "columns": list(spec["events"]["columns"].items()),
    }
