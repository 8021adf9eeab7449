"""The operator that runs a Windsock step in the task's own process.

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

import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import BaseSensorOperator, Context, PokeReturnValue
from airflow.sdk.exceptions import AirflowSensorTimeout, AirflowSkipException

from windsock.errors import NotReady, TooLittleHistory
from windsock_airflow.links import RESULT_LINKS, links_of
from windsock_airflow.step_call import StepCall, no_retry_of_faulty_input, pause_after

log = logging.getLogger(__name__)


class StepOperator(BaseSensorOperator):
    """Run one step of a model and announce its result to the DAGs after it.

    Each field of the step's result is an XCom of its own beside the whole, so later tasks
    take ``earlier.output["version"]`` as an option.

    Args:
        options: Options of the step; values may be outputs of earlier tasks.
        task_id: Instead of the step's name.
        **kwargs: The fields of :class:`~windsock_airflow.step_call.StepCall`, and Airflow's own.
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
        self.options = dict(options or {})
        self.links: dict[str, str] = {}
        self._missing = ""

    def execute(self, context: Context) -> Any:
        """Run the step once, and wait by rescheduling if it is not ready."""
        try:
            return super().execute(context)
        except AirflowSensorTimeout as err:
            waited = timedelta(seconds=self.timeout)
            raise AirflowSensorTimeout(f"Gave up after waiting {waited}. {self._missing}") from err

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
                self._missing = str(err)
                log.warning("Not ready: %s", err)
                return False
        self.outlets = call.post_events(self.outlets, context, facts, result)
        self.links = links_of(call.model, result)
        return PokeReturnValue(is_done=True, xcom_value=result)

    def _get_next_poke_interval(
        self, started_at: datetime | float, run_duration: Callable[[], float], poke_count: int
    ) -> float:
        return pause_after(run_duration(), float(self.poke_interval))
