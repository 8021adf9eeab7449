"""Choosing loopback ports: the usual one if it is free, else any free one."""

from __future__ import annotations

import socket

from windsock.errors import SpecError

HOST = "127.0.0.1"
AIRFLOW_PORT = 8080
MLFLOW_PORT = 5000


def is_free(port: int) -> bool:
    """Whether nothing listens on this port of the loopback interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
        return True


def choose(usual: int, *, wanted: int | None, option: str, taken: frozenset[int] = frozenset()) -> int:
    """Return the port to use.

    Args:
        usual: Taken if free.
        wanted: The user's explicit choice; never replaced by another.
        option: The command-line option to name in a message.
        taken: Ports already promised to another part.

    Raises:
        SpecError: The explicitly wanted port is in use.
    """
    if wanted:
        if wanted in taken or not is_free(wanted):
            raise SpecError(
                f"Port {wanted} ({option}) is in use on {HOST}. Name another port, or leave {option} away "
                "and a free one is chosen."
            )
        return wanted
    if usual not in taken and is_free(usual):
        return usual
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((HOST, 0))
            port = int(probe.getsockname()[1])
        if port not in taken:
            return port
