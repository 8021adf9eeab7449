"""What a request asks MLflow about, read as MLflow reads it; and whether a task may ask for that.

A task's model is one experiment and one registered model, both of its name. Runs, logged models and artifacts belong to
the experiment that MLflow's database says.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from windsock.errors import WindsockError
from windsock_mlflow.routes import ANY, NOT_FOR_TASKS, Route

PROXIED = re.compile(r"mlflow-artifacts:/(?!/)[^?#%\\\0]*")
"""A location below MLflow's own artifact proxy."""
_SOURCE = re.compile(rf"{PROXIED.pattern}|(?:models|runs):/(?!/)[\w./@-]+")
_UNKNOWN = "RESOURCE_DOES_NOT_EXIST"
_SAME = {
    "run_uuid": "run_id",
    "source_run_id": "run_id",
    "run_ids": "run_id",
    "experiment_ids": "experiment_id",
    "model_ids": "model_id",
}
_IDS = {name: re.compile(r"[\w-]+", re.ASCII) for name in ("run_id", "model_id")} | {
    "experiment_id": re.compile(r"[0-9]+")
}
"""Written otherwise (``" 1"``, ``"1_0"``), an id may be another one's to MLflow."""


@dataclass(frozen=True)
class Named:
    """What a request names, by the names of MLflow's fields."""

    top: Mapping[str, list[Any]]
    """Its query, path and outermost fields."""
    nested: Mapping[str, list[Any]]
    """Ids further in."""

    def ids(self, field: str) -> list[str]:
        """Return the ids of a kind wherever they stand."""
        return [str(value) for fields in (self.top, self.nested) for value in fields.get(field, ())]


class NotAllowed(WindsockError):
    """Whoever asks is known, and may not ask for this."""


def read_named(query: bytes, body: Mapping[str, Any], route: Route) -> Named:
    """Read what a request names where MLflow reads it."""
    top = _gather([*parse_qsl(query.decode("latin-1")), *body.items(), *route.parts])
    if "artifact" in route.binds and "path" in top:
        top["artifact"] = [*top.get("artifact", ()), *top["path"]]
    return Named(top, _gather((key, value) for key, value in _walk(body) if _field(key) in _IDS))


def _gather(pairs: Iterable[tuple[str, Any]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for key, value in pairs:
        found[_field(key)] += [v for v in (value if isinstance(value, list) else [value]) if v not in (None, "")]
    return {field: values for field, values in found.items() if values}


def refuse_foreign_locations(body: Mapping[str, Any], path: str) -> None:
    """Refuse a request that would have files read or written anywhere but below the artifact proxy.

    Raises:
        NotAllowed: It names such a place.
    """
    for key, value in _walk(body):
        field = _field(key)
        is_location = field == "location" or field.endswith(("_location", "_uri"))
        wanted = PROXIED if is_location else _SOURCE if field == "source" and path.endswith("versions/create") else None
        if wanted is None or value in ("", None) or isinstance(value, dict):
            continue
        if not isinstance(value, str) or not wanted.fullmatch(value) or ".." in value.split("/"):
            raise NotAllowed(
                f"{key} must lie below MLflow's artifact proxy (mlflow-artifacts:/...): files of this machine and of "
                "other servers are not served. Leave it away, and MLflow chooses."
            )


class Owners:
    """Which experiment something in MLflow's database belongs to; None: there is no such thing."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._of_run = lru_cache(maxsize=4096)(lambda run_id: store.get_run(run_id).info.experiment_id)
        self._of_model = lru_cache(maxsize=4096)(lambda model_id: store.get_logged_model(model_id).experiment_id)

    def name(self, field: str, value: str) -> str | None:
        """Return the name of the experiment that a run, a logged model or an id belongs to."""
        from mlflow.exceptions import MlflowException

        try:
            experiment = {"run_id": self._of_run, "model_id": self._of_model}.get(field, str)(value)
            return (
                str(self._store.get_experiment(experiment).name)
                if _IDS["experiment_id"].fullmatch(experiment)
                else None
            )
        except MlflowException as err:
            if err.error_code == _UNKNOWN:
                return None
            raise


def refuse_what_is_not_the_tasks_own(route: Route, named: Named, model: str, owners: Owners) -> None:
    """Refuse a task's request unless everything in it is its model's.

    Raises:
        NotAllowed: It is not, or the route is not for tasks.
    """
    if route.binds == NOT_FOR_TASKS:
        raise NotAllowed("This is for people, not for tasks. Sign in from Airflow.")
    if route.binds not in (ANY, *named.top):
        raise NotAllowed(f"A task's call must name its {route.binds}.")
    if "artifact_location" in named.top:
        raise NotAllowed("A task cannot choose where artifacts go. Leave artifact_location away, and MLflow chooses.")
    # Elsewhere a name is a title. What is not there yet belongs to nobody, and MLflow says so.
    named_by = [route.binds] if route.binds in {"name", "experiment_name"} else []
    foreign = [(field, value) for field in named_by for value in named.top[field] if value != model]
    for field, written in _IDS.items():
        for value in named.ids(field):
            if not written.fullmatch(value) or owners.name(field, value) not in {model, None}:
                foreign.append((field, value))
    foreign += [(what, path) for what, field, path in _places(named) if not _lies_in(owners.name, field, path, model)]
    for what, value in foreign:
        raise NotAllowed(f"{what} {str(value)[:200]!r} is not of model {model!r}, for which this task's key is.")


def _places(named: Named) -> Iterator[tuple[str, str, str]]:
    """Yield where files are: what the request calls it, what the path begins with (an id of what), and the path."""
    for path in named.top.get("artifact", ()):
        yield "artifact", "experiment_id", str(path)
    for source in named.top.get("source", ()):
        scheme, _, path = str(source).partition(":/")
        yield "source", {"runs": "run_id", "models": "model_id"}.get(scheme, "experiment_id"), path


def _lies_in(owner_of: Callable[[str, str], str | None], field: str, path: str, model: str) -> bool:
    safe = "%" not in path and ".." not in path.split("/")
    return safe and owner_of(field, path.split("/")[0]) == model


def _walk(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield every field of a JSON object, however deep."""
    left: list[Any] = [body]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            yield from value.items()
            left += value.values()
        elif isinstance(value, list):
            left += value


def _field(key: str) -> str:
    """Return a field's own name: protobuf also takes ``artifactLocation`` for ``artifact_location``."""
    snake = re.sub(r"(?<!^)([A-Z])", lambda capital: f"_{capital[1]}", key).lower()
    return _SAME.get(snake, snake)
