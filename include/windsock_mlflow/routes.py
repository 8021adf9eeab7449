"""Every route of MLflow that is served, who may call it, and what binds a task's call to its own model.

What is not in the table is refused: the assistant, gateway, webhooks, jobs, scorers, MCP servers, uploads and signed
addresses that go round the artifact proxy, and whatever a later MLflow adds. ``tests/unit/windsock_mlflow`` walks the
routes of the installed MLflow and fails when there is one that nobody has decided about.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

ANY, NOT_FOR_TASKS = "*", "-"

_TABLE = """
read  GET       /                                                    -
read  GET       /version                                             *
read  GET       /static-files/{path}                                 -
read  GET       /get-artifact                                        -
read  GET       /model-versions/get-artifact                         -
read  POST      /graphql                                             -
read  GET       3.0/server-info                                      *
read  GET       3.0/ui-telemetry                                     -

read  GET       2.0/experiments/get                                  experiment_id
read  GET       2.0/experiments/get-by-name                          experiment_name
read  GET,POST  2.0/experiments/search                               *
read  POST      2.0/experiments/search-datasets                      -
write POST      2.0/experiments/create                               name
write POST      2.0/experiments/update                               -
write POST      2.0/experiments/delete                               -
write POST      2.0/experiments/restore                              -
write POST      2.0/experiments/set-experiment-tag                   experiment_id
write POST      2.0/experiments/delete-experiment-tag                experiment_id

read  GET       2.0/runs/get                                         run_id
read  POST      2.0/runs/search                                      experiment_id
write POST      2.0/runs/create                                      experiment_id
write POST      2.0/runs/update                                      run_id
write POST      2.0/runs/delete                                      -
write POST      2.0/runs/restore                                     -
write POST      2.0/runs/log-metric                                  run_id
write POST      2.0/runs/log-parameter                               run_id
write POST      2.0/runs/log-batch                                   run_id
write POST      2.0/runs/log-model                                   run_id
write POST      2.0/runs/log-inputs                                  run_id
write POST      2.0/runs/outputs                                     run_id
write POST      2.0/runs/set-tag                                     run_id
write POST      2.0/runs/delete-tag                                  run_id
read  GET       2.0/metrics/get-history                              run_id
read  GET       2.0/metrics/get-history-bulk                         -
read  GET       2.0/metrics/get-history-bulk-interval                -
read  GET       2.0/artifacts/list                                   run_id

write POST      2.0/logged-models                                    experiment_id
read  POST      2.0/logged-models/search                             experiment_id
read  GET       2.0/logged-models/{model_id}                         model_id
write PATCH     2.0/logged-models/{model_id}                         model_id
write DELETE    2.0/logged-models/{model_id}                         model_id
write POST      2.0/logged-models/{model_id}/params                  model_id
write PATCH     2.0/logged-models/{model_id}/tags                    model_id
write DELETE    2.0/logged-models/{model_id}/tags/{tag}              model_id
read  GET       2.0/logged-models/{model_id}/artifacts/directories   model_id
read  GET       2.0/logged-models/{model_id}/artifacts/files         -

write POST      2.0/registered-models/create                         name
read  GET       2.0/registered-models/get                            name
read  GET       2.0/registered-models/search                         *
read  GET,POST  2.0/registered-models/get-latest-versions            name
write POST      2.0/registered-models/rename                         -
write PATCH     2.0/registered-models/update                         -
write DELETE    2.0/registered-models/delete                         -
write POST      2.0/registered-models/set-tag                        name
write DELETE    2.0/registered-models/delete-tag                     name
read  GET       2.0/registered-models/alias                          name
write POST      2.0/registered-models/alias                          name
write DELETE    2.0/registered-models/alias                          name
write POST      2.0/model-versions/create                            name
read  GET       2.0/model-versions/get                               name
read  GET       2.0/model-versions/search                            *
read  GET       2.0/model-versions/get-download-uri                  name
write PATCH     2.0/model-versions/update                            name
write POST      2.0/model-versions/set-tag                           name
write DELETE    2.0/model-versions/delete-tag                        name
write POST      2.0/model-versions/transition-stage                  -
write DELETE    2.0/model-versions/delete                            -

read  GET       artifacts                                            artifact
read  GET       artifacts/{artifact}                                 artifact
write PUT       artifacts/{artifact}                                 artifact
write DELETE    artifacts/{artifact}                                 -

read  POST      3.0/traces/search                                    -
read  GET       3.0/traces/{trace}                                   -
"""
"""Role, methods, path, and what of the request must be the task's own; ``*``: any task may, ``-``: none may."""

_BASES = {
    "2.0": ("/api/2.0/mlflow", "/ajax-api/2.0/mlflow"),
    "3.0": ("/api/3.0/mlflow", "/ajax-api/3.0/mlflow"),
    "artifacts": ("/api/2.0/mlflow-artifacts/artifacts", "/ajax-api/2.0/mlflow-artifacts/artifacts"),
}
_SEGMENTS = {"path": r"[\w./-]+", "artifact": r"[^\\%\0]+", "tag": r"[^/\0]+"}
_SEGMENT = r"[\w.-]+"


@dataclass(frozen=True)
class Route:
    """One served route; ``parts`` are what its path named."""

    access: Literal["read", "write"]
    binds: str
    parts: tuple[tuple[str, str], ...] = ()
    streams: bool = False
    """Its body is a file, which goes on to MLflow as it comes."""


def find(method: str, path: str) -> Route | None:
    """Return the route that serves a path exactly as it is written; None: it is not served."""
    for access, binds, methods, pattern in _routes():
        if method in methods and (found := pattern.fullmatch(path)) is not None:
            parts = found.groupdict()
            if any(step in {"", ".", ".."} for part in parts.values() for step in part.split("/")):
                return None
            return Route(access, binds, tuple(parts.items()), streams=method == "PUT" and "artifact" in parts)
    return None


@cache
def _routes() -> list[tuple[Literal["read", "write"], str, frozenset[str], re.Pattern[str]]]:
    found = []
    for line in filter(None, _TABLE.splitlines()):
        access, methods, path, binds = line.split()
        base, slash, rest = path.partition("/")
        for start in _BASES.get(base, (base,)):
            pattern = re.sub(r"\\{(\w+)\\}", _segment, re.escape(f"{start}{slash}{rest}"))
            found.append((access, binds, frozenset(methods.split(",")), re.compile(pattern)))
    return found  # type: ignore[return-value]


def _segment(braces: re.Match[str]) -> str:
    return f"(?P<{braces[1]}>{_SEGMENTS.get(braces[1], _SEGMENT)})"
