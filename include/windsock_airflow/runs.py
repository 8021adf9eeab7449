"""What a task knows about its run: which day, live or replayed, caused by what.

The day comes from the partition key and never from the clock. A run is *replayed* when it is a backfill, when any event
that caused it was (each event hands ``live`` on, down the whole chain), or when its configuration says
``{"live": false}``; everything else is live. With several causes one replayed suffices: a replay must never retrain,
promote or alert, while the live day's own schedule comes again.

Airflow's history is pruned, cleared and deleted, and events get lost. So a run's facts are written to the store at its
first try, once, and are what every later try goes by. A run that events started, but of which neither events nor
record are left, is not live: nobody can tell.
"""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Self
from urllib.parse import quote

from airflow.sdk import Context

from windsock.days import parse_day
from windsock.errors import SpecError, WindsockError
from windsock.format_numbers import numbered
from windsock.settings import Settings
from windsock.store import Store, to_json

_BACKFILL = "backfill__"
_LIVE = "live"
"""What a run's configuration may say beside its DAG's own parameters."""
STARTED = "started"
"""Folder of a model's runs that have begun, by DAG."""
_KIND = "run of a DAG"
_MEND = "Remove it: the next try writes it anew, from what Airflow still knows."


@dataclass(frozen=True)
class RunFacts:
    """The facts of one DAG run, as they were at its first try."""

    dag_id: str
    run_id: str
    key: str | None
    """``YYYY-MM-DD``, or None for runs of a whole model."""
    live: bool
    scheduled: bool
    """Whether the clock started it."""
    person: str | None
    """Who started it, if a person did."""
    causes: tuple[Mapping[str, Any], ...]
    """Extras of the asset events that started it, oldest first."""

    @classmethod
    def of(cls, context: Context, *, model: str, keyed: bool) -> Self:
        """Return the facts of a task's run, and write them down if no try before has.

        Args:
            context: The task's.
            model: The model that the DAG is of.
            keyed: Whether this DAG's runs are for one day each.

        Raises:
            SpecError: The partition key is missing or malformed, or there is one where none belongs; or the run was
                given a parameter that its DAG does not have.
            DamagedRecord: What the first try wrote cannot be read.
        """
        run: Any = context["dag_run"]
        _refuse_unknown(context, getattr(run, "conf", None) or {})
        now = cls(
            dag_id=run.dag_id,
            run_id=run.run_id,
            key=_checked_key(context, model, keyed=keyed),
            live=not is_replay(context) and not _cause_is_lost(context),
            scheduled=enum_text(run.run_type) == "scheduled",
            person=getattr(run, "triggering_user_name", None),
            causes=tuple(e.extra or {} for e in sorted(_causing_events(context), key=lambda e: e.timestamp)),
        )
        store = Store.of(Settings.from_env())
        # A backfill that begins a live run again makes a replay of it.
        first = cls.recorded(store, model, now.dag_id, now.run_id, now.key) or now._record(store, model)
        return replace(first, live=first.live and not is_replay(context))

    @classmethod
    def recorded(cls, store: Store, model: str, dag_id: str, run_id: str, key: str | None = None) -> Self | None:
        """Return what a run's first try wrote down, or None if it has not begun.

        Raises:
            DamagedRecord: It cannot be read.
        """
        with suppress(FileNotFoundError):
            return store.read_record(_KIND, cls, *_place(model, dag_id, run_id, key), mend=_MEND)
        return None

    def _record(self, store: Store, model: str) -> Self:
        """Write the facts down, and return those in force: another task of this run may have been faster."""
        content = to_json(numbered(_KIND, asdict(self)))
        with suppress(FileExistsError):
            store.create_bytes(content, *_place(model, self.dag_id, self.run_id, self.key))
        return self.recorded(store, model, self.dag_id, self.run_id, self.key) or self

    def event_extra(self) -> dict[str, Any]:
        """Return what every event of this run says about its cause."""
        extra = {"live": self.live, "origin": self.latest("origin") or self.run_id, "key": self.key}
        return {name: value for name, value in extra.items() if value is not None}

    def latest(self, name: str) -> Any:
        """Return what the newest of the causing events says about ``name``, or None."""
        return next((cause[name] for cause in reversed(self.causes) if cause.get(name) is not None), None)


def _place(model: str, dag_id: str, run_id: str, key: str | None) -> tuple[str, ...]:
    """Return where a run's facts lie; with the key, as a person may use a run id again for another day."""
    name = hashlib.sha256(f"{run_id} {key or ''}".encode()).hexdigest()[:32]
    return (model, STARTED, dag_id.removeprefix(f"{model}_"), f"{name}.json")


def _checked_key(context: Context, model: str, *, keyed: bool) -> str | None:
    """Return the run's day, or None for a DAG that works on the whole model."""
    dag_id = context["dag_run"].dag_id
    key = context.get("partition_key")
    if not keyed and key is not None:
        raise SpecError(
            f"{dag_id} works on the whole model, not on a day, but this run has the partition key {key!r}. "
            "Its events would not reach the DAGs after it. Trigger it again without a partition key."
        )
    if keyed and not key:
        step = f"windsock step {dag_id.removeprefix(f'{model}_')} --model {model} --key YYYY-MM-DD"
        raise SpecError(
            f"The partition key is missing: {dag_id} works on one day, and this run does not say which. Trigger it "
            f"with one (YYYY-MM-DD), or run '{step}': `airflow dags test` and `airflow tasks test` cannot give any."
        )
    return parse_day(key).isoformat() if keyed else None


def _refuse_unknown(context: Mapping[str, Any], conf: Mapping[str, Any]) -> None:
    """Raise SpecError for a value of a run's configuration that no form has: Airflow takes any, and nobody reads it."""
    known = [*getattr(context.get("dag"), "params", conf), _LIVE]
    for name in conf:
        if name not in known:
            raise SpecError.unknown("parameter", name, known)


def was_replayed(context: Mapping[str, Any], settings: Settings, model: str | None) -> bool:
    """Say whether a run is or was replayed, by its record first; a callback's context may lack any part."""
    if is_replay(context):
        return True
    run, first = context.get("dag_run"), None
    if model is not None and (dag_id := getattr(run, "dag_id", None)) is not None:
        key = context.get("partition_key") or getattr(run, "partition_key", None)
        # What cannot be read hides no failure.
        with suppress(WindsockError, OSError):
            first = RunFacts.recorded(Store.of(settings), model, dag_id, run_id_of(context), key)
    return not first.live if first is not None else _cause_is_lost(context)


def is_replay(context: Mapping[str, Any]) -> bool:
    """Say whether Airflow still knows that a run is replayed; a callback's context may lack any part."""
    run = context.get("dag_run")
    if enum_text(getattr(run, "run_type", "")) == "backfill" or run_id_of(context).startswith(_BACKFILL):
        return True
    conf = getattr(run, "conf", None)
    if isinstance(conf, Mapping) and conf.get(_LIVE) is False:
        return True
    return any(
        str(getattr(event, "source_run_id", None) or "").startswith(_BACKFILL)
        or (getattr(event, "extra", None) or {}).get("live") is False
        for event in _causing_events(context)
    )


def _cause_is_lost(context: Mapping[str, Any]) -> bool:
    """Say whether events started a run, and none of them is left to say whether it is live."""
    run_type = enum_text(getattr(context.get("dag_run"), "run_type", ""))
    return run_type == "asset_triggered" and not _causing_events(context)


def run_id_of(context: Mapping[str, Any]) -> str:
    """Return the run's id, from wherever a context has it."""
    ti, run = context.get("task_instance") or context.get("ti"), context.get("dag_run")
    return str(getattr(ti, "run_id", None) or getattr(run, "run_id", None) or context.get("run_id") or "")


def run_url(settings: Settings, dag_id: str, run_id: str, task_id: str | None = None, map_index: int = -1) -> str:
    """Return the address of a run, or of a task in it, in the Airflow UI."""
    url = f"{settings.ui_url}/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}"
    if task_id is None:
        return url
    url += f"/tasks/{quote(task_id, safe='')}"
    return url if map_index < 0 else f"{url}/mapped/{map_index}"


def enum_text(value: Any) -> str:
    """Return the text of a value that Airflow gives as an enum in one place and as text in another."""
    return str(getattr(value, "value", value) or "")


def _causing_events(context: Mapping[str, Any]) -> list[Any]:
    by_asset = context.get("triggering_asset_events")
    if by_asset is not None:
        return [event for events in by_asset.values() for event in events]
    return list(getattr(context.get("dag_run"), "consumed_asset_events", None) or ())
