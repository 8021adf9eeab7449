"""What a task asks of a step and tells the DAGs after it, and the operator that runs the step in the task's process.

``StepOperator`` is a sensor in reschedule mode whose poke *is* the step (docs/adr/0003): the first poke runs at once,
and its result becomes the XCom. ``pods.operator`` runs a step in a pod instead.

==========================  =================================================
a step raises               the task
==========================  =================================================
NotReady (75)               waits, rescheduled; its log names the missing days,
                            and if these are all that it waits for, it is deferred
UpstreamUnavailable (75)    is retried with back-off
GateFailed (65)             is skipped: a refused challenger is a result
exit code 64 or 65          fails at once; a retry could not help
anything else               is retried with back-off
==========================  =================================================
"""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn, Self

from airflow.sdk import BaseSensorOperator, Context, PokeReturnValue
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
)

from windsock.errors import GateFailed, NotReady, SpecError, TooLittleHistory, WindsockError
from windsock.settings import Settings
from windsock.store import Store
from windsock_airflow.pages import RESULT_LINKS, links_of
from windsock_airflow.runs import RunFacts
from windsock_airflow.telling import tell_of_result

log = logging.getLogger(__name__)

FAIL_FAST_EXIT_CODES = frozenset({64, 65})
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 300.0
_PATIENCE_S = 10.0
"""So long a task asks again by itself, for days that are just being made; after that the triggerer looks for them."""
_LONGEST_SLEEP_S = 6 * 3600.0


@dataclass(frozen=True, kw_only=True)
class StepCall:
    """The arguments that both step operators share, but for the options, a template field of the operator's own."""

    step: str
    """Name of the step; also the default task id."""
    model: str
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
    poke_interval: float = 5
    """Shortest pause while the input is not there; pauses grow to a quarter of the time waited, up to five minutes."""
    timeout: timedelta = timedelta(days=14)
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
        facts = RunFacts.of(context, model=self.model, keyed=self.keyed)
        if self.skip_replayed and not facts.live:
            raise AirflowSkipException(
                f"{self.step} does not run for replays: {facts.run_id} is a backfill or was caused by one. "
                f"Trigger {facts.dag_id} by hand if you want it."
            )
        return facts

    @staticmethod
    def own_options(options: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the options that a DAG file gives; what of these is null later was to come from a task before."""
        return {name: value for name, value in (options or {}).items() if value is not None}

    def step_options(self, facts: RunFacts, context: Context, own: Mapping[str, Any]) -> dict[str, Any]:
        """Return the step's options: the operator's own go before the form's, these before those of the cause.

        Raises:
            SpecError: A task before this one was marked a success by hand, and what it would have said is missing.
        """
        if any(value in (None, "") for value in own.values()):
            require_results(context)
        by = facts.person if not self.keyed or "reason" in self.form else None  # what is signed for: not usual days
        given = {"by": by} | {name: facts.latest(name) for name in self.cause}
        for source in ({name: context["params"].get(name) for name in self.form}, own):
            given |= {name: value for name, value in source.items() if value is not None}
        return {name: value for name, value in given.items() if value is not None}

    def skips_too_early(self, facts: RunFacts) -> bool:
        """Say whether the run is skipped if there are not enough days yet."""
        return self.skip_on_schedule and facts.scheduled

    def note_wait(self, facts: RunFacts, sentence: str) -> None:
        """Note that a run for a day waits, and for what: ``windsock status`` shows it, and the watch tells of it."""
        from windsock.upkeep.waits import Wait, note

        if facts.key is not None:
            wait = Wait(self.step, facts.key, facts.dag_id, facts.run_id, facts.live, sentence)
            note(Store.of(Settings.from_env()), self.model, wait)

    def forget_wait(self, key: str | None) -> None:
        """Take such a note away."""
        from windsock.upkeep.waits import forget

        with suppress(Exception):  # the task's own end matters more, and the watch takes old notes away
            forget(Store.of(Settings.from_env()), self.model, self.step, str(key))

    def announce_result(self, operator: Any, context: Context, facts: RunFacts, result: dict[str, Any]) -> None:
        """Set the task's links, and leave it the outlets that have something to say; Airflow posts an event on each.

        It is for the run's day and those that it made out of date.
        """
        operator.links = links_of(self.model, result)
        tell_of_result(self.model, self.step, result, facts, operator.task_id, operator.links)
        outlets = [] if result.get("announce") is False else operator.outlets
        extra = facts.event_extra() | {name: result[name] for name in self.announce if result.get(name) is not None}
        operator.outlets = []
        for outlet in outlets:
            if outlet.name in self.days_from:
                days = list(result.get(self.days_from[outlet.name], ()))
                if not days:
                    continue
            else:
                days = [facts.key, *result.get("refresh", ())] if facts.key is not None else []
            event = context["outlet_events"][outlet]
            event.extra = extra
            if days:
                event.add_partitions(days)
            operator.outlets.append(outlet)


def require_results(context: Context) -> None:
    """Look whether each task before this one has left its result.

    Raises:
        SpecError: One has not: somebody marked it a success, so it never ran, or never to its end.
    """
    ti = context["ti"]
    before = sorted(context["task"].upstream_task_ids)
    if lacking := [task_id for task_id in before if ti.xcom_pull(task_ids=task_id) is None]:
        raise SpecError(
            f"{' and '.join(lacking)} left no result that {ti.task_id} could go on with: what is marked as a success "
            "by hand does not run. Clear it, so that it does (an approval asks again); the tasks after it then follow."
        )


class StepOperator(BaseSensorOperator):
    """Run one step of a model and announce its result to the DAGs after it.

    Each field of the result is an XCom of its own beside the whole, so later tasks take ``earlier.output["version"]``
    among their ``options``. ``kwargs`` are the fields of ``StepCall``, and Airflow's own.
    """

    template_fields = ("options",)
    ui_color = "#dfeef5"
    operator_extra_links = RESULT_LINKS

    def __init__(self, *, options: Mapping[str, Any] | None = None, task_id: str | None = None, **kwargs: Any) -> None:
        call = StepCall.take_from(kwargs)
        super().__init__(
            task_id=task_id or call.step,
            mode="reschedule",
            poke_interval=call.poke_interval,
            timeout=call.timeout,
            multiple_outputs=True,
            **kwargs,
        )
        self.call = call
        self.options = call.own_options(options)
        self.links: dict[str, str] = {}
        self._missing = NotReady("")
        self._waited_s = 0.0

    def execute(self, context: Context) -> Any:
        """Run the step, and wait by rescheduling or deferral if it is not ready."""
        over = True
        try:
            return super().execute(context)
        except AirflowRescheduleException:
            over = False
            if self._missing.days and self._waited_s >= _PATIENCE_S:
                self._sleep()
            raise
        except AirflowSensorTimeout as err:
            raise AirflowSensorTimeout(f"Gave up after waiting {self.call.timeout}. {self._missing}") from err
        finally:
            if over and context.get("task_reschedule_count"):
                self.call.forget_wait(context.get("partition_key"))

    def go_on(self, context: Context, event: Any = None) -> Any:
        """Run the step again after the triggerer saw its days, or looked long enough."""
        return self.execute(context)

    def _sleep(self) -> NoReturn:
        """Leave the waiting to the triggerer."""
        from windsock_airflow.waiting import DaysTrigger

        days, longest = [str(day) for day in self._missing.days], min(_LONGEST_SLEEP_S, self.timeout - self._waited_s)
        self.defer(trigger=DaysTrigger(self.call.model, self._missing.stage, days, longest), method_name="go_on")

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Run the step; False if its input is not there yet."""
        # Step code is loaded by tasks only, never while DAG files are parsed.
        from windsock.steps import run_step

        call = self.call
        with no_retry_of_faulty_input():
            facts = call.run_facts(context)
            try:
                result = run_step(
                    call.step,
                    model=call.model,
                    key=facts.key,
                    live=facts.live,
                    origin=facts.run_id,
                    options=call.step_options(facts, context, self.options),
                )
            except (NotReady, TooLittleHistory) as err:
                if call.skips_too_early(facts):
                    raise AirflowSkipException(f"Nothing to do yet: {err}") from err
                if isinstance(err, TooLittleHistory):
                    raise
                self._missing = err
                log.warning("Not ready: %s", err)
                call.note_wait(facts, str(err))
                return False
            except GateFailed as err:
                raise AirflowSkipException(str(err)) from err
        call.announce_result(self, context, facts, result)
        return PokeReturnValue(is_done=True, xcom_value=result)

    def _get_next_poke_interval(
        self, started_at: datetime | float, run_duration: Callable[[], float], poke_count: int
    ) -> float:
        self._waited_s = run_duration()
        return pause_after(self._waited_s, self.call.poke_interval)


@contextmanager
def no_retry_of_faulty_input() -> Iterator[None]:
    """Turn errors that no retry can mend (exit codes 64 and 65) into Airflow's final ``AirflowFailException``."""
    try:
        yield
    except WindsockError as err:
        # The sentence on a line of its own: the traceback below it is for the few.
        log.error("%s: %s", type(err).__name__, err)
        if err.exit_code in FAIL_FAST_EXIT_CODES:
            raise AirflowFailException(f"{type(err).__name__}: {err}") from err
        raise


def reschedule_in(pause_seconds: float) -> AirflowRescheduleException:
    """Return the exception that gives the slot back and runs the task again so much later.

    Never within five seconds: a scheduler that queues a task again before it has read how its last process ended takes
    it for killed, and the wait would cost a try.
    """
    at = datetime.now(UTC) + timedelta(seconds=max(pause_seconds, _SHORTEST_PAUSE_S))
    return AirflowRescheduleException(at)  # type: ignore[no-untyped-call]


def pause_after(waited_seconds: float, shortest: float, longest: float = _LONGEST_PAUSE_S) -> float:
    """Return how long to wait before asking again: often at first and seldom later, as each costs a process start."""
    return min(max(shortest, waited_seconds / 4), longest)
