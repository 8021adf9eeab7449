"""Does Windsock score as the trainer's own library did? The optional ``check.csv.gz`` of a candidate.

A model that was converted may differ from what was trained: trees that compare in another
precision, categories that a converter left out. A trainer that wants to be sure leaves the
scores of up to a thousand training rows, as its own library gave them: two columns, the key
of the request and ``score``, by the rules of :mod:`windsock.dataset.csv_export`.
"""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING

import numpy as np

from windsock.dataset.csv_export import csv_columns, csv_table
from windsock.errors import DataContractError
from windsock.runs.contract import NATIVE_SCORES
from windsock.served.model import Model
from windsock.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

TOLERANCE = 1e-6
"""Largest difference of a score from the library's, in shares of the score where it is above 1."""
_MOST_ROWS = 1000
_MOST_BYTES = 1 << 20


def compare_native_scores(candidate: Store, key: str, model: Model, rows: pa.Table) -> str:
    """Compare Windsock's scores of the training rows with those that a trainer left; say in a sentence how it went.

    Raises:
        DataContractError: The file cannot be read, names other rows, or a score differs.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    where = candidate.url(NATIVE_SCORES)
    if not candidate.exists(NATIVE_SCORES):
        return f"no {NATIVE_SCORES}: its scores are not compared with those of the trainer's own library"
    columns = {key: csv_columns(rows.select([key]))[key], "score": "double"}
    try:
        given = csv_table(_bounded(candidate.read_bytes(NATIVE_SCORES)), columns).select([key, "score"])
        wanted = given.column(key).cast(rows.column(key).type)
    except (OSError, EOFError, zlib.error, pa.ArrowException, KeyError, ValueError) as err:
        raise DataContractError(
            f"{where}: cannot be read: {type(err).__name__}: {str(err)[:200]}. Write gzip CSV with the columns {key} "
            f"and score, at most {_MOST_ROWS} training rows."
        ) from err
    places = pc.index_in(wanted, value_set=rows.column(key).combine_chunks())
    native = given.column("score").to_numpy()
    if not 0 < len(native) <= _MOST_ROWS or places.null_count or not np.isfinite(native).all():
        raise DataContractError(
            f"{where}: holds {len(native)} rows, {places.null_count} of them with a {key} that is not among the "
            f"training rows. Write a finite score for each of 1 to {_MOST_ROWS} training rows."
        )
    own = np.asarray(model.predict(rows.take(places)), dtype=np.float64)
    off = np.abs(own - native) / np.maximum(1.0, np.abs(native))
    wrong = ~(off <= TOLERANCE)
    if wrong.any():
        worst = int(np.argmax(np.where(np.isnan(off), np.inf, off)))
        raise DataContractError(
            f"{where}: Windsock scores {int(wrong.sum())} of {len(native)} rows differently than the trainer's own "
            f"library: {key} {wanted[worst]} gets {own[worst]:.9g} instead of {native[worst]:.9g} (at most "
            f"{TOLERANCE:g} apart is exact). The model did not convert as it was trained: trees want a float32 graph, "
            "categories their place in the card's list, and some kinds do not convert at all (docs/trainer.md, 'ONNX')."
        )
    return f"{len(native)} rows score within {TOLERANCE:g} of the trainer's own library"


def _bounded(data: bytes) -> bytes:
    """Return gzip bytes once they are known to unpack to little."""
    unpacked = zlib.decompressobj(31).decompress(data, _MOST_BYTES + 1)
    if len(data) > _MOST_BYTES or len(unpacked) > _MOST_BYTES:
        raise ValueError(f"it has more than {_MOST_BYTES >> 20} MiB")
    return gzip.compress(unpacked, 1)
