"""What a task knows about its run: which day, live or replayed, caused by what.

The day comes from the partition key and never from the clock. A run is *replayed* when it is a backfill, when any event
that caused it was (each event hands ``live`` on, down the whole chain), or when its configuration says
``{"live": false}``; everything else is live. With several causes one replayed suffices: a replay must never retrain,
promote or alert, while the live day's own schedule comes again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from airflow.sdk import Context

from windsock.days import parse_day
from windsock.errors import SpecError

_BACKFILL = "backfill__"
_LIVE = "live"
"""What a run's configuration may say beside its DAG's own parameters."""


@dataclass(frozen=True)
class RunFacts:
    """The facts of one DAG run."""

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
    def of(cls, context: Context, *, keyed: bool) -> Self:
        """Read the facts from a task's context; ``keyed``: this DAG's runs are for one day each.

        Raises:
            SpecError: The partition key is missing or malformed, or there is one where none belongs; or the run was
                given a parameter that its DAG does not have.
        """
        run: Any = context["dag_run"]
        _refuse_unknown(context, getattr(run, "conf", None) or {})
        key = context.get("partition_key")
        if keyed:
            key = parse_day(key).isoformat()
        elif key is not None:
            raise SpecError(
                f"{run.dag_id} works on the whole model, not on a day, but this run has the partition key {key!r}. "
                "Its events would not reach the DAGs after it. Trigger it again without a partition key."
            )
        return cls(
            dag_id=run.dag_id,
            run_id=run.run_id,
            key=key,
            live=not is_replay(context),
            scheduled=enum_text(run.run_type) == "scheduled",
            person=getattr(run, "triggering_user_name", None),
            causes=tuple(e.extra or {} for e in sorted(_causing_events(context), key=lambda e: e.timestamp)),
        )

    def event_extra(self) -> dict[str, Any]:
        """Return what every event of this run says about its cause."""
        extra = {"live": self.live, "origin": self.latest("origin") or self.run_id, "key": self.key}
        return {name: value for name, value in extra.items() if value is not None}

    def latest(self, name: str) -> Any:
        """Return what the newest of the causing events says about ``name``, or None."""
        return next((cause[name] for cause in reversed(self.causes) if cause.get(name) is not None), None)


def _refuse_unknown(context: Mapping[str, Any], conf: Mapping[str, Any]) -> None:
    """Raise SpecError for a value of a run's configuration that no form has: Airflow takes any, and nobody reads it."""
    known = [*getattr(context.get("dag"), "params", conf), _LIVE]
    for name in conf:
        if name not in known:
            raise SpecError.unknown("parameter", name, known)


def is_replay(context: Mapping[str, Any]) -> bool:
    """Say whether a run is replayed; a callback's context may lack any part."""
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


def run_id_of(context: Mapping[str, Any]) -> str:
    """Return the run's id, from wherever a context has it."""
    ti, run = context.get("task_instance") or context.get("ti"), context.get("dag_run")
    return str(getattr(ti, "run_id", None) or getattr(run, "run_id", None) or context.get("run_id") or "")


def enum_text(value: Any) -> str:
    """Return the text of a value that Airflow gives as an enum in one place and as text in another."""
    return str(getattr(value, "value", value) or "")


def _causing_events(context: Mapping[str, Any]) -> list[Any]:
    by_asset = context.get("triggering_asset_events")
    if by_asset is not None:
        return [event for events in by_asset.values() for event in events]
    return list(getattr(context.get("dag_run"), "consumed_asset_events", None) or ())
