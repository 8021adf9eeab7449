"""A store of an earlier layout, brought to today's; safe to repeat, and to be killed in.

Its marker says ``upgrading`` until all is done, and by that everybody else refuses it (``format_numbers``). Nothing
that the earlier version wrote is changed, but it reads none of what is added.
"""

import logging
import uuid

from windsock.errors import DataContractError, SpecError
from windsock.features.feature_tables import feature_tables
from windsock.features.frozen import spec_of_version
from windsock.format_numbers import KEY, NEWEST, UPGRADING, layout, new_marker
from windsock.settings import Settings
from windsock.spec import ModelSpec, load_specs
from windsock.store import MARKER, Store, to_json
from windsock.store_memory import MARK
from windsock.version_index import list_versions

log = logging.getLogger(__name__)

KIND = "store"


def is_earlier(settings: Settings) -> bool:
    """Say whether the store has an earlier layout, or is half upgraded."""
    said = _root(settings).said()
    return layout(KIND, said) < NEWEST[KIND] or UPGRADING in said


def begin(settings: Settings, note: str) -> None:
    """Have everybody else refuse the store; ``note`` is the backup from before."""
    root = _root(settings)
    said = root.said()
    root.write_bytes(to_json({MARK: uuid.uuid4().hex, **said, KEY: layout(KIND, said), UPGRADING: note}), MARKER)
    Store.of(settings).look(earlier=True)


def finish(settings: Settings) -> None:
    """Bring everything to today's layout, and have the store count again."""
    for spec in load_specs(settings)[0].values():
        _take_over(settings, spec)
    root = _root(settings)
    root.write_bytes(to_json(new_marker(KIND, {MARK: root.said()[MARK]})), MARKER)


def _take_over(settings: Settings, spec: ModelSpec) -> None:
    """Give features that version 0.1 computed their records, by the definitions of the spec and of its versions."""
    for version in [None, *list_versions(settings, spec)]:
        try:
            then = spec if version is None else spec_of_version(settings, spec, version)
            for table in feature_tables(then):
                table.ledger(Store.of(settings))
        except (SpecError, DataContractError) as err:  # whoever needs it is told, and its days are taken over then
            log.warning("%s, version %s: its features stay as they are: %s", spec.name, version or "of the spec", err)


def _root(settings: Settings) -> Store:
    """Return the store itself, whatever its layout."""
    return Store(settings.store.rstrip("/"))
