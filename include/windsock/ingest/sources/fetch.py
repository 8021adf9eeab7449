"""The way in: the spec says which source, this says which module."""

import logging
from datetime import date

from windsock.errors import SpecError
from windsock.ingest.sources.base import Delivery
from windsock.spec import ModelSpec
from windsock.spec.data import FilesSource, LabelFiles, SqlSource

log = logging.getLogger(__name__)


def fetch(spec: ModelSpec, day: date) -> Delivery:
    """Fetch one day of events as it was delivered; sources read their own secrets from the environment.

    Returns:
        The delivery; its ``problem`` is set, and ``rows`` is None, if it cannot be read.

    Raises:
        NotDelivered: The delivery is not there yet.
        UpstreamUnavailable: Its source cannot be reached.
        SpecError: The source is described wrongly (no such protocol, a query that does not run).
    """
    source = spec.source
    if isinstance(source, FilesSource):
        from windsock.ingest.sources import files

        delivery = files.fetch(spec, source, day)
    elif isinstance(source, SqlSource):
        from windsock.ingest.sources import sql

        delivery = sql.fetch(spec, source, day)
    else:
        from windsock.ingest.sources import simulator

        delivery = simulator.fetch(spec, source, day)
    rows = "unreadable" if delivery.rows is None else f"{delivery.rows.num_rows} rows"
    log.info("%s %s: %s from %s", spec.name, day, rows, delivery.origin)
    return delivery


def fetch_labels(spec: ModelSpec, day: date) -> Delivery:
    """Fetch the label file delivered on one day, as :func:`fetch` does events."""
    from windsock.ingest.sources import files

    described = label_files(spec)
    return files.fetch_daily(spec, described.url, described.format, day)


def label_files(spec: ModelSpec) -> LabelFiles:
    """Return the description of a model's label files.

    Raises:
        SpecError: Its labels come as a column of the events.
    """
    if spec.label.files is None:
        raise SpecError(
            f"Model {spec.name!r} has no label files: its labels are the column {spec.label.column!r} of the events. "
            "There is nothing to fetch; give label.files in its model.yaml if labels come as files of their own."
        )
    return spec.label.files
