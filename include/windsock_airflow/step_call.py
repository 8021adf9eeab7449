"""What a task asks of a step, and what it tells the DAGs after it, wherever the step runs.

``step`` runs the step in the task's own process, ``pods.operator`` in a pod.
"""

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from airflow.sdk import Asset, Context
from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException, AirflowSkipException

from windsock.errors import WindsockError
from windsock_airflow.runs import RunFacts

log = logging.getLogger(__name__)

FAIL_FAST_EXIT_CODES = frozenset({64, 65})
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 300.0


@dataclass(frozen=True, kw_only=True)
class StepCall:
    """The arguments that ``StepOperator`` and ``PodStepOperator`` share.

    The step's options are not among them: an operator keeps them as a template field of its own.
    """

    step: str
    """Name of the step; also the default task id."""
    model: str
    """The model's name."""
    keyed: bool = True
    """Whether runs of this DAG are for one day each (the partition key)."""
    form: Collection[str] = ()
    """Names of DAG params that become options when they are not null."""
    cause: Collection[str] = ()
    """Names that become options, taken from the asset events that started the run, unless the form gives them."""
    days_from: Mapping[str, str] = field(default_factory=dict)
    """Asset name to the result field that lists the days to announce on it, instead of the run's; none, no event."""
    announce: Collection[str] = ()
    """Result fields that the asset events carry beside ``live`` and ``origin``."""
    skip_replayed: bool = False
    """Skip instead of running when the run is replayed."""
    skip_on_schedule: bool = False
    """Skip when the clock started the run and there are not enough days yet: the next tick comes anyway."""
    poke_interval: timedelta | float = 5
    """Shortest pause while the input is not there; pauses grow to a quarter of the time waited, up to five minutes."""
    timeout: timedelta | float = timedelta(days=14)
    """How long ``NotReady`` may last."""

    @classmethod
    def take_from(cls, arguments: dict[str, Any]) -> Self:
        """Take the fields out of an operator's arguments; what is left belongs to the operator's base class."""
        names = [f.name for f in fields(cls) if f.name in arguments]
        return cls(**{name: arguments.pop(name) for name in names})

    def run_facts(self, context: Context) -> RunFacts:
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

    def step_options(self, facts: RunFacts, context: Context, own: Mapping[str, Any]) -> dict[str, Any]:
        """Return the step's options: the operator's own go before the form's, these before those of the cause."""
        given = {name: facts.latest(name) for name in self.cause}
        given |= {name: value for name in self.form if (value := context["params"].get(name)) is not None}
        given |= {name: value for name, value in own.items() if value is not None}
        if facts.person is not None and not self.keyed:
            given.setdefault("by", facts.person)  # models are signed for, days are not
        return {name: value for name, value in given.items() if value is not None}

    def skips_too_early(self, facts: RunFacts) -> bool:
        """Say whether the run is skipped if there are not enough days yet."""
        return self.skip_on_schedule and facts.scheduled

    def post_events(
        self, outlets: Collection[Any], context: Context, facts: RunFacts, result: Mapping[str, Any]
    ) -> list[Any]:
        """Say on each outlet what happened, for this day and for those it made out of date.

        Returns:
            The outlets that the task is to keep: Airflow posts an event for each of them when the task ends.
        """
        if result.get("announce") is False:
            return []
        extra = facts.event_extra() | {name: result[name] for name in self.announce if result.get(name) is not None}
        kept = []
        for outlet in outlets:
            if isinstance(outlet, Asset):
                days = self._days_to_announce(outlet.name, facts, result)
                if not days and outlet.name in self.days_from:
                    continue
                event = context["outlet_events"][outlet]
                event.extra = extra
                if days:
                    event.add_partitions(days)
            kept.append(outlet)
        return kept

    def _days_to_announce(self, asset: str, facts: RunFacts, result: Mapping[str, Any]) -> list[str]:
        if asset in self.days_from:
            return list(result.get(self.days_from[asset], ()))
        return [facts.key, *result.get("refresh", ())] if facts.key is not None else []


@contextmanager
def no_retry_of_faulty_input() -> Iterator[None]:
    """Turn errors that no retry can mend (exit codes 64 and 65) into Airflow's final one.

    Raises:
        AirflowFailException: For such an error, with its sentence.
    """
    try:
        yield
    except WindsockError as err:
        # The sentence on a line of its own: the traceback below it is for the few.
        log.error("%s: %s", type(err).__name__, err)
        if err.exit_code in FAIL_FAST_EXIT_CODES:
            raise AirflowFailException(f"{type(err).__name__}: {err}") from err
        raise


def seconds(duration: timedelta | float) -> float:
    """Return a duration in seconds."""
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)


def reschedule_in(pause_seconds: float) -> AirflowRescheduleException:
    """Return the exception that gives the slot back and runs the task again so much later.

    Never within five seconds: a scheduler that queues a task again before it has read how
    its last process ended takes it for killed, and the wait would cost a try.
    """
    at = datetime.now(UTC) + timedelta(seconds=max(pause_seconds, _SHORTEST_PAUSE_S))
    return AirflowRescheduleException(at)  # type: ignore[no-untyped-call]


def pause_after(waited_seconds: float, shortest: float, longest: float = _LONGEST_PAUSE_S) -> float:
    """Return how long to wait before asking again: often at first and seldom later, as each costs a process start."""
    return min(max(shortest, waited_seconds / 4), longest)
