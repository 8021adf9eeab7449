"""Is this machine fit to run the stack? Each check ends in a next step."""

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import psutil

from windsock.errors import WindsockError
from windsock.settings import REPO_ROOT, Settings
from windsock_local.stack import credentials, health, ports
from windsock_local.stack.layout import Home, refuse_unsafe_home
from windsock_local.stack.postgres import Postgres
from windsock_local.stack.state import read_stack

Verdict = Literal["ok", "warning", "problem"]

_LEAST_DISK_GB, _AMPLE_DISK_GB = 2.0, 10.0
_LEAST_MEMORY_GB, _AMPLE_MEMORY_GB = 2.0, 4.0
_GB = 1024**3
_MOST_NAMED = 5


@dataclass(frozen=True)
class Check:
    """The outcome of one check."""

    name: str
    verdict: Verdict
    finding: str
    next_step: str = ""


def examine(settings: Settings) -> list[Check]:
    """Run every check; a check that breaks down is itself reported as a problem."""
    results: list[Check] = []
    for check in _CHECKS:
        try:
            results.extend(check(settings))
        except Exception as err:
            # A doctor must not die of what it finds.
            name = check.__name__.strip("_").replace("_", " ")
            finding = f"{type(err).__name__}: {err}"
            results.append(Check(name, "problem", finding, "Read the message; it names the cause."))
    return results


def _python(_settings: Settings) -> Iterator[Check]:
    found = platform.python_version()
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        yield Check("python", "ok", f"{found} at {sys.executable}")
    else:
        yield Check("python", "problem", found, "Use Python 3.11 to 3.13: `make clean && make demo` brings its own.")
    if sys.platform != "linux":
        step = "Linux is what is tested; after a kill -9 of the stack run `windsock down`."
        yield Check("system", "warning", platform.system(), step)


def _versions(_settings: Settings) -> Iterator[Check]:
    lock = REPO_ROOT / "requirements.txt"
    if not lock.is_file():
        yield Check("versions", "warning", f"no lock at {lock}", "Run from a checkout to compare versions.")
        return
    wrong = list(_wrong_versions(lock.read_text(encoding="utf-8")))
    if wrong:
        more = f" and {len(wrong) - _MOST_NAMED} more" if len(wrong) > _MOST_NAMED else ""
        yield Check("versions", "warning", ", ".join(wrong[:_MOST_NAMED]) + more, f"pip install -r {lock.name}")
    else:
        yield Check("versions", "ok", "as the lock says")


def _wrong_versions(lock: str) -> Iterator[str]:
    """Yield the pinned packages without a marker whose installed version is another; local versions are the same."""
    for line in lock.splitlines():
        name, separator, rest = line.split("#")[0].partition("==")
        if not separator or ";" in line:
            continue
        wanted = rest.strip(" \\")
        try:
            found = metadata.version(name.split("[")[0].strip())
        except metadata.PackageNotFoundError:
            found = "missing"
        if found.split("+")[0] != wanted.split("+")[0]:
            yield f"{name.strip()} {found} instead of {wanted}"


def _graded(name: str, free_gb: float, least: float, ample: float, finding: str, step: str) -> Check:
    verdict: Verdict = "ok" if free_gb >= ample else "warning" if free_gb >= least else "problem"
    return Check(name, verdict, f"{free_gb:.1f} GB {finding}", "" if verdict == "ok" else step)


def _memory(_settings: Settings) -> Iterator[Check]:
    free = psutil.virtual_memory().available / _GB
    step = f"Close programs: the stack and a training want {_AMPLE_MEMORY_GB:.0f} GB."
    yield _graded("memory", free, _LEAST_MEMORY_GB, _AMPLE_MEMORY_GB, f"available, {os.cpu_count()} cores", step)


def _disk(settings: Settings) -> Iterator[Check]:
    folder = _existing(settings.home)
    free = shutil.disk_usage(folder).free / _GB
    step = "Free some space, or put the home elsewhere with WINDSOCK_HOME."
    yield _graded("disk", free, _LEAST_DISK_GB, _AMPLE_DISK_GB, f"free at {folder}", step)


def _home(settings: Settings) -> Iterator[Check]:
    try:
        refuse_unsafe_home(settings.home)
    except WindsockError as err:
        yield Check("home", "problem", str(settings.home), str(err))
        return
    if os.access(_existing(settings.home), os.W_OK):
        yield Check("home", "ok", str(settings.home))
    else:
        yield Check("home", "problem", f"{settings.home} is not writable", "Set WINDSOCK_HOME to a folder that is.")


def _database_programs(settings: Settings) -> Iterator[Check]:
    database = Postgres(Home.of(settings))
    finding = f"PostgreSQL 18, socket in {database.socket_folder}"
    yield Check("database", "ok", finding + (f", as user {database.user}" if database.user else ""))


def _ports(settings: Settings) -> Iterator[Check]:
    info = read_stack(settings)
    if info is not None:
        yield Check("ports", "ok", f"in use by this stack: {info.airflow_url}, {info.mlflow_url}")
        return
    taken = [port for port in (ports.AIRFLOW_PORT, ports.MLFLOW_PORT) if not ports.is_free(port)]
    if taken:
        finding = f"{', '.join(map(str, taken))} in use"
        yield Check("ports", "warning", finding, "Nothing to do: free ones are chosen and printed by `windsock up`.")
    else:
        yield Check("ports", "ok", f"{ports.AIRFLOW_PORT} and {ports.MLFLOW_PORT} are free")


def _secrets(settings: Settings) -> Iterator[Check]:
    home = Home.of(settings)
    open_ones = credentials.too_open(home)
    if open_ones:
        step = f"chmod -R go-rwx {home.secrets}"
        yield Check("secrets", "problem", f"others can read {', '.join(p.name for p in open_ones)}", step)
    else:
        yield Check("secrets", "ok", "private" if home.secrets.is_dir() else "none yet; `windsock up` makes them")


def _leftovers(settings: Settings) -> Iterator[Check]:
    left = health.leftovers(settings)
    if left:
        yield Check("leftovers", "warning", f"{left} database processes without a stack", "windsock down")
        return
    state = health.check(settings)
    if state.running and not state.healthy:
        bad = ", ".join(f"{p.name} is {p.health}" for p in state.parts if p.health != health.HEALTHY)
        yield Check("stack", "warning", bad, "Wait if it is starting; else read the log that `windsock status` names.")
    else:
        yield Check("stack", "ok", "runs and is well" if state.running else "not running, nothing left behind")


def _models(settings: Settings) -> Iterator[Check]:
    from windsock.spec import load_specs

    specs, broken = load_specs(settings)
    for fault in broken:
        yield Check("models", "problem", str(fault.error), "Mend the spec, then `windsock lint`.")
    if specs:
        yield Check("models", "ok", ", ".join(sorted(specs)))
    elif not broken:
        folders = ", ".join(map(str, settings.models))
        step = "Add a folder with a model.yaml, or set WINDSOCK_MODELS."
        yield Check("models", "warning", f"none in {folders}", step)


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


_CHECKS: list[Callable[[Settings], Iterator[Check]]] = [
    *(_python, _versions, _memory, _disk, _home, _database_programs, _ports, _secrets, _leftovers, _models)
]
