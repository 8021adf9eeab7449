"""Take in one day of data: validate it, set bad rows aside, publish the rest.

**Reads** the model's source for the day (partition key). **Publishes** `<model>_events`
for that day, and once more for every later day that a changed delivery made out of date.

**Reruns** are safe: the same delivery gives the same bytes. Backfill this DAG, and the
days go through features and scores by themselves.

**On failure** the sentence in the log says which column broke which rule and how often.
The file stays where it came from and is copied to quarantine. Have it delivered again,
then clear the task. A refused day does not hold up the days after it; for a day that will
never be delivered, trigger with *No delivery*.
"""

from datetime import timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

from windsock.spec import ModelSpec
from windsock_airflow import assets, forms
from windsock_airflow.blueprint import identity, specs_for
from windsock_airflow.schedules import daily, live_from, live_until
from windsock_airflow.step import StepOperator


def ingest_dag(spec: ModelSpec) -> None:
    """Make one model's DAG."""
    with DAG(
        **identity(spec, "ingest", __doc__),
        schedule=daily(spec.schedule.ingest),
        start_date=live_from(spec),
        end_date=live_until(spec),
        max_active_runs=16,
        params={
            "no_delivery": forms.flag("No delivery", "Nothing will come for this day: later days need not wait."),
            "allow_empty": forms.flag("Allow empty", "An empty delivery may replace a day that has rows."),
        },
    ):
        limit = timedelta(minutes=30)
        ingest = StepOperator(
            step="ingest",
            model=spec.name,
            form=["no_delivery", "allow_empty"],
            outlets=[assets.events(spec)],
            execution_timeout=limit,
            # Labels and events are refused separately; neither waits for the other to be mended.
            trigger_rule="all_done",
        )
        if spec.label.files is not None:
            labels = StepOperator(step="labels", model=spec.name, execution_timeout=limit)
            labels >> [ingest, EmptyOperator(task_id="labels_published", execution_timeout=limit)]


for model in specs_for("ingest"):
    ingest_dag(model)
