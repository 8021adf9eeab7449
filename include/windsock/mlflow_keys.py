"""The keys to MLflow's door: who asks, as what, until when; signed with a secret of their own.

Whoever starts a task signs a key for its model (``MLFLOW_TRACKING_TOKEN``, which MLflow's client sends by itself),
Airflow signs tickets for people, and ``windsock_mlflow`` reads all of them. A key of one kind is none of another.
"""

import time
import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from windsock.errors import WindsockError

VARIABLE = "MLFLOW_TRACKING_TOKEN"
"""From here MLflow's own client takes the key that it sends."""
TASK_KEY_SECONDS = 24 * 3600
"""Longer than the longest training and the longest wait of its pod (``blueprint.LONGEST_TRAINING``)."""
TICKET_SECONDS = 60
SESSION_SECONDS = 8 * 3600
_CLOCKS_DIFFER_SECONDS = 10
_ALGORITHM = "HS256"

Role = Literal["viewer", "op", "task"]


class Kind(StrEnum):
    """What a key is for."""

    KEY = "windsock-mlflow-key"
    """Sent with every call, by programs."""
    TICKET = "windsock-mlflow-ticket"
    """Changed once for a session, by a browser that comes from Airflow."""
    SESSION = "windsock-mlflow-session"
    """The browser's cookie."""


class KeyRefused(WindsockError):
    """A key is not ours, of another kind, or has run out."""


@dataclass(frozen=True)
class Caller:
    """Who asks MLflow for something."""

    name: str
    role: Role
    model: str = ""
    """A task's model: the only experiment and the only registered model that it may touch."""
    key_id: str = ""
    """Names the key itself, once it is signed."""


def sign(secret: str, kind: Kind, caller: Caller, seconds: float) -> str:
    """Return a key that holds for so many seconds from now."""
    import jwt  # trainers' images have none: they are given keys and sign none

    now = time.time()
    claims = {"sub": caller.name, "role": caller.role, "model": caller.model}
    times = {"iat": int(now), "exp": int(now + seconds), "jti": uuid.uuid4().hex}
    return jwt.encode({**claims, **times, "aud": kind.value}, secret, algorithm=_ALGORITHM)


def read(secret: str, kind: Kind, key: str) -> Caller:
    """Return who holds a key.

    Raises:
        KeyRefused: It is none of ours, of another kind, or has run out.
    """
    import jwt

    try:
        said = jwt.decode(
            key, secret, algorithms=[_ALGORITHM], audience=kind.value, leeway=_CLOCKS_DIFFER_SECONDS,
            options={"require": ["aud", "exp", "iat", "jti", "sub"]},
        )  # fmt: skip
        return Caller(str(said["sub"]), said["role"], str(said["model"]), str(said["jti"]))
    except jwt.ExpiredSignatureError as err:
        raise KeyRefused("The key has run out.") from err
    except (jwt.InvalidTokenError, KeyError) as err:
        raise KeyRefused("The key is none of this MLflow's.") from err


def task_key(secret: str, model: str, step: str) -> dict[str, str]:
    """Return the variable that lets a task of a model talk to MLflow; nothing where there is no secret to sign with."""
    if not secret:
        return {}
    return {VARIABLE: sign(secret, Kind.KEY, Caller(f"{model}.{step}", "task", model), TASK_KEY_SECONDS)}
