"""Faults of what lies outside, told from the errors of whichever library met them: a disk, an S3 object store.

Libraries report them as errors of a dozen kinds, most without address or reason. They are told apart where a step or a
command ends, so that nobody in between need know which library read or wrote: away or full (75, retry), or refused
(64, never).
"""

import errno
import os
from typing import Any

from windsock.errors import SpecError, UpstreamUnavailable, WindsockError
from windsock.redact import redact, redact_line

_DISK_FAULTS = (
    *(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)),
    *("database or disk is full", "attempt to write a readonly database", "disk I/O error"),  # SQLite's words
)
_LIMITS = {"connect_timeout": 5, "read_timeout": 15, "retries": {"mode": "standard", "total_max_attempts": 4}}
"""botocore's settings for S3: a request that fails is tried three times more, and one that hangs ends."""
_ROUNDS = 2
"""How often s3fs begins such a request anew if it got no answer at all: after two minutes it is told."""

_REFUSALS = {
    "RequestTimeTooSkewed": "The clock of this machine and the store's are too far apart. Set this one by NTP.",
    "InvalidAccessKeyId": "There is no such key. Check AWS_ACCESS_KEY_ID.",
    "SignatureDoesNotMatch": "The secret does not fit the key. Check AWS_SECRET_ACCESS_KEY.",
    "ExpiredToken": "The key has run out. Give the tasks a new one (AWS_SESSION_TOKEN goes with it).",
    "AccessDenied": "The key lacks this right. It needs to read, write, list and delete below the prefix.",
    "NoSuchBucket": "There is no such bucket. Check WINDSOCK_STORE, or the model's source.",
    "NotImplemented": "This store cannot do that. It has to know PUT with If-None-Match (docs/deploy.md).",
    "AuthorizationHeaderMalformed": "The region is another one. Set AWS_REGION.",
    "403": "Key or secret is wrong, the key lacks this right, or this machine's clock is off.",  # an answer to HEAD
}
_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "CredentialRetrievalError")
_MISTAKES = (*_CREDENTIALS, "ParamValidationError", "InvalidEndpointURL", "InvalidRegionError", "NoRegionError")


def file_system(url: str) -> tuple[Any, str]:
    """Return the file system of a folder or fsspec URL, and the path in it.

    None of its requests hangs for ever, unless fsspec is configured otherwise, and it never answers from memory what a
    folder holds: others write there.

    Raises:
        ValueError: There is no such scheme.
        ImportError: Its library is not here.
    """
    import fsspec

    fs, path = fsspec.core.url_to_fs(url)
    if fs.protocol[0] == "s3" and "config_kwargs" not in fs.storage_options:
        fs = type(fs)(**{**fs.storage_options, "config_kwargs": _LIMITS, "use_listings_cache": False})
        fs.retries = _ROUNDS
    return fs, path


def found_below(fs: Any, folder: str) -> dict[str, dict[str, Any]]:
    """Return path to what a file system says of it for each file below a folder, asked anew."""
    fs.invalidate_cache(folder)
    found = fs.find(folder, detail=True)
    # If a bucket's folder gets its first file between s3fs' two questions, it is found itself.
    return {path: info for path, info in found.items() if info["type"] != "directory"}


def fault_behind(err: BaseException | None) -> WindsockError | None:
    """Return what to raise for an error of any library if something outside is behind it, else None."""
    return _disk_fault(err) or _s3_fault(err)


def _disk_fault(err: BaseException | None) -> UpstreamUnavailable | None:
    """Return what to raise for an error of any library if a full or read-only disk is behind it, else None."""
    first = err
    for _ in range(10):
        if err is None or isinstance(err, WindsockError):
            return None
        text = " ".join(str(err).split())
        if fault := next((known for known in _DISK_FAULTS if known in text), None):
            where = err.filename if isinstance(err, OSError) and err.filename else type(first).__name__
            what = fault if isinstance(err, OSError) else text[:300].rstrip(".")
            return UpstreamUnavailable(
                f"{where}: {what}. Make room on that disk, or let this user write there, and run it again: nothing is "
                "half-written, and what is done already stays done."
            )
        err = err.__cause__ or err.__context__
    return None


def _s3_fault(err: BaseException | None) -> WindsockError | None:
    """Return what to raise for an error of any library if an object store's answer, or its silence, is behind it."""
    for _ in range(10):
        if err is None or isinstance(err, WindsockError):
            return None
        library = type(err).__module__.partition(".")[0]
        if library == "botocore":
            return _of_answer(err) if getattr(err, "response", None) else _of_client(err)
        if library == "aiohttp":
            return _away(err)
        err = err.__cause__ or err.__context__
    return None


def _of_answer(err: Any) -> WindsockError:
    """Judge what the store has answered (botocore's ClientError)."""
    answer: dict[str, Any] = err.response.get("Error", {})
    code, status = str(answer.get("Code", "")), int(err.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if (status >= 500 or status in (408, 429)) and code not in _REFUSALS:
        return _away(err)
    what = answer.get("BucketName") or answer.get("Resource")
    advice = _REFUSALS.get(code, f"It says: {redact_line(answer.get('Message') or err).rstrip('.')}.")
    asked = f"{err.operation_name} of {what}" if what else err.operation_name
    return SpecError(f"The object store at {_address()} refuses {asked}: {code}. {advice}")


def _of_client(err: BaseException) -> WindsockError:
    if type(err).__name__ not in _MISTAKES:
        return _away(err)
    advice = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" if type(err).__name__ in _CREDENTIALS else "Check AWS_*"
    return SpecError(
        f"The object store at {_address()} cannot be asked: {redact_line(err).rstrip('.')}. {advice} "
        "(docs/settings.md)."
    )


def _away(err: BaseException) -> UpstreamUnavailable:
    return UpstreamUnavailable(
        f"The object store at {_address()} gives no answer that helps: {redact_line(err).rstrip('.')}. Nothing is "
        "half-written. When it answers again, run it again."
    )


def _address() -> str:
    return redact(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS")
