"""Rows on their way into the online store, and what it is seen to serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from windsock.features.view_sql import TIMESTAMP
from windsock.featurestore.cells import Cell, column_cells
from windsock.featurestore.feature_tables import FeatureTable
from windsock.featurestore.online_db import OnlineRow

Entity = int | str | None


@dataclass(frozen=True)
class OnlineRows:
    """Rows on their way into the online store, at most one per entity."""

    entities: list[Entity]
    micros: list[int]
    values: list[tuple[Cell, ...]]

    @classmethod
    def of(cls, table: FeatureTable, rows: pa.Table) -> OnlineRows:
        """Turn a view's rows into cells; rows without an entity cannot be looked up and are left out."""
        if table.entity is not None:
            rows = rows.filter(pc.is_valid(rows[table.entity]))
        entities = rows[table.entity].to_pylist() if table.entity is not None else [None] * rows.num_rows
        micros = rows[TIMESTAMP].cast(pa.int64()).to_pylist()
        columns = [column_cells(rows[f]) for f in table.features]
        return cls(entities, micros, list(zip(*columns, strict=True)))

    def by_entity_and_time(self) -> dict[tuple[Entity, int], OnlineRow]:
        """Return each row by its entity and its time in microseconds."""
        rows = zip(self.entities, self.micros, self.values, strict=True)
        return {(entity, micros): OnlineRow(micros, values) for entity, micros, values in rows}

    def at(self, places: Sequence[int]) -> OnlineRows:
        """Keep some rows."""
        return OnlineRows(
            [self.entities[i] for i in places], [self.micros[i] for i in places], [self.values[i] for i in places]
        )


@dataclass(frozen=True)
class Observed:
    """What an online store serves at one moment."""

    rows: Mapping[Entity, OnlineRow]
    versions: Mapping[str, str] | None
    """Day to the content hash that was materialized last; None if the store keeps no such note."""
