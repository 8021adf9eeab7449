"""What every task that runs a step has in common, wherever the step runs.

The options it hands on, what it skips, and what it tells the DAGs after it. ``step`` runs
the step in the task's own process, ``pods.operator`` in a pod.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import Asset, Context
from airflow.sdk.exceptions import AirflowRescheduleException, AirflowSkipException

from windsock_airflow.runs import RunFacts

FAIL_FAST_EXIT_CODES = frozenset({64, 65})
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 300.0


class StepTask:
    """The fields of such a task, and what it does with them; mixed into an operator."""

    step: str
    model: str
    outlets: list[Any]

    def ask(
        self,
        *,
        step: str,
        model: str,
        keyed: bool,
        options: Mapping[str, Any] | None,
        form: Collection[str],
        cause: Collection[str],
        days_from: Mapping[str, str] | None,
        announce: Collection[str],
        skip_replayed: bool,
        skip_on_schedule: bool,
    ) -> None:
        """Take the fields; ``StepOperator`` says what each means."""
        self.step = step
        self.model = model
        self.keyed = keyed
        self.options = dict(options or {})
        self.form = tuple(form)
        self.cause = tuple(cause)
        self.days_from = dict(days_from or {})
        self.announce = tuple(announce)
        self.skip_replayed = skip_replayed
        self.skip_on_schedule = skip_on_schedule
        self.links: dict[str, str] = {}

    def facts_of(self, context: Context) -> RunFacts:
        """Return the facts of the run.

        Raises:
            SpecError: The run has the wrong kind of key.
            AirflowSkipException: The run is replayed, and this step must not act then.
        """
        facts = RunFacts.of(context, keyed=self.keyed)
        if self.skip_replayed and not facts.live:
            raise AirflowSkipException(
                f"{self.step} does not run for replays: {facts.run_id} is a backfill or was caused by one. "
                f"Trigger {facts.dag_id} by hand if you want it."
            )
        return facts

    def _options(self, facts: RunFacts, context: Context) -> dict[str, Any]:
        params = context["params"]
        given = {name: facts.latest(name) for name in self.cause}
        given |= {name: value for name in self.form if (value := params.get(name)) is not None}
        given |= {name: value for name, value in self.options.items() if value is not None}
        if facts.person is not None and not self.keyed:
            given.setdefault("by", facts.person)  # models are signed for, days are not
        return {name: value for name, value in given.items() if value is not None}

    def _publish(self, context: Context, facts: RunFacts, result: Mapping[str, Any]) -> None:
        """Say on each outlet what happened, for this day and for those it made out of date."""
        if result.get("announce") is False:
            self.outlets = []  # Airflow posts an event for whatever stands here when the task ends
            return
        extra = facts.handed_on() | {name: result[name] for name in self.announce if result.get(name) is not None}
        for asset in list(self.outlets):
            if not isinstance(asset, Asset):
                continue
            if asset.name in self.days_from:
                days = list(result.get(self.days_from[asset.name], ()))
                if not days:
                    self.outlets.remove(asset)
                    continue
            else:
                days = [facts.key, *result.get("refresh", ())] if facts.key is not None else []
            event = context["outlet_events"][asset]
            event.extra = extra
            if days:
                event.add_partitions(days)


def again_in(seconds: float) -> AirflowRescheduleException:
    """Return the exception that gives the slot back and runs the task again so much later.

    Never within five seconds: a scheduler that queues a task again before it has read how
    its last process ended takes it for killed, and the wait would cost a try.
    """
    at = datetime.now(UTC) + timedelta(seconds=max(seconds, _SHORTEST_PAUSE_S))
    return AirflowRescheduleException(at)  # type: ignore[no-untyped-call]


def pause_after(waited_seconds: float, shortest: float, longest: float = _LONGEST_PAUSE_S) -> float:
    """Return how long to wait before asking again: often at first and seldom later, as each costs a process start."""
    return min(max(shortest, waited_seconds / 4), longest)
