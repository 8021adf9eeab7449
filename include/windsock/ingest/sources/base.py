"""What a source hands over, and how a secret is kept out of what it says."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from windsock.errors import NotReady

_USERINFO = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*://)[^/?#@\s]*@")
_QUERY = re.compile(r"(?P<url>[A-Za-z][\w+.-]*://[^\s?#]*)\?[^\s#]*")


class NotDelivered(NotReady):
    """The place was reached, but the day's delivery is not there (yet)."""


@dataclass(frozen=True)
class Delivery:
    """One day's delivery, as it came."""

    rows: pa.Table | None
    """The day's rows with every delivered column; None if they cannot be read."""
    raw: bytes | None
    """What to keep in the raw store: the file's own bytes, or the rows as Parquet when there is no file
    for the day (a query, a cut of a big file, the simulator). None only for a big file that cannot be read."""
    name: str
    """File name to keep ``raw`` under; its ending says the format."""
    content_hash: str | None
    """SHA-256 of ``raw``: equal hashes mean an equal delivery."""
    problem: str | None = None
    """Why the delivery cannot be read: what is wrong, where, and what to do."""
    origin: str = ""
    """Where it came from, for records and messages; never holds a secret."""

    @classmethod
    def of_rows(cls, rows: pa.Table, *, name: str, origin: str) -> Delivery:
        """Make the delivery of a source that has no file for the day; equal rows give equal bytes."""
        raw = _to_parquet(rows)
        return cls(rows, raw, name, sha256(raw), None, origin)

    @classmethod
    def of_file(cls, raw: bytes, *, name: str, origin: str, rows: pa.Table | None, problem: str | None) -> Delivery:
        """Make the delivery of a file, read well (``rows``) or not at all (``problem``)."""
        return cls(rows, raw, name, sha256(raw), problem, origin)


def is_transport(err: Exception) -> bool:
    """Tell a file that cannot be reached from one that cannot be read: parsers set no error number."""
    return isinstance(err, (ConnectionError, TimeoutError)) or (isinstance(err, OSError) and err.errno is not None)


def sha256(raw: bytes) -> str:
    """Return the content identity of bytes."""
    return hashlib.sha256(raw).hexdigest()


def redact(text: str) -> str:
    """Return a URL, or a text that holds URLs, without user, password and query string."""
    return _QUERY.sub(r"\g<url>?***", _USERINFO.sub(r"\g<scheme>***@", text))


def shorten(text: object, limit: int = 300) -> str:
    """Return an error's text on one line, bounded and without secrets."""
    line = " ".join(redact(str(text)).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _to_parquet(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    # Chunks and schema metadata depend on how rows were read, not on what they are.
    pq.write_table(rows.replace_schema_metadata(None).combine_chunks(), sink, compression="zstd")
    return bytes(sink.getvalue())
