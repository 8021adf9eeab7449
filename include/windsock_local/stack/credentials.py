"""Secrets of the embedded stack: made once, kept 0600, handed on by environment only."""

import base64
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from windsock.errors import UpstreamUnavailable
from windsock_local.stack.layout import Home

ADMIN_USER = "admin"
PASSWORDS_FILE = "airflow_passwords.json"


@dataclass(frozen=True)
class Credentials:
    """The generated secrets of one home."""

    admin_password: str = field(repr=False)
    fernet_key: str = field(repr=False)
    """Encrypts connections and variables in Airflow's database."""
    jwt_secret: str = field(repr=False)
    """Signs API tokens; the same in all Airflow processes."""
    api_secret_key: str = field(repr=False)
    passwords_file: Path
    """What Airflow's simple auth manager reads."""

    def values(self) -> list[str]:
        """Return every secret, for tests that look for leaks."""
        return [self.admin_password, self.fernet_key, self.jwt_secret, self.api_secret_key]


def load_or_create(home: Home) -> Credentials:
    """Return the secrets of a home, making those that are missing."""

    def keep(name: str, make: Callable[[], str]) -> str:
        path = home.secrets / name
        if not path.exists():
            _write_private(path, make())
        return path.read_text(encoding="utf-8").strip()

    password = keep("admin_password", lambda: secrets.token_urlsafe(15))
    passwords_file = home.secrets / PASSWORDS_FILE
    if not passwords_file.exists():
        _write_private(passwords_file, json.dumps({ADMIN_USER: password}))
    return Credentials(
        admin_password=password,
        fernet_key=keep("fernet_key", lambda: base64.urlsafe_b64encode(os.urandom(32)).decode()),
        jwt_secret=keep("jwt_secret", lambda: secrets.token_urlsafe(64)),
        api_secret_key=keep("api_secret_key", lambda: secrets.token_urlsafe(32)),
        passwords_file=passwords_file,
    )


def admin_password(home: Home) -> str:
    """Return the admin password of an existing home.

    Raises:
        UpstreamUnavailable: No stack was ever started there.
    """
    try:
        return (home.secrets / "admin_password").read_text(encoding="utf-8").strip()
    except OSError as err:
        raise UpstreamUnavailable(
            f"The admin password in {home.secrets} cannot be read: {err.strerror}. Start the stack with `windsock up`."
        ) from err


def too_open(home: Home) -> list[Path]:
    """Return the secret files and folders that others than their owner may read."""
    if not home.secrets.is_dir():
        return []
    return [p for p in (home.secrets, *sorted(home.secrets.iterdir())) if p.stat().st_mode & 0o077]


def _write_private(path: Path, text: str) -> None:
    # Born 0600 (never world-readable for an instant), whole or not at all.
    part = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
