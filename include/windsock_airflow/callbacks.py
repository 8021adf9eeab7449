"""The failure callback of every task: one message when a task has failed for good.

Runs in the task's own process, in the DAG processor when Airflow lost that, and in the scheduler for all that nobody
else has reported (``failures``); in the last two the context holds no exception. All three name the same cause, and one
message is sent, by the scheduler. It never raises, and waits for the store alone.
"""

import builtins
import logging
import re
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from windsock import errors
from windsock.alerts import Alert, report
from windsock.errors import DayRejected, WindsockError
from windsock.redact import without_data, without_example
from windsock.settings import Settings
from windsock.spec import ModelSpec, find_specs, load_spec
from windsock_airflow.runs import enum_text, run_id_of, run_url, was_replayed

log = logging.getLogger("windsock.alerts")

FAILURES = ("failed ", "rejected ")
"""How the names of threads about failed runs begin; the DAG's name follows."""
_MAX_LINES = 12
_SPEAKING = frozenset({"AirflowException", "AirflowFailException", "AirflowSensorTimeout"})
"""Errors of Airflow that tasks raise on purpose, with a sentence of their own, or with that of a pod."""
_OF_THE_MACHINE = (OSError, ImportError, MemoryError)
_OF_THE_NETWORK = frozenset({"botocore", "click", "httpx", "kubernetes", "requests", "urllib3"})
"""Packages whose errors, like those above, speak of files, hosts, programs and memory, and of no data."""
_NAME_OF_AN_ERROR = re.compile(r"[a-z][A-Z]|(?:Error|Exception)\Z|\.")
_LIBRARIES = "/lib/python"
"""In the path of code that is neither ours nor a person's."""


def on_task_failure(context: Mapping[str, Any]) -> None:
    """Report a task that failed for good; a replay's to the log only, unless its model has ``alerts.on_replay``."""
    try:
        ti = context.get("task_instance") or context.get("ti")
        if enum_text(getattr(ti, "state", None)) == "up_for_retry":
            return
        settings = Settings.from_env()
        dag_id = str(getattr(ti, "dag_id", None) or getattr(context.get("dag"), "dag_id", None) or "unknown")
        task_id, run_id, index = getattr(ti, "task_id", None), run_id_of(context), getattr(ti, "map_index", None)
        refused = own_error(context)
        rejected = isinstance(refused, DayRejected)
        failed = Alert(
            dag_id,
            without_values(context),
            task_id=task_id,
            day=_day(context),
            headline="File rejected" if rejected else "Task failed",
            kind="rejected" if rejected else "failure",
            run_id=run_id,
            thread=f"{FAILURES[rejected]}{dag_id}",
            url=run_url(settings, dag_id, run_id, task_id, index if isinstance(index, int) else -1) if run_id else None,
            cause=cause_of(ti) if task_id and run_id else "",
        )
        spec = spec_of(settings, dag_id)
        on_replay = spec is not None and spec.alerts.on_replay
        if not on_replay and was_replayed(context, settings, spec.name if spec is not None else None):
            log.error("%s", failed.as_line([settings.slack_token]))
        else:
            report(settings, failed, spec)
    except Exception as err:
        log.error("The failure could not be reported: %s", type(err).__name__)


def cause_of(ti: Any) -> str:
    """Name one failed try of a task, the same wherever it is seen."""
    index = -1 if ti.map_index is None else ti.map_index
    return f"failed {ti.dag_id} {ti.run_id} {ti.task_id} {index} {getattr(ti, 'try_number', 1)}"


def own_error(context: Mapping[str, Any]) -> WindsockError | None:
    """Return the error of ours that ended a task, anywhere in the chain: it was written to be read."""
    error = context.get("exception")
    while isinstance(error, BaseException) and not isinstance(error, WindsockError):
        error = error.__cause__
    return error if isinstance(error, WindsockError) else None


def without_values(context: Mapping[str, Any]) -> str:
    """Return the sentence that says why a task failed, without values of rows, which the task's log has."""
    error = own_error(context)
    if isinstance(error, DayRejected) and error.brief:
        return error.brief
    return "\n".join(without_example(line) for line in why(context).splitlines())


def why(context: Mapping[str, Any]) -> str:
    """Return the sentence that says why a task failed; errors that are not ours are told without what they quote."""
    error = context.get("exception")
    if (own := own_error(context)) is not None:
        return str(own)
    if isinstance(error, BaseException):
        name, text = type(error).__name__, "\n".join(str(error).strip().splitlines()[:_MAX_LINES])
        if isinstance(error, _OF_THE_MACHINE) or type(error).__module__.partition(".")[0] in _OF_THE_NETWORK:
            return f"{name}: {text}".removesuffix(": ")
        return _as_handed_over(text) if text and name in _SPEAKING else _foreign(name, text, _place_of(error))
    if error:
        return _as_handed_over(str(error))
    if reason := context.get("reason"):
        return f"Airflow says: {reason}"
    return (
        "The task's process ended without an error of its own: it was killed, ran out of memory or lost its "
        "worker. Look at the end of its log, then clear the task to run it again."
    )


def _as_handed_over(text: str) -> str:
    """Return a sentence, but if it is the text of an error of another process, as :func:`why` returns that error's."""
    name, colon, rest = text.partition(": ")
    short = name.removeprefix("windsock.errors.")
    if not colon or not short.replace(".", "_").isidentifier() or not short.rpartition(".")[2][:1].isupper():
        return text
    known = getattr(errors, short, None) or getattr(builtins, short, None)
    if isinstance(known, type) and issubclass(known, (WindsockError, *_OF_THE_MACHINE)):
        return text
    whole = not _NAME_OF_AN_ERROR.search(name) or name == "UsageError" or name.partition(".")[0] in _OF_THE_NETWORK
    return text if whole else _foreign(name, rest)


def _foreign(name: str, text: str, place: str = "") -> str:
    said = ": ".join(filter(None, (name, without_data(text).rstrip("."))))
    return f"{said}{place and f' ({place})'}. The task's log says more."


def _place_of(error: BaseException) -> str:
    """Name the line that raised an error, in code of a person's or ours rather than in the library that it called."""
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    near = [(file, line) for file, line in frames if file.endswith(".py") and _LIBRARIES not in file] or frames
    return f"{Path(near[-1][0]).name}, line {near[-1][1]}" if near else ""


def model_of(settings: Settings, dag_id: str) -> str | None:
    """Return the model that a DAG is of, or None for a DAG that is no model's."""
    # The longest name that fits: of models `fraud` and `fraud_eu`, `fraud_eu_ingest` is the second's.
    return max((n for n in find_specs(settings.models) if dag_id.startswith(f"{n}_")), key=len, default=None)


def spec_of(settings: Settings, dag_id: str) -> ModelSpec | None:
    """Return the spec of the model that a DAG is of; None if it cannot be read, which must not hide the failure."""
    try:
        model = model_of(settings, dag_id)
        return load_spec(find_specs(settings.models)[model]) if model is not None else None
    except Exception as err:
        log.warning("The model of DAG %s could not be read: %s", dag_id, type(err).__name__)
        return None


def _day(context: Mapping[str, Any]) -> str | None:
    run = context.get("dag_run")
    conf = getattr(run, "conf", None) or {}
    key = context.get("partition_key") or getattr(run, "partition_key", None)
    if not key and isinstance(conf, Mapping):
        key = conf.get("partition_key") or conf.get("as_of")
    return str(key) if key else None
