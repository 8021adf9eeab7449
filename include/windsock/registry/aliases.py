"""The MLflow aliases follow the promotion log: repaired whenever a step comes by.

A kill between the log entry and the alias leaves an alias that is behind; a hand-set
alias differs from the log. Both are put right here. The log decides, always.
"""

import logging

from windsock.promotions import current
from windsock.registry.models import CHALLENGER, CHAMPION, alias_version, drop_alias, set_alias
from windsock.settings import Settings
from windsock.spec import ModelSpec

log = logging.getLogger(__name__)


def reconcile(settings: Settings, spec: ModelSpec, *, expected: bool = False) -> bool:
    """Make MLflow's aliases say what the promotion log says; ``expected`` if that has just been written.

    Returns:
        Whether anything had to be repaired.

    Raises:
        UpstreamUnavailable: MLflow cannot be reached.
    """
    entry = current(settings, spec)
    alias = alias_version(settings, spec, CHAMPION)
    wanted = entry.version if entry is not None else None
    repaired = alias != wanted
    if repaired:
        text = "%s: MLflow's alias champion was %s and becomes %s, as the promotion log says"
        log.log(logging.INFO if expected else logging.WARNING, text, spec.name, alias, wanted)
        if wanted is None:
            drop_alias(settings, spec, CHAMPION)
        else:
            set_alias(settings, spec, CHAMPION, wanted)
    if wanted is not None and alias_version(settings, spec, CHALLENGER) == wanted:
        drop_alias(settings, spec, CHALLENGER)
        repaired = True
    return repaired
