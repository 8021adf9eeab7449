"""What ``windsock doctor`` looks at: is this machine fit, is the installation whole?"""

import os
import platform
import re
import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil

from windsock.errors import WindsockError
from windsock.redact import redact_line
from windsock.settings import REPO_ROOT, Settings
from windsock_local.stack import day_checks, mlflow_checks, probes, service_checks
from windsock_local.stack.day_checks import Findings
from windsock_local.stack.guardian import database_processes
from windsock_local.stack.health import HEALTHY, check
from windsock_local.stack.home import Home, read_stack, refuse_unsafe_home
from windsock_local.stack.postgres import Postgres

_LEAST_DISK_GB, _AMPLE_DISK_GB = 2.0, 10.0
_LEAST_MEMORY_GB, _AMPLE_MEMORY_GB = 2.0, 4.0
_GB = 1024**3
_MOST_NAMED = 5
_MOST_SECONDS = 10.0
"""For one check; the limits of the clients are shorter where they can be."""
_PIN = re.compile(r"^([\w.-]+)(?:\[\S*\])?==([^\s;+]+)(?:\+[^\s;]+)?(?: \\)?$", re.MULTILINE)


@dataclass(frozen=True)
class Check:
    """The outcome of one check: ``ok``, ``warning`` or ``problem``."""

    name: str
    verdict: str
    finding: str
    next_step: str = ""


def examine(settings: Settings) -> list[Check]:
    """Run every check that is about this installation; none takes long, and none dies of what it finds."""
    results: list[Check] = []
    service_checks.prepare(settings)
    for name, look in _CHECKS.items():
        if settings.elsewhere and name in _OF_A_STACK:
            continue
        unwell = {check.name for check in results if check.verdict == "problem"} & _NEEDS.get(name, set())
        found: list[tuple[str, ...]]
        if unwell:
            found = [("warning", f"not looked at: {', '.join(sorted(unwell))}", "Mend that first.")]
        else:
            found = within(_MOST_SECONDS, look, settings)
        results.extend(Check(name, *finding) for finding in found)
    return results


def within(seconds: float, look: Callable[[Settings], Findings], settings: Settings) -> list[tuple[str, ...]]:
    """Return what a check finds; after the given time, that it found nothing: who hangs may go on doing so alone."""
    found = list[tuple[str, ...]]()

    def run() -> None:
        try:
            found.extend(look(settings))
        except WindsockError as err:
            found.append(("problem", str(err), "Do what it says."))
        except Exception as err:  # every library has errors of its own
            found.append(("problem", f"{type(err).__name__}: {redact_line(err)}", "The message names the cause."))
        done.set()

    done = threading.Event()
    threading.Thread(target=run, daemon=True).start()
    if done.wait(seconds):
        return found
    return [
        *found,
        ("problem", f"no answer within {seconds:.0f} s", "See whether what it asks hangs: docs/runbook.md."),
    ]


def _python(_settings: Settings) -> Findings:
    found = platform.python_version()
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        yield "ok", f"{found} at {sys.executable}"
    else:
        yield "problem", found, "Use Python 3.11 to 3.13: `make clean && make demo` brings its own."


def _system(_settings: Settings) -> Findings:
    if platform.system() != "Linux":
        yield "problem", platform.system(), "Use Linux: the stack finds and ends its processes by Linux's means."


def _versions(_settings: Settings) -> Findings:
    lock = REPO_ROOT / "requirements.txt"
    if not lock.is_file():
        yield "warning", f"no lock at {lock}", "Run from a checkout to compare versions."
        return
    wrong = []
    for name, wanted in _PIN.findall(lock.read_text(encoding="utf-8")):  # local versions are the same
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            found = "missing"
        if found.split("+")[0] != wanted:
            wrong.append(f"{name} {found} instead of {wanted}")
    if wrong:
        more = [f"{len(wrong) - _MOST_NAMED} more"] if len(wrong) > _MOST_NAMED else []
        yield "warning", ", ".join(wrong[:_MOST_NAMED] + more), f"pip install -r {lock.name}"
    else:
        yield "ok", "as the lock says"


def _memory(_settings: Settings) -> Findings:
    free = psutil.virtual_memory().available / _GB
    step = f"Close programs: the stack and a training want {_AMPLE_MEMORY_GB:.0f} GB."
    yield _graded(free, _LEAST_MEMORY_GB, _AMPLE_MEMORY_GB, f"available, {os.cpu_count()} cores", step)


def _disk(settings: Settings) -> Findings:
    folder = _existing(settings.home)
    free = shutil.disk_usage(folder).free / _GB
    step = "Free some space, or put the home elsewhere with WINDSOCK_HOME."
    yield _graded(free, _LEAST_DISK_GB, _AMPLE_DISK_GB, f"free at {folder}", step)


def _graded(free_gb: float, least_gb: float, ample_gb: float, finding: str, step: str) -> tuple[str, ...]:
    verdict = "ok" if free_gb >= ample_gb else "warning" if free_gb >= least_gb else "problem"
    return verdict, f"{free_gb:.1f} GB {finding}", "" if verdict == "ok" else step


def _home(settings: Settings) -> Findings:
    try:
        refuse_unsafe_home(settings.home)
    except WindsockError as err:
        yield "problem", str(settings.home), str(err)
        return
    if os.access(_existing(settings.home), os.W_OK):
        yield "ok", str(settings.home)
    else:
        yield "problem", f"{settings.home} is not writable", "Set WINDSOCK_HOME to a folder that is."


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _database(settings: Settings) -> Findings:
    home = Home.of(settings)
    home.look()
    database = Postgres(home)
    database.refuse_others()
    user = f", as user {database.user}" if database.user else ""
    yield "ok", f"PostgreSQL 18, socket in {database.socket_folder}{user}"


def _ports(settings: Settings) -> Findings:
    info = read_stack(settings)
    usual = (probes.AIRFLOW_PORT, probes.MLFLOW_PORT)
    if info is not None:
        yield "ok", f"in use by this stack: {info.airflow_url}, {info.mlflow_url}"
    elif taken := [str(port) for port in usual if not probes.is_free(port)]:
        step = "Nothing to do: free ones are chosen and printed by `windsock up`."
        yield "warning", f"{', '.join(taken)} in use", step
    else:
        yield "ok", f"{probes.AIRFLOW_PORT} and {probes.MLFLOW_PORT} are free"


def _secrets(settings: Settings) -> Findings:
    home = Home.of(settings)
    if open_ones := home.open_secrets():
        names = ", ".join(path.name for path in open_ones)
        yield "problem", f"others can read {names}", f"chmod -R go-rwx {home.secrets}"
    else:
        yield "ok", "private" if home.secrets.is_dir() else "none yet; `windsock up` makes them"


def _stack(settings: Settings) -> Findings:
    state = check(settings)
    if not state.running and (left := len(database_processes(Home.of(settings)))):
        yield "warning", f"{left} database processes without a stack", "windsock down"
    elif state.running and not state.healthy:
        bad = ", ".join(f"{p.name} is {p.health}" for p in state.parts if p.health != HEALTHY)
        yield "warning", bad, "Wait if it is starting; else read the log that `windsock status` names."
    else:
        yield "ok", "runs and is well" if state.running else "not running, nothing left behind"


def _models(settings: Settings) -> Findings:
    from windsock.spec import load_specs

    specs, broken = load_specs(settings)
    for fault in broken.values():
        yield "problem", str(fault), "Mend the spec, then `windsock lint`."
    if specs:
        yield "ok", ", ".join(sorted(specs))
    elif not broken:
        folders = ", ".join(map(str, settings.models))
        yield "warning", f"none in {folders}", "Add a folder with a model.yaml, or set WINDSOCK_MODELS."


def _runs(settings: Settings) -> Findings:
    from windsock_local.stack.stuck_runs import stuck_runs

    stuck = list(stuck_runs(settings))
    yield from (("warning", *finding) for finding in stuck)
    if not stuck:
        yield "ok", "none is stuck"


_CHECKS: dict[str, Callable[[Settings], Findings]] = {
    "python": _python,
    "system": _system,
    "versions": _versions,
    "memory": _memory,
    "disk": _disk,
    "home": _home,
    "database": _database,
    "ports": _ports,
    "secrets": _secrets,
    "stack": _stack,
    "models": _models,
    "store": service_checks.check_store,
    "airflow": service_checks.check_airflow,
    "mlflow": mlflow_checks.check_mlflow,
    "online store": service_checks.check_online_store,
    "days": day_checks.check_dates,
    "gaps": day_checks.check_gaps,
    "runs": _runs,
    "champions": mlflow_checks.check_versions,
}
_OF_A_STACK = {"system", "versions", "memory", "disk", "database", "ports", "secrets", "stack"}
"""Checks of the embedded stack and its machine."""
_NEEDS = {
    "online store": {"store"},
    "days": {"store"},
    "gaps": {"store"},
    "runs": {"airflow", "store"},
    "champions": {"mlflow", "store"},
}
"""What has to be well, or a check would only say once more that it is not."""
