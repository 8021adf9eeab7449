"""Simulator: card transactions of the published fraud handbook, any day by itself.

``process`` is the published process, ``drift`` changes it from a day on, ``dirt`` breaks
single deliveries.
"""

from datetime import date

from windsock.ingest.sources.base import Delivery
from windsock.ingest.sources.simulator import dirt, process
from windsock.spec import ModelSpec
from windsock.spec.data import SimulatorSource

__all__ = ["fetch"]


def fetch(spec: ModelSpec, source: SimulatorSource, day: date) -> Delivery:
    """Simulate one day, with the drift and the dirt that the spec plants.

    Before the spec's first day there are no compromised terminals and cards.
    """
    rows = process.transactions(source, spec.first_day, day)
    for planted in source.dirt:
        if planted.day == day:
            rows = dirt.spoil(rows, planted.kind, process.generator(source.seed, process.Purpose.DIRT, day))
    return Delivery.of_rows(rows, name=f"{day}.parquet", origin=f"simulator, seed {source.seed}")
