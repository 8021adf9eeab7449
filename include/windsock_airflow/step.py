"""The operator that runs a Windsock step.

It is a sensor in reschedule mode whose poke *is* the step. A step whose input does not
exist yet raises ``NotReady``: the task then shows as ``up_for_reschedule``, holds no slot,
says in its log which days are missing, and asks again. Everything else a sensor does in
one go: the first poke runs at once, its result becomes the XCom, and a failure follows
the usual retries (``docs/adr/0003-retrain-hop-and-step-operator.md``).

==========================  =================================================
a step raises               the task
==========================  =================================================
NotReady (75)               waits, rescheduled
UpstreamUnavailable (75)    is retried with back-off
exit code 64 or 65          fails at once; a retry could not help
anything else               is retried with back-off
==========================  =================================================
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import BaseSensorOperator, Context, PokeReturnValue
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout, AirflowSkipException

from windsock.errors import NotReady, TooLittleHistory, WindsockError
from windsock_airflow.links import MlflowVersionLink, ReportLink, links_of
from windsock_airflow.runs import RunFacts
from windsock_airflow.step_task import FAIL_FAST_EXIT_CODES, StepTask, pause_after

log = logging.getLogger(__name__)


class StepOperator(StepTask, BaseSensorOperator):
    """Run one step of a model and announce its result to the DAGs after it.

    Each field of the step's result is an XCom of its own beside the whole, so later tasks
    take ``earlier.output["version"]`` as an option.

    Args:
        step: Name of the step; also the default task id.
        model: The model's name.
        keyed: Whether runs of this DAG are for one day each (the partition key).
        options: Options of the step; values may be outputs of earlier tasks.
        form: Names of DAG params that become options when they are not null.
        cause: Names that become options, taken from the asset events that started the
            run, unless the form gives them.
        days_from: Asset name to the result field that lists the days to announce on it, instead
            of the run's own day; an empty list announces nothing.
        announce: Result fields that the asset events carry beside ``live`` and ``origin``.
        skip_replayed: Skip instead of running when the run is replayed.
        skip_on_schedule: Skip instead of waiting or failing when the clock started the run
            and there are not enough days yet: the next tick comes anyway.
        poke_interval: Shortest pause between two pokes, in seconds; pauses grow to a
            quarter of the time waited so far, up to five minutes.
        timeout: How long ``NotReady`` may last.
    """

    template_fields = ("options",)
    ui_color = "#dfeef5"
    operator_extra_links = (MlflowVersionLink(), ReportLink())

    def __init__(
        self,
        *,
        step: str,
        model: str,
        keyed: bool = True,
        options: Mapping[str, Any] | None = None,
        form: Collection[str] = (),
        cause: Collection[str] = (),
        days_from: Mapping[str, str] | None = None,
        announce: Collection[str] = (),
        skip_replayed: bool = False,
        skip_on_schedule: bool = False,
        poke_interval: timedelta | float = 5,
        timeout: timedelta | float = timedelta(days=14),
        task_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            task_id=task_id or step,
            mode="reschedule",
            poke_interval=poke_interval,
            timeout=timeout,
            multiple_outputs=True,
            **kwargs,
        )
        self.ask(
            step=step,
            model=model,
            keyed=keyed,
            options=options,
            form=form,
            cause=cause,
            days_from=days_from,
            announce=announce,
            skip_replayed=skip_replayed,
            skip_on_schedule=skip_on_schedule,
        )
        self._missing = ""

    def execute(self, context: Context) -> Any:
        """Run the step once, and wait by rescheduling if it is not ready."""
        try:
            return super().execute(context)
        except AirflowSensorTimeout as err:
            waited = timedelta(seconds=self.timeout)
            raise AirflowSensorTimeout(f"Gave up after waiting {waited}. {self._missing}") from err

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Run the step; True once it has a result."""
        # Step code is loaded by tasks only, never while DAG files are parsed.
        from windsock.steps import run_step

        facts: RunFacts | None = None
        try:
            facts = self.facts_of(context)
            result = run_step(
                self.step,
                model=self.model,
                key=facts.key,
                live=facts.live,
                origin=facts.run_id,
                options=self._options(facts, context),
            )
        except WindsockError as err:
            not_yet = isinstance(err, NotReady | TooLittleHistory)
            if not_yet and self.skip_on_schedule and facts is not None and facts.scheduled:
                raise AirflowSkipException(f"Nothing to do yet: {err}") from err
            if isinstance(err, NotReady):
                self._missing = str(err)
                log.warning("Not ready: %s", err)
                return False
            # The sentence on a line of its own: the traceback below it is for the few.
            log.error("%s: %s", type(err).__name__, err)
            if err.exit_code in FAIL_FAST_EXIT_CODES:
                raise AirflowFailException(f"{type(err).__name__}: {err}") from err
            raise
        self._publish(context, facts, result)
        self.links = links_of(self.model, result)
        return PokeReturnValue(is_done=True, xcom_value=result)

    def _get_next_poke_interval(
        self, started_at: datetime | float, run_duration: Callable[[], float], poke_count: int
    ) -> float:
        return pause_after(run_duration(), float(self.poke_interval))
