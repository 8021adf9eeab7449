r"""From a file's bytes to rows, or to a sentence that says why not.

Parquet keeps its own types. CSV is read as text throughout, empty fields and ``\N`` (what databases write for NULL)
as null: whether ``12,50`` is a number is for the next stage to judge, with a count and an example.
"""

import csv
import re
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from windsock.errors import SpecError
from windsock.ingest.sources.packed import COMPRESSIONS, BadArchive, is_transport, unpacked
from windsock.ingest.sources.quotes import QuoteWatch, StrayQuote
from windsock.redact import redact_line

Format = Literal["parquet", "csv"]

_ENDINGS: dict[str, Format] = {"parquet": "parquet", "pq": "parquet", "csv": "csv", "tsv": "csv", "txt": "csv"}
INT96_UNIT = "us"
"""Of times in INT96, as Spark and Impala write them: nanoseconds, the default, wrap beyond 1677 and 2262."""
MAGIC = b"PAR1"
"""How a Parquet file begins and ends."""
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BLOCK_BYTES = 4 << 20
_HEADER_BYTES = 1 << 20
_PARQUET_ROWS = 1 << 17


class Unreadable(Exception):
    """A delivery that cannot be read; its text goes into ``Delivery.problem``."""


@dataclass
class Allowance:
    """How much a delivery may still hold, so that a huge one, or a small one that unpacks to one, ends nobody."""

    max_bytes: int | None = None
    max_rows: int | None = None
    _bytes: int = 0
    _rows: int = 0

    def take(self, *, n_bytes: int = 0, rows: int = 0) -> None:
        """Count what was read of the delivery, or is about to be.

        Raises:
            Unreadable: It is more than the spec allows.
        """
        self._bytes, self._rows = self._bytes + n_bytes, self._rows + rows
        counted = (("bytes", self._bytes, self.max_bytes), ("rows", self._rows, self.max_rows))
        for what, found, most in counted:
            if most is not None and found > most:
                raise Unreadable(
                    f"the delivery holds more than {most:,} {what}, the most that validation.max_{what} allows (read "
                    f"so far: {found:,}). It stays where it is: raise the limit in model.yaml if it is meant, or have "
                    "it delivered again, smaller."
                )


def format_of(url: str, given: Format | None) -> tuple[Format, str | None]:
    """Return a file's format and compression, from the spec or else from the name's ending.

    Raises:
        SpecError: The ending says nothing and the spec gives no format.
    """
    endings, compression = _endings(url), compression_of(url)
    ending = endings[-2] if compression and len(endings) > 1 else endings[-1] if endings else ""
    found = given or _ENDINGS.get(ending)
    if found is None:
        raise SpecError(
            f"source.url {redact_line(url)!r}: its ending does not tell the format. "
            "Add 'format: parquet' or 'format: csv', or end it with / if it is a folder of part files."
        )
    return found, compression


def compression_of(url: str) -> str | None:
    """Return the compression that the ending of a file's name tells, if it tells one."""
    endings = _endings(url)
    return COMPRESSIONS.get(endings[-1]) if endings else None


def _endings(url: str) -> list[str]:
    return url.split("?", 1)[0].rsplit("/", 1)[-1].lower().split(".")[1:]


def parse(raw: bytes, kind: Format, compression: str | None, allowed: Allowance | None = None) -> pa.Table:
    """Read all rows of a file, as far as they are allowed.

    Raises:
        Unreadable: With a sentence fit for a person.
    """
    if not raw:
        raise Unreadable("the file is empty (0 bytes). Deliver it again.")
    if kind == "parquet":
        raw = raw if compression is None else unpack(pa.BufferReader(raw), compression, allowed or Allowance())
        check_parquet_ends(pa.BufferReader(raw))
        try:
            return _read_parquet(raw, allowed or Allowance())
        except (pa.ArrowException, OSError, ValueError) as err:
            raise Unreadable(f"the Parquet file is damaged ({redact_line(err)}). Deliver it again.") from err
    if raw.startswith(MAGIC):
        raise Unreadable("the file is Parquet, but is declared or named as CSV. Set source.format: parquet.")
    batches = list(csv_batches(lambda: pa.BufferReader(raw), compression, allowed))
    return pa.Table.from_batches(batches[1:], schema=batches[0].schema)


def kind_of(opener: Any, compression: str | None) -> Format:
    """Tell a file's format by how it begins; ``opener`` returns a new binary stream over it."""
    with unpacked(opener(), compression) as stream:
        return "parquet" if bytes(stream.read(len(MAGIC))) == MAGIC else "csv"


def unpack(source: Any, compression: str, allowed: Allowance) -> bytes:
    """Return all that a compressed stream holds, as far as it is allowed.

    Raises:
        Unreadable: It cannot be unpacked.
    """
    blocks = []
    try:
        with unpacked(source, compression) as stream:
            counted = _Counted(stream, Allowance(allowed.max_bytes))
            while block := counted.read(_BLOCK_BYTES):
                blocks.append(block)
    except (pa.ArrowException, OSError, EOFError, ValueError) as err:
        if is_transport(err):
            raise
        raise Unreadable(f"the file cannot be unpacked ({redact_line(err)}). Deliver it again, whole.") from err
    return b"".join(blocks)


def _read_parquet(raw: bytes, allowed: Allowance) -> pa.Table:
    file = pq.ParquetFile(pa.BufferReader(raw), page_checksum_verification=True, coerce_int96_timestamp_unit=INT96_UNIT)
    allowed.take(rows=file.metadata.num_rows)
    batches = []
    for batch in file.iter_batches(rows_at_once(file.metadata, allowed)):
        allowed.take(n_bytes=batch.nbytes)
        batches.append(batch)
    rows = pa.Table.from_batches(batches, schema=batches[0].schema if batches else file.schema_arrow)
    fields = [rows.schema.field(n) for n in range(len(rows.schema))]  # a name may be damaged, too
    if "INT96" not in {file.schema.column(n).physical_type for n in range(len(file.schema))}:
        return rows
    # Whole seconds hold every INT96 there can be; what microseconds cannot hold becomes their last, never another date.
    seconds = pq.ParquetFile(pa.BufferReader(raw), coerce_int96_timestamp_unit="s").read()
    for n, field in enumerate(fields):
        if field.type != seconds.schema.field(n).type:
            least, most = -(2**63) // 10**6 + 1, 2**63 // 10**6 - 1
            number = seconds.column(n).cast(pa.int64())
            held = pc.and_(pc.greater(number, least), pc.less(number, most))
            last = pa.scalar(2**63 - 1, pa.int64()).cast(field.type)
            rows = rows.set_column(n, field, pc.if_else(pc.fill_null(held, True), rows.column(n), last))
    return rows


def rows_at_once(metadata: Any, allowed: Allowance) -> int:
    """Return how many rows of a Parquet file to read at a time, so that they hold no more bytes than are allowed.

    What repeats takes no room in the file, but in memory; no value is longer than its column is in the file, unpacked.
    """
    groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
    longest = max((sum(g.column(n).total_uncompressed_size for n in range(g.num_columns)) for g in groups), default=1)
    at_most = _PARQUET_ROWS if allowed.max_bytes is None else allowed.max_bytes // max(longest, 1)
    return min(max(at_most, 1), _PARQUET_ROWS)


def check_parquet_ends(file: Any) -> None:
    """Tell a foreign, encrypted or truncated file, opened for reading, from Parquet by its first and last bytes.

    Raises:
        Unreadable: It is not a whole Parquet file.
    """
    head, size = file.read(4), file.seek(0, 2)
    file.seek(max(0, size - 4))
    tail = file.read(4)
    if head == b"PARE" and tail == b"PARE":
        raise Unreadable("the Parquet file is encrypted. Deliver it without encryption.")
    if head != MAGIC:
        raise Unreadable(
            f"the file is not Parquet: it starts with {head!r}, not {MAGIC!r} ({size} bytes). "
            "Deliver Parquet, or set source.format if it is CSV."
        )
    if tail != MAGIC or size < 12:
        raise Unreadable(
            f"the Parquet file is truncated: its footer is missing after {size} bytes. Deliver it again, whole."
        )


class _Counted:
    """A binary stream that is read only as far as is allowed."""

    def __init__(self, stream: Any, allowed: Allowance) -> None:
        self._stream, self._allowed = stream, allowed
        self.close = stream.close

    def read(self, size: int = -1) -> bytes:
        block = bytes(self._stream.read(size))
        self._allowed.take(n_bytes=len(block))
        return block


def csv_batches(opener: Any, compression: str | None, allowed: Allowance | None = None) -> Any:
    """Read a CSV file in blocks, every column as text.

    ``opener`` returns a new binary stream over the whole file and is called twice.

    Yields:
        Record batches; the first is empty and carries the schema.

    Raises:
        Unreadable: The file is empty, not UTF-8, or has ragged lines, or there is more of it than is allowed.
    """
    allowed = allowed or Allowance()

    def stream() -> Any:
        return unpacked(opener(), compression)

    try:
        with stream() as source:
            head = source.read(_HEADER_BYTES)
        names, delimiter = _header(head)
        schema = pa.schema([(name, pa.string()) for name in names])
        yield pa.RecordBatch.from_arrays([pa.array([], pa.string())] * len(names), schema=schema)
        if not _LINE_END.search(head):  # a header alone, without a line end, is no row but no fault either
            return
        with stream() as opened:
            source = _Counted(opened, allowed)
            reader = pa.csv.open_csv(
                QuoteWatch(source, delimiter, len(names)),
                # Single-threaded, because only then does an error name its line.
                read_options=pa.csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
                parse_options=pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
                convert_options=pa.csv.ConvertOptions(
                    column_types=schema,
                    null_values=["", r"\N"],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=True,
                ),
            )
            for batch in reader:
                allowed.take(rows=batch.num_rows)
                yield batch
    except BadArchive as err:
        raise Unreadable(f"{err}. Deliver it again, whole and unlocked.") from err
    except StrayQuote as err:
        raise Unreadable(
            f"the CSV file cannot be read ({err}), so nobody can tell where its rows end. "
            "Deliver it with every quotation mark within a quoted value doubled."
        ) from err
    except UnicodeDecodeError as err:
        raise Unreadable(
            f"the CSV file is not UTF-8 text: byte 0x{err.object[err.start]:02x} at position {err.start}. "
            "Deliver it encoded as UTF-8."
        ) from err
    except (pa.ArrowException, OSError, EOFError, ValueError) as err:
        if is_transport(err):
            raise
        # Arrow quotes the whole row: as an example it stays out of messages.
        text = re.sub(r"(got \d+): ", r"\1, e.g. ", redact_line(err))
        if "UTF8" in text or "utf-8" in text:
            raise Unreadable(f"the CSV file is not UTF-8 text ({text}). Deliver it encoded as UTF-8.") from err
        raise Unreadable(f"the CSV file cannot be read ({text}). Deliver it again, whole and well-formed.") from err


def _header(head: bytes) -> tuple[list[str], str]:
    """Return column names and delimiter from the start of a CSV file."""
    line = _LINE_END.split(head, maxsplit=1)[0].decode("utf-8-sig")
    if not line.strip():
        raise Unreadable("the CSV file has no header line. Deliver it with the column names in its first line.")
    if "\x00" in line:
        raise Unreadable("the CSV file is not text: its first line holds zero bytes. Deliver it encoded as UTF-8.")
    delimiter = max(",;\t|", key=line.count)
    return next(csv.reader([line], delimiter=delimiter)), delimiter
