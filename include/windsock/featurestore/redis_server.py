"""The Redis of ``feature_store.yaml``: how it is reached, what its errors mean, and how it is doing (``doctor``)."""

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from redis.backoff import ExponentialBackoff
from redis.cluster import RedisCluster
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
from redis.retry import Retry

from windsock.errors import SpecError, UpstreamUnavailable
from windsock.featurestore.repo import raw_config
from windsock.settings import Settings

_SECONDS_TO_ANSWER = {"socket_connect_timeout": 5, "socket_timeout": 30}
_SERVER = re.compile(r"[^:\s]+:\d{1,5}")


class RedisServer:
    """A client of Redis that waits a bounded time, and translates what goes wrong."""

    def __init__(self, config: Any, online: Any = None, *, tries: int = 4) -> None:
        """Connect as Feast would, by the ``connection_string`` of its configuration.

        Raises:
            SpecError: That names no server, or the login is refused.
            UpstreamUnavailable: It cannot be reached.
        """
        given = config.connection_string.split(",")
        servers = [part for part in given if "=" not in part]
        if not servers or not all(_SERVER.fullmatch(server) for server in servers):
            raise SpecError(
                "connection_string of feature_store.yaml (WINDSOCK_REDIS) has to begin with the server, then options: "
                "host:6379,db=0,password=... (docs/settings.md)."
            )
        self.address = f"Redis at {', '.join(servers)}"
        limits = [f"{n}={s}" for n, s in _SECONDS_TO_ANSWER.items() if not any(g.startswith(f"{n}=") for g in given)]
        with self.answering():
            self.client = (online or RedisOnlineStore())._get_client(
                config.model_copy(update={"connection_string": ",".join([*given, *limits])})
            )
            self.client.set_retry(Retry(ExponentialBackoff(cap=1, base=0.1), tries - 1))  # then the task is tried again
        self.is_cluster = isinstance(self.client, RedisCluster)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Translate what the client raises.

        Raises:
            SpecError: Redis refuses the login or a right.
            UpstreamUnavailable: It is away, full or read only.
        """
        try:
            yield
        except (AuthenticationError, NoPermissionError) as err:
            raise SpecError(
                f"The online store, {self.address}, refuses this login: {err}. Check user and password in "
                "the connection_string of feature_store.yaml (WINDSOCK_REDIS), and that the user may use every command."
            ) from err
        except (OSError, RedisError) as err:
            raise UpstreamUnavailable(
                f"The online store, {self.address}, gives no answer: {err}. When it does again, run the step again."
            ) from err


@dataclass(frozen=True)
class RedisFacts:
    """What Redis says of itself."""

    address: str
    keys: int
    evicts: str
    """The policy by which it throws away features when its memory is full; empty if it does not."""
    cannot_save: str
    """What it last failed to save by; empty if nothing."""
    saves: bool | None
    """Whether it keeps its content over a restart; None if it does not say."""


def look_at_redis(settings: Settings) -> RedisFacts:
    """Write, read and remove a key of one's own, and ask Redis how it keeps what it gets.

    Raises:
        SpecError: It is not configured, or refuses the login or a right.
        UpstreamUnavailable: It is away, full or read only.
    """
    config = RedisOnlineStoreConfig(**raw_config(settings)["online_store"])
    server = RedisServer(config, tries=1)
    client, key = server.client, f"windsock-doctor-{uuid.uuid4().hex}"
    with server.answering():
        client.set(key, b"1", ex=60)
        if client.get(key) != b"1":
            raise UpstreamUnavailable(f"{server.address} does not give back what it took.")
        client.delete(key)
        keys = int(client.dbsize())
        memory, saving = _said(client, "memory"), _said(client, "persistence")
        schedule: str | None = None
        with suppress(NoPermissionError, ResponseError):  # hosted ones do not tell
            schedule = str(client.config_get("save").get("save", "")) if not server.is_cluster else None
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    spares = policy == "noeviction" or (policy.startswith("volatile-") and not config.key_ttl_seconds)
    kinds = {"AOF": "aof_last_write_status", "RDB": "rdb_last_bgsave_status"}
    failed = [kind for kind, field in kinds.items() if saving.get(field, "ok") != "ok"]
    appends = bool(saving.get("aof_enabled"))
    saves = True if appends or schedule else None if schedule is None else False
    evicts = "" if spares or not memory.get("maxmemory") else policy
    return RedisFacts(server.address, keys, evicts, " and ".join(failed), saves)


def _said(client: Any, section: str) -> dict[str, Any]:
    """Return a section of INFO; of a cluster, that of one of its servers."""
    found: dict[str, Any] = client.info(section)
    first = next(iter(found.values()), None)
    return first if isinstance(first, dict) else found
