"""``python -m bench.task_limit SOCKET_FOLDER``: fork and exit when warm, and one commit on the stack's database."""

from __future__ import annotations

import json
import os
import statistics
import sys

from bench.figures import time_runs
from windsock_airflow.warm_executor import warm_up

_FORKS = 20
_COMMITS = 200


def main(socket_folder: str) -> None:
    """Print the medians as JSON."""
    import psycopg2  # type: ignore[import-untyped]

    warm_up()
    fork = statistics.median(time_runs(_fork_and_exit, _FORKS).seconds)
    connection = psycopg2.connect(host=socket_folder, user="postgres", dbname="postgres")
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("create table if not exists bench_limit (id int primary key, n int)")
        cursor.execute("insert into bench_limit values (1, 0) on conflict do nothing")
        update = "update bench_limit set n = n + 1 where id = 1"
        commit = statistics.median(time_runs(lambda: cursor.execute(update), _COMMITS).seconds)
        cursor.execute("drop table bench_limit")
    connection.close()
    result = {"seconds": fork + commit, "fork_ms": 1000 * fork, "commit_ms": 1000 * commit}
    sys.stdout.write(json.dumps(result) + "\n")


def _fork_and_exit() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


if __name__ == "__main__":
    main(sys.argv[1])
