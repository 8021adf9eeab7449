"""Delta tables: one partition a day, replaced whole in one commit.

Writing the same rows again makes no commit. Reading goes through the ledger's records, which name each day's files.
"""

import hashlib
import io
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import date

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from windsock.errors import UpstreamUnavailable
from windsock.ledger import DayRecord, Output
from windsock.store import Store

log = logging.getLogger(__name__)

_ATTEMPTS = 6


def content_hash(rows: pa.Table) -> str:
    """Return a SHA-256 of rows: their schema, values and order."""
    # Parquet bytes are a function of the values alone; Arrow buffers hold undefined bytes under nulls.
    buffer = io.BytesIO()
    plain = rows.replace_schema_metadata(None).combine_chunks()
    pq.write_table(plain, buffer, compression="none", use_dictionary=False, store_schema=False)
    digest = hashlib.sha256(buffer.getbuffer())
    digest.update(str(plain.schema).encode())
    return digest.hexdigest()


def write_day(
    store: Store, model: str, table: str, day: date, rows: pa.Table, *, previous: DayRecord | None = None
) -> Output:
    """Replace one day of a table in one commit, unless it holds exactly these rows already.

    Args:
        store: Where tables live.
        model: Model name; the table lies at ``<model>/<table>``.
        table: Table name, may contain ``/``.
        day: The partition.
        rows: The day's rows in their final order, without a ``ds`` column.
        previous: The day's record now in force, to recognise unchanged rows.

    Raises:
        UpstreamUnavailable: Another writer kept replacing the same day.
    """
    digest = content_hash(rows)
    old = previous.outputs.get(table) if previous is not None else None
    if old is not None and old.hash == digest and all(store.exists(f) for f in old.files):
        return old
    target = store.url(model, table)
    partition = pa.array([day.isoformat()] * rows.num_rows, pa.string())
    data = rows.replace_schema_metadata(None).append_column("ds", partition)
    _create_if_absent(store, target, data.schema)

    def commit() -> None:
        write_deltalake(
            target, data, mode="overwrite", predicate=f"ds = '{day}'", partition_by=["ds"], schema_mode="merge"
        )

    _retrying(commit, f"{model}/{table} of {day}")
    files, version = _files_of(target, day)
    return Output(rows.num_rows, digest, tuple(f"{model}/{table}/{f}" for f in files), version)


def read(
    store: Store, records: Iterable[DayRecord], table: str, columns: Sequence[str] | None = None
) -> pa.Table | None:
    """Read one table's rows of the given days (default: every column but ``ds``), in order of days, then as written.

    Returns:
        The rows without ``ds``, or None if no given day has any.
    """
    dataset = open_dataset(store, records, table)
    if dataset is None:
        return None
    names = list(columns) if columns is not None else [n for n in dataset.schema.names if n != "ds"]
    return dataset.to_table(columns=names)


def open_dataset(
    store: Store, records: Iterable[DayRecord], table: str, schema: pa.Schema | None = None
) -> ds.Dataset | None:
    """Open one table's rows of the given days, in order of days, or return None if there are none.

    Args:
        store: Where tables live.
        records: Day records; only their files are read.
        table: Table name as in ``DayRecord.outputs``.
        schema: Columns to offer, where one that a file lacks reads as NULL; None: those of the first file.
    """
    files = [f for r in sorted(records, key=lambda r: r.ds) if table in r.outputs for f in r.outputs[table].files]
    if not files:
        return None
    # Arrow's own local file system reads in parallel; one made from fsspec holds the interpreter's lock.
    filesystem = None if store.is_local else store.fs
    return ds.dataset([store.path(f) for f in files], schema=schema, format="parquet", filesystem=filesystem)


def _create_if_absent(store: Store, target: str, schema: pa.Schema) -> None:
    if DeltaTable.is_deltatable(target):
        return
    if store.is_local:
        store.fs.makedirs(target, exist_ok=True)
    # Several first days may arrive at once: one creates the table, the others find it.
    _retrying(
        lambda: DeltaTable.create(target, schema=schema, mode="ignore", partition_by=["ds"]), f"creation of {target}"
    )


def _retrying(action: Callable[[], object], what: str) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            action()
            return
        except DeltaError as err:
            if attempt == _ATTEMPTS:
                raise UpstreamUnavailable(
                    f"{what}: another writer got in the way {attempt} times ({err}). Run the step again."
                ) from err
            log.info("%s: commit %d of %d gave way to another writer", what, attempt, _ATTEMPTS)
            time.sleep(0.05 * 2**attempt)


def _files_of(target: str, day: date) -> tuple[list[str], int]:
    table = DeltaTable(target)
    uris = table.file_uris(file_pruning_predicate=f"ds = '{day}'")
    return sorted(f"ds={day}/" + u.rsplit("/", 1)[-1] for u in uris), table.version()
