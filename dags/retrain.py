"""Ask for a new training, on behalf of the governor.

**Started by** `<model>_monitor`, with one run id per request, so that each is made once.
**Publishes** `<model>_retrain_requested` with the day to train as of, the trigger, the
reasons and the request's key; `<model>_train` starts from it.

**Waits** while `<model>_train` is paused, as it would never hear of the request; people are told
once. If a newer request is made meanwhile, that one stands, and this is skipped.

It stands between the two because a monitor run is for a day. By hand: trigger `<model>_train`.
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, task

from windsock.spec import ModelSpec
from windsock_airflow import assets, forms
from windsock_airflow.blueprint import for_each_model, identity
from windsock_airflow.decisions import told_to_train
from windsock_airflow.runs import RunFacts
from windsock_airflow.step import no_retry_of_faulty_input


@for_each_model("retrain")
def retrain_dag(spec: ModelSpec) -> None:
    """Make one model's DAG."""
    requested = assets.of(spec, "retrain_requested")
    with DAG(
        **identity(spec, "retrain", __doc__),
        schedule=None,
        is_paused_upon_creation=False,
        max_active_runs=4,
        params={
            "as_of": forms.optional_day("Train as of", "Empty: the latest day."),
            "reasons": Param([], type="array", title="Reasons", description="Why a new training pays."),
            "dedupe_key": Param(None, type=["null", "string"], title="Request", description="Name of the request."),
            "trigger": Param(None, type=["null", "string"], title="Trigger", description="drift, loss or labels."),
            "recovery": forms.optional_day("Recover from", "First day of the new regime; empty: no drift is known of."),
        },
    ):

        @task.sensor(
            mode="reschedule",
            poke_interval=10,
            exponential_backoff=True,
            max_wait=timedelta(minutes=5),
            timeout=timedelta(days=14),
            outlets=[requested],
            execution_timeout=timedelta(minutes=5),
        )
        def announce(outlet_events: dict, **context: Any) -> bool:
            with no_retry_of_faulty_input():
                RunFacts.of(context, model=spec.name, keyed=False)
            if told := told_to_train(context, spec):
                outlet_events[requested].extra = told
            return told is not None

        announce()
