"""What a task knows about its run: which day, live or replayed, caused by what.

The day comes from the partition key and never from the clock. A run is *replayed* when it
is a backfill, when any event that caused it was (each event hands ``live`` on, down the
whole chain), or when its configuration says ``{"live": false}``; everything else is live.
With several causes one replayed suffices: a replay must never retrain, promote or alert,
while the live day's own schedule comes again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow.sdk import Context

from windsock.days import parse_day
from windsock.errors import SpecError


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
    def of(cls, context: Context, *, keyed: bool) -> RunFacts:
        """Read the facts from a task's context.

        Args:
            context: Airflow's.
            keyed: Whether this DAG's runs are for one day each.

        Raises:
            SpecError: The partition key is missing or malformed, or there is one where
                none belongs.
        """
        run: Any = context["dag_run"]
        key = context.get("partition_key")
        if keyed:
            key = parse_day(key).isoformat()
        elif key is not None:
            raise SpecError(
                f"{run.dag_id} works on the whole model, not on a day, but this run has the partition key {key!r}. "
                "Its events would not reach the DAGs after it. Trigger it again without a partition key."
            )
        events = _events(context)
        return cls(
            dag_id=run.dag_id,
            run_id=run.run_id,
            key=key,
            live=_is_live(run, events),
            scheduled=str(getattr(run.run_type, "value", run.run_type)) == "scheduled",
            person=getattr(run, "triggering_user_name", None),
            causes=tuple(event.extra or {} for event in events),
        )

    def handed_on(self) -> dict[str, Any]:
        """Return what every event of this run says about its cause."""
        said = {"live": self.live, "origin": self.latest("origin") or self.run_id, "key": self.key}
        return {name: value for name, value in said.items() if value is not None}

    def latest(self, name: str) -> Any:
        """Return what the newest of the causing events says about ``name``, or None."""
        return next((cause[name] for cause in reversed(self.causes) if cause.get(name) is not None), None)


def _events(context: Context) -> list[Any]:
    by_asset: Any = context.get("triggering_asset_events") or {}
    return sorted((event for events in by_asset.values() for event in events), key=lambda event: event.timestamp)


def _is_live(run: Any, events: list[Any]) -> bool:
    run_type = str(getattr(run.run_type, "value", run.run_type))
    if run_type == "backfill" or run.run_id.startswith("backfill__") or (run.conf or {}).get("live") is False:
        return False
    return not any(
        (event.extra or {}).get("live") is False or (event.source_run_id or "").startswith("backfill__")
        for event in events
    )
