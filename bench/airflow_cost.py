"""``task`` and ``asset``: what the embedded Airflow adds to work, seen through its own times."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any

from bench.figures import Figure, say, spread
from bench.stack import BenchStack
from bench.world import Size
from windsock.errors import UpstreamUnavailable
from windsock_local.stack.airflow_api import AirflowApi

_RUN_S = 300.0
_DAG_S = 120.0


def run_task(stack: BenchStack, size: Size) -> Iterator[Figure]:
    """Measure trivial tasks, one after the other and side by side."""
    for dag_id, how in (("bench_sequence", "in sequence"), ("bench_parallel", "in parallel")):
        _unpause(stack.api, dag_id)
        say(f"task: {size.tasks} {how}, {size.stack_runs} runs after one to warm up ...")
        _seconds_per_task(stack.api, dag_id)
        cpu_began = stack.cpu_s()
        per_task = [_seconds_per_task(stack.api, dag_id) for _ in range(size.stack_runs)]
        cpu_s = (stack.cpu_s() - cpu_began) / (size.stack_runs * size.tasks)
        yield Figure(
            "task",
            f"one of {size.tasks} trivial tasks {how}, first start to last end",
            spread(per_task)["median"],
            stack.limit,
            context={
                "tasks": size.tasks,
                **spread(per_task),
                "cpu_s": cpu_s,
                "stack_boot_s": stack.boot_s,
                "login_page_s": stack.login_s,
            },
        )


def run_asset(stack: BenchStack, size: Size) -> Iterator[Figure]:
    """Measure from the end of a task that publishes a day to the start of the task that waits for it."""
    api = stack.api
    for dag_id in ("bench_producer", "bench_consumer"):
        _unpause(api, dag_id)
    keys = [(date(2026, 1, 1) + timedelta(days=n)).isoformat() for n in range(1 + size.asset_keys)]
    say(f"asset: {size.asset_keys} days handed on, one after the other, after one to warm up ...")
    _latency(api, keys[0])
    cpu_began = stack.cpu_s()
    latencies = [_latency(api, key) for key in keys[1:]]
    cpu_s = (stack.cpu_s() - cpu_began) / len(latencies)
    yield Figure(
        "asset",
        "end of the producing task to start of the consumer's task, one keyed event",
        spread(latencies)["median"],
        stack.limit,
        # Of both tasks and their runs, the idle loops between included.
        context={**spread(latencies), "cpu_s": cpu_s},
    )


def _unpause(api: AirflowApi, dag_id: str) -> None:
    api.wait_for_dag(dag_id, timeout_seconds=_DAG_S)
    api.set_paused(dag_id, False)


def _seconds_per_task(api: AirflowApi, dag_id: str) -> float:
    tasks = _finished(api, dag_id, api.trigger(dag_id))
    began, ended = min(_time(t, "start_date") for t in tasks), max(_time(t, "end_date") for t in tasks)
    return (ended - began).total_seconds() / len(tasks)


def _latency(api: AirflowApi, key: str) -> float:
    produced = _finished(api, "bench_producer", api.trigger("bench_producer", partition_key=key))
    consumed = _finished(api, "bench_consumer", _consumer_run(api, key))
    return (_time(consumed[0], "start_date") - _time(produced[0], "end_date")).total_seconds()


def _consumer_run(api: AirflowApi, key: str) -> str:
    deadline = time.monotonic() + _RUN_S
    while time.monotonic() < deadline:
        found = [run for run in api.runs("bench_consumer") if run.get("partition_key") == key]
        if found:
            return str(found[0]["dag_run_id"])
        time.sleep(0.5)
    raise UpstreamUnavailable(f"bench_consumer has no run for {key} after {_RUN_S:.0f} s: its event was lost.")


def _finished(api: AirflowApi, dag_id: str, run_id: str) -> list[dict[str, Any]]:
    run = api.wait_for_run(dag_id, run_id, timeout_seconds=_RUN_S)
    if run["state"] != "success":
        raise UpstreamUnavailable(f"{dag_id}: run {run_id} ended as {run['state']}; the figure would mean nothing.")
    return api.task_instances(dag_id, run_id)


def _time(task: dict[str, Any], name: str) -> datetime:
    return datetime.fromisoformat(task[name])
