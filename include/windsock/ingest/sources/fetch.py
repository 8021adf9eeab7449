"""The way in: the spec says which source, this says which module."""

from __future__ import annotations

import logging
from datetime import date

from windsock.errors import SpecError
from windsock.ingest.sources.base import Delivery
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.spec.data import FilesSource, SqlSource

log = logging.getLogger(__name__)


def fetch(settings: Settings, spec: ModelSpec, day: date) -> Delivery:
    """Fetch one day of events as it was delivered.

    Args:
        settings: The installation (sources read their own secrets from the environment).
        spec: The model's spec.
        day: The day of events.

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


def fetch_labels(settings: Settings, spec: ModelSpec, day: date) -> Delivery:
    """Fetch the label file delivered on one day.

    Returns:
        The delivery, as :func:`fetch` does.

    Raises:
        NotDelivered: The file is not there yet.
        UpstreamUnavailable: It cannot be reached.
        SpecError: The model has no label files, or their URL cannot be used.
    """
    if spec.label.files is None:
        raise SpecError(
            f"Model {spec.name!r} has no label files: its labels are the column {spec.label.column!r} of the events. "
            "Give label.files in its model.yaml if labels come as files of their own."
        )
    from windsock.ingest.sources import files

    return files.fetch_daily(spec, spec.label.files.url, spec.label.files.format, day)
