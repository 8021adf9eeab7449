"""Places of deliveries: a path or URL becomes a file system and a path in it; what goes wrong becomes our errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from windsock.errors import SpecError, UpstreamUnavailable, WindsockError
from windsock.faults import fault_behind, file_system
from windsock.ingest.sources.delivery import NotDelivered
from windsock.ingest.sources.parse import Allowance, Unreadable
from windsock.redact import redact, redact_line
from windsock.spec import ModelSpec


def locate(spec: ModelSpec, url: str) -> str:
    """Return a URL as it is, and a path as absolute, relative ones from the model's folder."""
    if "://" in url or "::" in url:
        return url
    return str(spec.folder / Path(url).expanduser())


@contextmanager
def opening(url: str) -> Iterator[tuple[Any, str]]:
    """Resolve a URL to ``(file system, path)`` and turn what goes wrong inside into our errors.

    The original errors are not chained: they may quote the URL with its secrets.

    Raises:
        NotDelivered: The file is not there.
        UpstreamUnavailable: It cannot be reached.
        SpecError: There is no such file system, or a folder stands there.
    """
    shown = redact(url)
    try:
        try:
            fs, path = file_system(url)
        except (ValueError, ImportError) as err:
            raise SpecError(
                f"source.url {shown!r} cannot be used: {redact_line(err)}. Give a path or an fsspec URL."
            ) from None
        yield fs, path
    except (WindsockError, Unreadable):
        raise
    except FileNotFoundError as err:
        if isinstance(err.__cause__, OSError) and not isinstance(err.__cause__, FileNotFoundError):
            raise _away(shown, err.__cause__) from None  # so says fsspec of a web server that does not answer
        raise NotDelivered(
            f"{shown} does not exist (yet). If it will not come, check its url in the model's model.yaml."
        ) from None
    except IsADirectoryError:
        raise SpecError(
            f"{shown} is a folder, not a file. Name one file, or one a day with {{ds}}; a folder of part files a day "
            "ends with /."
        ) from None
    except Exception as err:
        raise fault_behind(err) or _away(shown, err) from None


def _away(shown: str, err: BaseException) -> UpstreamUnavailable:
    return UpstreamUnavailable(
        f"{shown} cannot be read now: {type(err).__name__}: {redact_line(err)}. "
        "Check the address and the access rights, then run the step again."
    )


def allowance(spec: ModelSpec) -> Allowance:
    """Return how much a delivery of a model may hold."""
    return Allowance(spec.validation.max_bytes, spec.validation.max_rows)


def read_file(fs: Any, path: str, allowed: Allowance) -> bytes:
    """Return a file's bytes.

    Raises:
        Unreadable: There are more than are allowed.
    """
    if (size := fs.info(path)["size"]) is not None:
        allowed.take(n_bytes=size)
        return bytes(fs.cat_file(path))
    blocks = []
    with fs.open(path, "rb") as file:  # a web server need not say how long a file is
        while block := bytes(file.read(1 << 20)):
            allowed.take(n_bytes=len(block))
            blocks.append(block)
    return b"".join(blocks)
