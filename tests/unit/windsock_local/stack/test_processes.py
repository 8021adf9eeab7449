"""Children end with their parent, and families are found whole."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from windsock_local.stack.home import PartInfo
from windsock_local.stack.processes import MARKER_VARIABLE, birth, end, family, session_members, spawn

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
STUBBORN = [
    *(sys.executable, "-S", "-c"),
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('set', flush=True); time.sleep(60)",
]
PARENT_OF_ONE = """
import os, sys, time
from pathlib import Path
from windsock_local.stack.processes import spawn
folder = Path(sys.argv[1])
child = spawn(["sleep", "60"], env=os.environ, log_file=folder / "log", cwd=folder)
print(child.pid, flush=True)
time.sleep(60)
"""


def ends_soon(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT_OF_ONE, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child_pid = int(parent.stdout.readline())

    parent.kill()
    parent.wait(5)
    parent.stdout.close()

    assert ends_soon(child_pid)


def test_an_identity_is_not_fooled_by_a_reused_number() -> None:
    born = birth(os.getpid())

    assert PartInfo(os.getpid(), born, 0.0).process == psutil.Process()
    assert PartInfo(os.getpid(), born - 1, 0.0).process is None


def test_a_zombie_counts_as_dead(tmp_path: Path) -> None:
    child = spawn(["true"], env=os.environ, log_file=tmp_path / "log", cwd=tmp_path)
    part = PartInfo(child.pid, birth(child.pid), 0.0)

    assert ends_soon(child.pid)
    assert part.process is None
    child.wait(5)


def test_a_marked_process_is_found_though_it_left_the_family(tmp_path: Path) -> None:
    stray = subprocess.Popen(SLEEP, env={**os.environ, MARKER_VARIABLE: str(tmp_path)}, start_new_session=True)
    other = subprocess.Popen(SLEEP, env={**os.environ, MARKER_VARIABLE: str(tmp_path / "other")})
    try:
        assert [p.pid for p in family(tmp_path)] == [stray.pid]
    finally:
        for process in (stray, other):
            process.kill()
            process.wait(5)


def test_a_session_is_found_after_its_leader_died(tmp_path: Path) -> None:
    command = [sys.executable, "-S", "-c", "import os, time; os.fork() or time.sleep(60)"]
    leader = spawn(command, env=os.environ, log_file=tmp_path / "log", cwd=tmp_path)
    leader.wait(5)

    members = session_members(leader.pid)

    assert len(members) == 1
    assert end(members, signal.SIGKILL, wait_seconds=5) == []


def test_end_reports_those_that_do_not_listen() -> None:
    stubborn = subprocess.Popen(STUBBORN, stdout=subprocess.PIPE)
    assert stubborn.stdout is not None
    stubborn.stdout.readline()
    process = psutil.Process(stubborn.pid)

    assert end([process], signal.SIGTERM, wait_seconds=0.3) == [process]
    assert end([process], signal.SIGKILL, wait_seconds=5) == []
    stubborn.wait(5)
    stubborn.stdout.close()
