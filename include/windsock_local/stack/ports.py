"""Choosing loopback ports: the usual one if it is free, else any free one."""

import socket

from windsock.errors import SpecError

HOST = "127.0.0.1"
AIRFLOW_PORT = 8080
MLFLOW_PORT = 5000


def is_free(port: int) -> bool:
    """Whether nothing listens on this port of the loopback interface."""
    try:
        socket.create_server((HOST, port), backlog=1).close()
    except OSError:
        return False
    return True


def choose(usual: int, *, wanted: int | None, option: str, taken: frozenset[int] = frozenset()) -> int:
    """Return the usual port, or a free one in its place; what the user ``wanted`` is never replaced.

    Raises:
        SpecError: The explicitly wanted port is in use.
    """
    port = wanted or usual
    if port not in taken and is_free(port):
        return port
    if wanted:
        raise SpecError(
            f"Port {wanted} ({option}) is in use on {HOST}. Name another port, or leave {option} away "
            "and a free one is chosen."
        )
    while port in taken or not is_free(port):
        with socket.create_server((HOST, 0)) as probe:
            port = int(probe.getsockname()[1])
    return port
