"""Compressed deliveries: gz, bz2 and zst as Arrow reads them, and zip with one file in it."""

import zipfile
from typing import Any

import pyarrow as pa

COMPRESSIONS = {"gz": "gzip", "bz2": "bz2", "zst": "zstd", "zip": "zip"}
"""Ending of a file's name to compression."""


def is_transport(err: Exception) -> bool:
    """Tell a file that cannot be reached from one that cannot be read: parsers set no error number."""
    return isinstance(err, (ConnectionError, TimeoutError)) or (isinstance(err, OSError) and err.errno is not None)


class BadArchive(ValueError):
    """A zip archive that cannot be read, or holds no single file."""


def unpacked(stream: Any, compression: str | None) -> Any:
    """Return a binary stream of what another one holds, or of one file in it; read by pieces, never whole.

    Raises:
        BadArchive: It is no zip archive of one file.
    """
    if compression is None:
        return stream
    return _Member(stream) if compression == "zip" else pa.CompressedInputStream(stream, compression)


class _Member:
    """The one file of a zip archive."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        try:
            archive = zipfile.ZipFile(stream)
            names = [i for i in archive.infolist() if not (i.is_dir() or i.filename.startswith("__MACOSX/"))]
            if len(names) != 1:
                some = ", ".join(repr(info.filename) for info in names[:5]) or "none"
                raise BadArchive(f"the zip archive holds {len(names)} files ({some}), not one")
            self._file = archive.open(names[0])
        except BadArchive:
            raise
        except Exception as err:  # whatever zipfile and its codecs say of a damaged or locked one
            if is_transport(err):
                raise
            raise BadArchive(f"the zip archive cannot be read: {err}") from err

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except Exception as err:  # as above; its checksum is compared at the end
            if is_transport(err):
                raise
            raise BadArchive(f"the zip archive cannot be read: {err}") from err

    def close(self) -> None:
        self._file.close()
        self._stream.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
