"""The database of a shared study: Optuna's storage, one lock, and errors without secrets.

PostgreSQL in earnest; SQLite, with a lock file beside it, for several processes of one
machine. The lock belongs to a transaction of its own: when its holder dies, so does it,
and one that hangs is cut off by the server.
"""

from __future__ import annotations

import hashlib
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from windsock.errors import SpecError, UpstreamUnavailable

_PATIENCE_S = 120
_HANGING_S = 60
_CONNECT_S = 10
_SQLITE_PATIENCE_S = 60


class StudyDatabase:
    """One study in a database, made if it is not there yet."""

    def __init__(self, url: str, name: str, *, maximize: bool, heartbeat_s: int, grace_s: int) -> None:
        """Connect.

        Raises:
            SpecError: The URL is none, names a database of another kind, or its tables are of another Optuna.
            UpstreamUnavailable: The database cannot be reached.
        """
        import optuna
        import sqlalchemy

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._secret_free, self._secrets, self._file = _parsed(url)
        self._key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
        connect: dict[str, Any] = {"connect_timeout": _CONNECT_S, "keepalives_idle": 30, "keepalives_interval": 10}
        if self._file is not None:
            connect = {"timeout": _SQLITE_PATIENCE_S}
        with self.errors():
            self._locks = sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool, connect_args=connect)
            # Two processes that make the tables at once would trip over each other.
            with self.locked(), warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self.storage = optuna.storages.RDBStorage(
                    url,
                    engine_kwargs={"connect_args": connect, "pool_pre_ping": True},
                    heartbeat_interval=heartbeat_s,
                    grace_period=grace_s,
                )
                self.study = optuna.create_study(
                    study_name=name,
                    storage=self.storage,
                    direction="maximize" if maximize else "minimize",
                    load_if_exists=True,
                )
                self.id = self.storage.get_study_id_from_name(name)

    @contextmanager
    def locked(self) -> Iterator[float]:
        """Let no other process in meanwhile; gives the time by the database's clock, in s.

        Raises:
            UpstreamUnavailable: The database is away, or another process holds the lock for too long.
        """
        from sqlalchemy import text

        with self.errors(), _file_lock(self._file), self._locks.begin() as connection:
            if self._file is not None:
                yield time.time()
                return
            connection.execute(text(f"SET LOCAL lock_timeout = '{_PATIENCE_S}s'"))
            connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{_HANGING_S}s'"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": self._key})
            yield float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn the database's errors into ours; the password of the URL is in none of them."""
        import optuna
        import sqlalchemy.exc

        try:
            yield
        except ImportError as err:
            raise SpecError(
                f"WINDSOCK_STUDIES: {self._secret_free} needs a driver that is not installed ({err.name}). "
                "Use postgresql+psycopg2://."
            ) from None
        except sqlalchemy.exc.ArgumentError as err:  # also: no such dialect or driver
            raise SpecError(
                f"WINDSOCK_STUDIES: {self._secret_free} cannot be used: {self._clean(err)}. Use postgresql+psycopg2://."
            ) from None
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as err:
            cause = err.__cause__ if isinstance(err, optuna.exceptions.StorageInternalError) else err
            raise UpstreamUnavailable(
                f"The database of shared studies, {self._secret_free}, does not answer as it should: "
                f"{self._clean(cause or err)}. See that it runs and can be reached from here; the search goes on "
                "where it stopped."
            ) from None
        except RuntimeError as err:
            if "optuna storage upgrade" not in str(err):
                raise
            raise SpecError(
                f"The database of shared studies, {self._secret_free}, holds tables of another Optuna: "
                "run 'optuna storage upgrade' for it, or name another database in WINDSOCK_STUDIES."
            ) from None

    def _clean(self, err: BaseException) -> str:
        said = " ".join(str(getattr(err, "orig", None) or err).split())[:300]
        for secret in self._secrets:
            said = said.replace(secret, "***")
        return f"{type(err).__name__}: {said}".rstrip(".")


def _parsed(url: str) -> tuple[str, list[str], str | None]:
    """Return the URL without its password, what must not be said, and the file if it is SQLite."""
    import sqlalchemy.exc

    try:
        parsed = sqlalchemy.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise SpecError(
            "WINDSOCK_STUDIES is no database URL (it is not shown here: it may hold a password). "
            "It looks like postgresql+psycopg2://user:password@host:5432/studies."
        ) from None
    shown = parsed.set(query={}).render_as_string(hide_password=True)
    kind = parsed.get_backend_name()
    if kind not in ("postgresql", "sqlite") or (kind == "sqlite" and parsed.database in (None, "", ":memory:")):
        raise SpecError(
            f"WINDSOCK_STUDIES: {shown} cannot be shared by several trainers. Name a PostgreSQL, "
            "such as postgresql+psycopg2://user:password@host:5432/studies."
        )
    secrets = [str(parsed.password)] if parsed.password else []
    given = re.search(r"//[^:/@]*:(.*)@", url)  # as it was written: with % in place of some signs
    secrets += [given.group(1)] if given and given.group(1) else []
    secrets += [v for k, v in parsed.query.items() if "password" in k.lower() and isinstance(v, str) and v]
    return shown, secrets, parsed.database if kind == "sqlite" else None


@contextmanager
def _file_lock(database: str | None) -> Iterator[None]:
    if database is None:
        yield
        return
    import fcntl

    with open(f"{database}.lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
