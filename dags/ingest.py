"""Take in one day of data: validate it, set bad rows aside, publish the rest.

**Reads** the model's source for the day (partition key). **Publishes** `<model>_events`
for that day, and once more for every later day that a changed delivery made out of date.

**Reruns** are safe: the same delivery gives the same bytes. Backfill this DAG, and the
days go through features and scores by themselves.

**Waits** up to 12 hours for a delivery that is late; a backfill does not.
**On failure** the sentence in the log says which column broke which rule and how often.
The file stays where it came from and is copied to quarantine. Have it delivered again,
then clear the task. A refused day does not hold up the days after it; for a day that will
never be delivered, trigger with *No delivery*. A redelivery that lacks rows or values of the
day that it would replace is refused, too; if it is right, trigger with *Accept worse*.
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

from windsock.spec import ModelSpec
from windsock_airflow import assets, forms
from windsock_airflow.blueprint import MANY_RUNS, daily, for_each_model, identity, live_from, live_until
from windsock_airflow.runs import RunFacts
from windsock_airflow.step import StepOperator


@for_each_model("ingest")
def ingest_dag(spec: ModelSpec) -> None:
    """Make one model's DAG."""
    with DAG(
        **identity(spec, "ingest", __doc__),
        schedule=daily(spec.schedule.ingest),
        start_date=live_from(spec),
        end_date=live_until(spec),
        max_active_runs=MANY_RUNS,
        params={
            "no_delivery": forms.flag("No delivery", "Nothing will come for this day: later days need not wait."),
            **forms.worse_redelivery(),
        },
    ):
        events, due = assets.of(spec, "events"), assets.of(spec, "labels_due")
        has_label_files = spec.label.files is not None
        StepOperator(
            step="ingest",
            model=spec.name,
            form=["no_delivery", "accept_worse", "reason"],
            outlets=[events, due] if has_label_files else [events],
            days_from={due.name: "relabel"},
            execution_timeout=timedelta(minutes=30),
            timeout=timedelta(hours=12),  # a delivery that is late; after that, somebody should hear of it
        )
        if has_label_files:
            # Beside, not behind: a day whose events are refused has its delivery of labels all the same.
            @task(outlets=[due], execution_timeout=timedelta(minutes=5))
            def labels_due(outlet_events: dict, **context: Any) -> None:
                outlet_events[due].extra = RunFacts.of(context, model=spec.name, keyed=True).event_extra()

            labels_due()
