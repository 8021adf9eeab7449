"""Materializing into Redis, in Feast's own layout, such that no writer ever takes the store back in time.

Feast's writer reads, compares and writes, and between these others may come. Here the server itself writes a row only
if what was compared with is still there; else it is compared again. Which version of a day was written last stands in a
hash beside each view's rows, as in the embedded store; an emptied server has lost that too and so is known to be empty.

Entities whose stored time lies in some span are found by scanning the view's keys. That is asked only when a day was
replaced or is corrected, and needs no index that could disagree with the rows.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TypeVar

from feast.infra.key_encoding_utils import serialize_entity_key_prefix
from feast.infra.online_stores.helpers import _mmh3, compute_versioned_name
from feast.protos.feast.types.Value_pb2 import Value as ValueProto
from google.protobuf.timestamp_pb2 import Timestamp

from windsock.errors import UpstreamUnavailable
from windsock.features.feature_tables import FeatureTable
from windsock.featurestore.feast_sink import FeastSink
from windsock.featurestore.online import to_cell, to_proto
from windsock.featurestore.online_db import NO_ENTITY_COLUMN, Entity, OnlineRow, entity_keys, entity_value
from windsock.featurestore.redis_server import RedisServer
from windsock.settings import Settings

T = TypeVar("T")

_AT_ONCE = 500
"""Entities that one call to the server is about: some milliseconds of its time."""
_TURNS = 100
"""How often a row is compared again because another writer came between; each time, that one got on."""
_MICROS = 1_000_000
_EPOCH = b"\x08\x00"
"""The first moment of 1970, which is usually written as nothing at all; that would look like no row."""

_SWAP = """
local ttl, width, refused = tonumber(ARGV[1]), tonumber(ARGV[2]), {}
local fields = {unpack(ARGV, 3, 2 + width)}
for number, key in ipairs(KEYS) do
  local at = 2 + width + (number - 1) * (width + 1)
  local seen, row = ARGV[at + 1], {unpack(ARGV, at + 2, at + 1 + width)}
  if (redis.call('HGET', key, fields[1]) or '') ~= seen then
    table.insert(refused, number)
  elseif row[1] == '' then
    redis.call('HDEL', key, unpack(fields))
  else
    local set = {}
    for i, field in ipairs(fields) do set[2 * i - 1], set[2 * i] = field, row[i] end
    redis.call('HSET', key, unpack(set))
    if ttl > 0 then redis.call('EXPIRE', key, ttl) end
  end
end
return refused
"""
"""Writes rows whose stored time is still the one that was seen, and returns the numbers of the others.

KEYS are the entities' hashes. ARGV: seconds to live, number of fields, the fields (the event time's first); then for
each entity the time seen ('' for no row) and the new fields ('' for the time: remove the row).
"""


@dataclass(frozen=True)
class _Stored:
    """What Redis holds for one entity."""

    time: bytes
    """The event time as it stands there; empty if there is no row."""
    row: OnlineRow | None


class RedisSink(FeastSink):
    """Redis behind Feast."""

    resolution_us = 1
    """Feast writes fractions of a second to Redis, too."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        config = self._config.online_store
        server = RedisServer(config, self._online.online_store)
        self._client, self._server, self._answering = server.client, server.address, server.answering
        self._ttl_s = config.key_ttl_seconds or 0
        self._swap = self._client.register_script(_SWAP)
        # A cluster spreads the keys over its servers, and a script sees one of these only.
        self._at_once = 1 if server.is_cluster else _AT_ONCE

    def write(self, table: FeatureTable, rows: Mapping[Entity, OnlineRow], *, regardless_of_time: bool) -> int:
        """Write rows that are not older than what is stored; return how many are different now."""
        changed = 0
        for some in _in_parts(list(rows), self._at_once):
            left = some
            for _ in range(_TURNS):
                stored = dict(zip(left, self._stored(table, left), strict=True))
                new = {entity: rows[entity] for entity in left if rows[entity] != stored[entity].row}
                if not regardless_of_time:
                    new = {
                        e: row for e, row in new.items() if (old := stored[e].row) is None or old.micros <= row.micros
                    }
                left = self._put(table, new, stored)
                changed += len(new) - len(left)
                if not left:
                    break
            else:
                raise UpstreamUnavailable(
                    f"The online store, {self._server}: others wrote the same rows of view {table.view!r} "
                    f"{_TURNS} times meanwhile. Run the step again."
                )
        return changed

    def delete(self, table: FeatureTable, entities: Sequence[Entity]) -> int:
        """Remove entities; return how many there were. A row that somebody has just written stays."""
        removed = 0
        for some in _in_parts(entities, self._at_once):
            there = {e: old for e, old in zip(some, self._stored(table, some), strict=True) if old.row is not None}
            removed += len(there) - len(self._put(table, dict.fromkeys(there), there))
        return removed

    def read(self, table: FeatureTable, entities: Collection[Entity]) -> dict[Entity, OnlineRow]:
        """Return what is served for these entities."""
        stored = zip(entities, self._stored(table, list(entities)), strict=True)
        return {entity: found.row for entity, found in stored if found.row is not None}

    def entities_between(self, table: FeatureTable, first_us: int, stop_us: int) -> list[Entity]:
        """List entities whose stored time lies in ``[first, stop)``."""
        pattern = _literally(self._prefix(table)) + b"*" + _literally(self._project)
        found: list[Entity] = []
        with self._answering():
            keys = set(self._client.scan_iter(pattern, count=10 * _AT_ONCE)) - {self._notes(table)}
        for some in _in_parts([entity_value(table.entity, key) for key in keys], self._at_once):
            rows = self.read(table, some)
            found += [entity for entity, row in rows.items() if first_us <= row.micros < stop_us]
        return found

    def note_day(self, table: FeatureTable, day: date, content_hash: str) -> None:
        """Note which version of a day was written, after its rows."""
        with self._answering():
            self._client.hset(self._notes(table), mapping={day.isoformat(): content_hash, self._time_field(table): ""})

    def observe(
        self, table: FeatureTable, entities: Collection[Entity]
    ) -> tuple[dict[Entity, OnlineRow], Mapping[str, str] | None]:
        """Return what is served for these entities, and day to the version that was written last."""
        with self._answering():
            noted = self._client.hgetall(self._notes(table))  # first: a version is published before its rows are here
        versions = {day.decode(): version.decode() for day, version in noted.items() if version}
        return self.read(table, entities), versions

    def _stored(self, table: FeatureTable, entities: Sequence[Entity]) -> list[_Stored]:
        fields = self._fields(table)
        answers: list[list[bytes | None]] = []
        with self._answering():
            for keys in _in_parts(self._keys(table, entities), _AT_ONCE):
                with self._client.pipeline(transaction=False) as pipeline:
                    for key in keys:
                        pipeline.hmget(key, fields)
                    answers += pipeline.execute()
        return [_Stored(time or b"", _row(time, values) if time else None) for time, *values in answers]

    def _put(
        self, table: FeatureTable, rows: Mapping[Entity, OnlineRow | None], stored: Mapping[Entity, _Stored]
    ) -> list[Entity]:
        """Write rows (None: remove it) over what was seen; return the entities where that has changed meanwhile."""
        if not rows:
            return []
        fields, entities = self._fields(table), list(rows)
        types = {f.name: f.dtype for f in self._view(table).features}
        arguments: list[bytes | int] = [self._ttl_s, len(fields), *fields]
        for entity, row in rows.items():
            arguments.append(stored[entity].time)
            if row is None:
                arguments += [b""] * len(fields)
                continue
            seconds, micros = divmod(row.micros, _MICROS)
            arguments.append(Timestamp(seconds=seconds, nanos=micros * 1000).SerializeToString() or _EPOCH)
            values = zip(table.features, row.values, strict=True)
            arguments += [to_proto(value, types[name]).SerializeToString() for name, value in values]
        with self._answering():
            refused = self._swap(self._keys(table, entities), arguments)
        return [entities[number - 1] for number in refused]

    @property
    def _project(self) -> bytes:
        return str(self._config.project).encode()

    def _prefix(self, table: FeatureTable) -> bytes:
        prefix: bytes = serialize_entity_key_prefix([table.entity or NO_ENTITY_COLUMN])
        return prefix

    def _keys(self, table: FeatureTable, entities: Sequence[Entity]) -> list[bytes]:
        return [key + self._project for key in entity_keys(table.entity, entities)]

    def _notes(self, table: FeatureTable) -> bytes:
        """Return the key of a view's notes; named and marked such that Feast removes it together with the view."""
        return self._prefix(table) + f"days of {table.feast_name}".encode() + self._project

    def _name(self, table: FeatureTable) -> str:
        versioned = self._config.registry.enable_online_feature_view_versioning
        return str(compute_versioned_name(self._view(table), versioned))

    def _time_field(self, table: FeatureTable) -> bytes:
        return f"_ts:{self._name(table)}".encode()

    def _fields(self, table: FeatureTable) -> list[bytes]:
        name = self._name(table)
        return [self._time_field(table), *(_mmh3(f"{name}:{feature}") for feature in table.features)]


def _row(time: bytes, values: Sequence[bytes | None]) -> OnlineRow:
    at = Timestamp.FromString(time)
    cells = tuple(to_cell(ValueProto.FromString(value)) if value else None for value in values)
    return OnlineRow(at.seconds * _MICROS + at.nanos // 1000, cells)


def _literally(text: bytes) -> bytes:
    """Escape what has a meaning in Redis' patterns."""
    return re.sub(rb"([*?\[\]^\\-])", rb"\\\1", text)


def _in_parts(entities: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(entities), size):
        yield entities[start : start + size]
