"""What version 0.1 left is upgraded by one command, killed anywhere in it, and brought back byte for byte.

Its Airflow is set back to 3.2 first, by Airflow's own migrations. That it goes on afterwards, with days, trainings and
rollbacks, is shown by ``test_carried_over_from_0_1``, which begins with the same upgrade.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fixture_v0_1 import database, set_airflow_back, sql, unpack
from kill import DieAt, run_in_child
from windsock import store
from windsock.cli import main
from windsock.errors import SpecError
from windsock.settings import Settings
from windsock.store import Store
from windsock_local.stack.database import home_at_rest
from windsock_local.stack.home import Home

pytestmark = pytest.mark.integration

OLD_AIRFLOW = "3.2.0"
UPGRADE = "windsock_local.stack.upgrade"
PLACES = [
    DieAt("windsock.backup.target:Target.finish"),
    DieAt("windsock.store_upgrade:begin", after=True),
    DieAt("windsock_local.stack.processes:spawn", after=True),  # Airflow's migration has begun
    DieAt(f"{UPGRADE}:_migrate", call=1, after=True),
    DieAt(f"{UPGRADE}:_migrate", call=1, after=True),  # now it is MLflow's
    DieAt("windsock.ledger:Ledger.publish", call=20, after=True),
    DieAt("windsock.store_upgrade:finish", after=True),
]
BEFORE_THE_FIRST_CHANGE = 1
"""So many of the places."""


@pytest.fixture
def afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has looked at no store yet."""
    monkeypatch.setattr(store, "_opened", set())
    monkeypatch.setattr(store, "_marked", set())


@pytest.fixture
def left() -> Iterator[Settings]:
    """The installation as 0.1 left it, at rest."""
    folder = Path(tempfile.mkdtemp(prefix="windsock-"))  # short: a socket's name may have 107 bytes
    settings = unpack(folder / "home")
    with database(settings) as server:
        set_airflow_back(settings, server, OLD_AIRFLOW)
    yield settings
    shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Upgrade:
    """The command, to be run in another process."""

    home: Path

    def __call__(self) -> None:
        assert main(["upgrade", "--home", str(self.home)]) == 0


def open_it(settings: Settings) -> None:
    """Open home and store, as `windsock up` does."""
    Home.of(settings).look()
    Store.of(settings).look()


def files(settings: Settings) -> dict[str, str]:
    """Return path to hash of all that an installation keeps but its databases: the store, keys, artifacts, models."""
    made_by_a_stack = ("postgres", "run", "logs", "airflow", "backups", "feast/online.db")
    found = {}
    for path in sorted(settings.home.rglob("*")):
        name = str(path.relative_to(settings.home))
        if path.is_file() and not name.startswith(made_by_a_stack) and not name.endswith(".tmp"):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def tables(settings: Settings) -> dict[str, str]:
    """Return what the databases hold, as text."""
    asked = {
        "airflow": "select dag_id, run_id, state from dag_run order by 1, 2",
        "mlflow": "select name, version, run_id from model_versions order by 1, 2",
    }
    with database(settings) as server:
        return {
            name: sql(server, name, "select * from alembic_version") + sql(server, name, query)
            for name, query in asked.items()
        }


def windsock(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a person does."""
    command = [sys.executable, "-P", "-m", "windsock.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.kill
@pytest.mark.usefixtures("afresh")
def test_killed_anywhere_it_goes_on_and_the_way_back_that_it_prints_brings_back_what_was(
    left: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    was, held, home = files(left), tables(left), Home.of(left)
    at_home = ("--home", str(left.home))
    assert main(["upgrade", "--check", *at_home]) == 1
    assert files(left) == was
    with home_at_rest(home):  # as a stack does that runs
        assert main(["upgrade", *at_home]) == 75
    assert not (left.home / "backups").exists()

    for number, place in enumerate(PLACES):
        run_in_child(Upgrade(left.home), place)
        monkeypatch.setattr(store, "_opened", set())
        told = (
            "half upgraded: .*`windsock upgrade.* again"
            if number >= BEFORE_THE_FIRST_CHANGE
            else "Run `windsock upgrade"
        )
        with pytest.raises(SpecError, match=told):
            open_it(left)
        assert main(["up", *at_home]) == 64
    done = windsock("upgrade", *at_home)
    assert done.returncode == 0, done.stderr
    assert "was begun before, and goes on" in done.stdout
    assert main(["upgrade", "--check", *at_home]) == 0
    now, holds = files(left), tables(left)
    assert {name for name, hashed in was.items() if now.get(name) != hashed} == {home.marker.name}
    assert len([name for name in now.keys() - was.keys() if "/ledger/features/" in name]) > 40
    assert {name: text.split("\n", 1)[1] for name, text in holds.items()} == {
        name: text.split("\n", 1)[1] for name, text in held.items()
    }
    assert holds["airflow"] != held["airflow"]

    lines = [line.strip() for line in done.stdout.splitlines() if line.startswith("  ")]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    back = subprocess.run(
        ["bash", "-ec", "\n".join(lines)], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert back.returncode == 0, back.stderr
    assert "go on with Windsock 0.1." in back.stdout
    assert files(left) == was
    assert tables(left) == held
    forward = windsock("upgrade", "--no-backup", *at_home)
    assert forward.returncode == 0, forward.stderr
    assert not (left.home / "backups").exists()
