"""Raw deliveries, kept as they came: by content, so that the same file is kept once."""

from __future__ import annotations

from windsock.ingest.sources import Delivery
from windsock.spec import ModelSpec
from windsock.store import Store


def keep_raw(store: Store, spec: ModelSpec, delivery: Delivery) -> str | None:
    """Keep a delivery's bytes at ``raw/<model>/<sha256>.<ending>``, unless they are there.

    Returns:
        The path within the store, or None if the delivery has no bytes of its own.
    """
    if delivery.raw is None or delivery.content_hash is None:
        return None
    parts = ("raw", spec.name, f"{delivery.content_hash}{_ending(delivery.name)}")
    if not store.exists(*parts):
        store.write_bytes(delivery.raw, *parts)
    return "/".join(parts)


def _ending(name: str) -> str:
    """Return a file's endings, two at most: ``.csv.gz``."""
    pieces = name.split(".")[1:]
    return "".join(f".{p}" for p in pieces[-2:] if p.isalnum() and len(p) <= 8)
