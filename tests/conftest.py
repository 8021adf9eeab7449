"""Fixtures of the whole test session, and how two processes share its tests."""

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from stack_fixture import stack

__all__ = ["stack"]

TOGETHER = {"tests/integration": "one stack", "tests/ui": "one stack", "tests/kubernetes": "one cluster"}


class Sharing(LoadScopeScheduling):
    """Whole files go to a process; all that share the session's stack or the cluster go to the same one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return TOGETHER.get("/".join(file.split("/")[:2]), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Sharing:
    return Sharing(config, log)
