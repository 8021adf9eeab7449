"""Where rows of one table stand in another: rows are told by key and time, as ids may begin anew."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc


def places_of(wanted: Sequence[pa.ChunkedArray], rows: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    """Return where each wanted row first stands among others, NULL where it does not.

    Rows are the same if they agree in every column given: an event is told by key and time, as ids may begin anew.
    """
    values = pc.unique(rows[0])
    if len(values) == len(rows[0]):  # as keys mostly are: then the others only have to agree
        place = pc.index_in(wanted[0], value_set=values)
        for own, others in zip(wanted[1:], rows[1:], strict=True):
            there = others.take(place)
            same = pc.or_(pc.fill_null(pc.equal(own, there), False), pc.and_(own.is_null(), there.is_null()))
            place = pc.if_else(same, place, pa.scalar(None, place.type))
        return place
    ours, theirs = pa.chunked_array([pa.repeat(0, len(wanted[0]))]), pa.chunked_array([pa.repeat(0, len(rows[0]))])
    for own, others in zip(wanted, rows, strict=True):
        values = pc.unique(others)
        ours, theirs = (
            pc.add(pc.multiply(known, len(values)), pc.index_in(column, value_set=values).cast(pa.int64()))
            for known, column in ((ours, own), (theirs, others))
        )
    return pc.index_in(ours, value_set=theirs.combine_chunks(), skip_nulls=True)
