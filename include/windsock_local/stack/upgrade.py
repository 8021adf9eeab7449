"""An installation that an earlier Windsock left, brought to this one: a backup, then databases, store and home.

The markers of store and home say ``upgrading`` from before the first change until after the last. Whoever is cut off
is refused by every command but this one, which goes on where it was: each step is safe to repeat.
"""

import shlex
import signal
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

from windsock import __version__, store_upgrade
from windsock.backup.target import Manifest, Target
from windsock.errors import SpecError, WindsockError
from windsock.format_numbers import NEWEST, UPGRADING, WROTE, layout
from windsock.settings import Settings
from windsock.store import Store
from windsock_local.stack import processes
from windsock_local.stack.backup import BACKUPS, DUMPS, Tick, back_up, is_embedded
from windsock_local.stack.database import database_alone, home_at_rest
from windsock_local.stack.environment import airflow_variables, mlflow_env, part_env
from windsock_local.stack.home import Home
from windsock_local.stack.parts import module
from windsock_local.stack.postgres import DATABASES, Postgres
from windsock_local.stack.probes import AIRFLOW_PORT, MLFLOW_PORT

_NO_BACKUP = "none"
STORE, HOME = "store", "home"

Backup = tuple[Manifest, Target]


def to_do(settings: Settings) -> dict[str, str]:
    """Return what an upgrade has to bring to this version, with a sentence each, in its order; nothing is changed.

    Raises:
        SpecError: A later version wrote something of it.
    """
    home, found = Home.of(settings), dict[str, str]()
    Store.of(settings).look(earlier=True)
    home.look(earlier=True)
    said = home.said()
    earlier = layout(HOME, said) < NEWEST[HOME] or UPGRADING in said
    if is_embedded(home):
        server = Postgres(home)
        server.refuse_others(earlier=True)
        for name, package in DATABASES.items():
            had, here = server.tables_of(name), version(package)
            if had != here and (had or earlier):
                found[name] = f"database {name}: from {package} {had or 'of a version that is not known'} to {here}"
    if store_upgrade.is_earlier(settings):
        found[STORE] = _from_to(STORE, Store.of(settings).said())
    if earlier:
        found[HOME] = _from_to(HOME, said)
    return found


def _from_to(kind: str, marker: Mapping[str, object]) -> str:
    had = f"format {layout(kind, marker)} (Windsock {marker.get(WROTE, '')})"
    return f"{kind}: from {had} to format {NEWEST[kind]} (Windsock {__version__})"


def is_begun(settings: Settings) -> bool:
    """Say whether an upgrade was cut off."""
    return bool(_notes(settings))


def backup_of(settings: Settings) -> Backup | None:
    """Return the backup from before an upgrade that was cut off; None: none was taken.

    Raises:
        SpecError: It is not where it was.
    """
    place, _, name = _notes(settings)[0].rpartition(" ")
    return (Target(place).manifest(name), Target(place)) if place else None


def _notes(settings: Settings) -> list[str]:
    said = (Store.of(settings).said(), Home.of(settings).said())
    return [str(marker[UPGRADING]) for marker in said if UPGRADING in marker]


def back_up_first(settings: Settings, target: str | None, tick: Tick) -> Backup:
    """Take the backup from before, by default into the home.

    Raises:
        SpecError: The home is that of a container, and goes with it.
        UpstreamUnavailable: A stack runs in the home.
    """
    home = Home.of(settings)
    if target is None and not is_embedded(home):
        raise SpecError(
            f"Where does the backup go? The databases lie outside the home {home.root}, which may be a container's and "
            "go with it. Name a place with --backup, a bucket for instance, or say --no-backup."
        )
    if is_embedded(home):
        with home_at_rest(home):  # else first a backup under load, and then a refusal
            pass
    place = Target(target or str(home.root / BACKUPS))
    return back_up(settings, place, tick), place


def way_back(made: Manifest, place: Target) -> list[str]:
    """Return the commands that bring back what a backup holds; what is there by then is moved away, not lost.

    A home without databases, a container's, stays as it is.
    """
    home, store, target, lines = Path(made.home), made.store, str(place), list[str]()
    if embedded := bool(made.part(DUMPS)):
        lines.append(f"mv {shlex.quote(str(home))} {shlex.quote(f'{home}.upgraded')}")
        if place.store.is_local and home in Path(target).parents:
            target = str(Path(f"{home}.upgraded") / Path(target).relative_to(home))
    if "://" in store:
        lines.append(f"# empty {store}, or name an empty place in the next line")
    elif not embedded or home not in Path(store).parents:
        lines.append(f"mv {shlex.quote(store)} {shlex.quote(f'{store}.upgraded')}")
    which = f"--home {shlex.quote(str(home))}" if embedded else "--only store"
    restoring = f"windsock restore {shlex.quote(target)} --backup {made.made_at} {which}"
    return [*lines, f"WINDSOCK_STORE={shlex.quote(store)} {restoring}"]


def upgrade(settings: Settings, before: Backup | None, tick: Tick) -> None:
    """Bring an installation to this version, or go on with that; ``before`` is the backup from before, if there is one.

    Raises:
        UpstreamUnavailable: A stack runs in the home.
        WindsockError: A database could not be migrated.
    """
    home, wanted = Home.of(settings), to_do(settings)
    note = f"{before[1]} {before[0].made_at}" if before is not None else _NO_BACKUP
    note = next(iter(_notes(settings)), note)
    with ExitStack() as held:
        if is_embedded(home):
            held.enter_context(home_at_rest(home))
            home.create(earlier=True)
            home.mark({**home.said(), UPGRADING: note})
        if STORE in wanted:
            store_upgrade.begin(settings, note)
        if databases := [name for name in DATABASES if name in wanted]:
            with database_alone(home) as server:
                for done, name in enumerate(databases, start=1):
                    _migrate(settings, server, name)
                    server.note_migrated(name)
                    tick("databases", done, len(databases))
        if STORE in wanted:
            store_upgrade.finish(settings)
            tick(STORE, 1, 1)
        if home.marker.exists():
            home.mark()


def _migrate(settings: Settings, server: Postgres, database: str) -> None:
    """Bring a database's tables to those of the installed package, by the package's own migrations."""
    home, url = Home.of(settings), server.url(database)
    if database == "airflow":
        command = module("airflow", "db", "migrate")
        airflow = airflow_variables(home, port=AIRFLOW_PORT, database_url=url, environ={})
        env = part_env(settings, airflow_url="", mlflow_url="", airflow=airflow)
    else:
        command = module("windsock_mlflow.schema")
        env = mlflow_env(home, database_url=url, airflow_url="", port=MLFLOW_PORT)
    log_file = home.log(f"{database}-migration")
    process = processes.spawn(
        command, env={**env, processes.MARKER_VARIABLE: str(home.root)}, log_file=log_file, cwd=home.airflow
    )
    try:
        code = process.wait()
    finally:
        processes.end(processes.session_members(process.pid), signal.SIGKILL, wait_seconds=5)
    if code != 0:
        raise WindsockError(
            f"The database {database!r} could not be migrated (exit code {code}). The end of "
            f"{log_file}:\n{processes.log_tail(log_file)}"
        )
