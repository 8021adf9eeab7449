"""The embedded stack's scheduler process: import the ML libraries, wait, then schedule.

The imports take longest of all at boot and need no database: this process starts first and imports while the tables
are made; the word to go on is a line on stdin.
"""

import sys

from airflow.__main__ import main as airflow_main
from airflow.cli.commands import scheduler_command  # noqa: F401  # loaded now, not after the word

from windsock_airflow.warm_executor import warm_up


def main() -> None:
    """Warm up, wait for a line on stdin (or its end), run ``airflow scheduler``."""
    warm_up()
    if not sys.stdin.readline():
        sys.exit("Nobody is there to say when the database is ready: not started by `windsock up`?")
    # The log server would listen on every interface; the UI reads local files instead.
    sys.argv = ["airflow", "scheduler", "--skip-serve-logs"]
    airflow_main()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
