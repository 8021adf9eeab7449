"""Fixtures of the whole test session, and how its processes share the tests."""

import gc
import os
import shutil
from pathlib import Path
from typing import Any

import psutil
import pytest
from xdist.scheduler import LoadScopeScheduling

from examples import load_profile
from stack_fixture import end_shared_stack, slack, stack

__all__ = ["slack", "stack"]

STACKS = STACK, OTHER_STACK = "a stack", "another stack"
CLUSTER = "the cluster"
TOGETHER = {
    "tests/chart/test_installed.py": CLUSTER,
    "tests/kubernetes": CLUSTER,
    "tests/ui": STACK,
    "tests/integration/test_chain.py": STACK,
    "tests/integration/test_commands_elsewhere.py": STACK,
    "tests/integration/test_edited_model.py": OTHER_STACK,
    "tests/integration/test_label_file_runs.py": OTHER_STACK,
    "tests/integration/test_recovery_runs.py": OTHER_STACK,
    "tests/integration/test_second_model.py": OTHER_STACK,
    "tests/integration/test_stack.py": STACK,
}
"""Folders and files whose tests share one thing; every other file is a group of its own.

Two stacks at a time: on one, tests that mostly wait would follow each other for a quarter of an hour.
"""
ENDS_THE_STACK = "tests/integration/test_stack.py"
"""Comes last of those that share the stack."""
LONGEST_FIRST = (
    CLUSTER,
    OTHER_STACK,
    STACK,
    "tests/compose",
    "tests/integration/test_days_made_up_for.py",
    "tests/integration",
    "tests/unit/ingest/test_ingest_kills.py",
    "tests/unit/promotion",
    "tests/unit/registry",
    "tests/unit/scoring",
    "tests/unit/featurestore",
    "tests/unit/features",
    "tests/unit/windsock_local",
    "tests/unit/monitoring",
)
"""Groups, or what their names begin with, that would keep one process busy at the end were they begun late."""
MEMORY = Path("/dev/shm")
BYTES_IN_MEMORY = 8 << 30
"""What tests write lies in memory if so much is free there: a tenth less work, most of it the disk's."""
MOST_PROCESSES = 8
BYTES_PER_PROCESS = 3 << 30
"""With the stack that one of them may start, or the children of its tests."""

load_profile()
if MEMORY.is_dir() and min(shutil.disk_usage(MEMORY).free, psutil.virtual_memory().available) > BYTES_IN_MEMORY:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
gc.disable()  # what tests import stays: to look for garbage in it is a tenth of the time that collecting them takes


def group_of(nodeid: str) -> str:
    """Return the name of the tests that run one after another in the same process as this one."""
    file = nodeid.partition("::")[0]
    folder = "/".join(file.split("/")[:2])
    return TOGETHER.get(file) or TOGETHER.get(folder) or file


def turn_of(nodeid: str) -> int:
    """Return when a test's group is to begin."""
    group = group_of(nodeid)
    return next((n for n, name in enumerate(LONGEST_FIRST) if group.startswith(name)), len(LONGEST_FIRST))


class Sharing(LoadScopeScheduling):
    """Whole groups go to a process."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Sharing:
    return Sharing(config, log)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return one process more than there are cores, as tests also wait, but no more than memory carries."""
    carried = psutil.virtual_memory().available // BYTES_PER_PROCESS
    return max(1, min(len(os.sched_getaffinity(0)) + 1, MOST_PROCESSES, carried))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: (turn_of(item.nodeid), item.nodeid.startswith(ENDS_THE_STACK)))


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    group = group_of(item.nodeid)
    if group in STACKS and (nextitem is None or group_of(nextitem.nodeid) != group):
        end_shared_stack()
