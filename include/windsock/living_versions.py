"""Which versions of a model still matter: what they read is taken in, and their features are computed."""

from datetime import date, timedelta

from windsock import promotions
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store
from windsock.version_index import list_versions, version_info


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


def _was_refused(settings: Settings, spec: ModelSpec, version: str) -> bool:
    folder = version_info(settings, spec, version).run_folder
    try:
        return Store.of(settings).read_json(folder, "gate.json").get("passed") is False
    except FileNotFoundError:
        return False
