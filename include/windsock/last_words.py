"""What a container says when it fails: Kubernetes shows it as the pod's termination message."""

import contextlib
from pathlib import Path

TERMINATION_LOG = Path("/dev/termination-log")
_MOST_BYTES = 4000


def leave(message: str) -> None:
    """Write a sentence where Kubernetes looks for it; does nothing outside a pod."""
    if TERMINATION_LOG.exists():
        with contextlib.suppress(OSError):
            TERMINATION_LOG.write_bytes(message.encode()[:_MOST_BYTES])
