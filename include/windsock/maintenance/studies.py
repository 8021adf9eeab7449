"""Studies of shared searches: what a search knew while it went on, in the database that ``WINDSOCK_STUDIES`` names."""

import logging

from windsock.errors import WindsockError
from windsock.maintenance.cleaning import Cleaning
from windsock.runs.run_folder import METRICS, REQUEST

log = logging.getLogger(__name__)


def remove_studies(cleaning: Cleaning) -> None:
    """Remove the studies of trainings whose model is chosen, or that are gone; a database that is away costs a line."""
    if not cleaning.settings.studies:
        return
    from windsock.search import study  # brings Optuna

    def is_over(run: str) -> bool:
        folder = cleaning.run_folder(run)
        return folder.exists(METRICS) or not folder.exists(REQUEST)

    try:
        names = study.remove_studies(cleaning.settings.studies, cleaning.spec.name, is_over, dry=cleaning.dry)
    except WindsockError as err:
        log.warning("%s: the studies of its searches stay: %s", cleaning.spec.name, err)
        return
    for name in names:
        log.info("%s: study %s goes: its training is over", cleaning.spec.name, name)
        cleaning.count("studies", 0)
