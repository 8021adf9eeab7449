"""Take in one day's delivery of labels, for models whose labels come as files of their own.

**Reads** the label file of the day (partition key: the day of delivery) and the events its
labels are for. **Publishes** labels of the day, and `<model>_events` once more for every
day whose features they made out of date.

**Waits** (no slot held, after a while no process) until the events of the days before are settled
and until the file is there. For a day without labels, trigger with *No delivery*.

**Reruns** are safe: the same delivery gives the same bytes. When a day of events is
replaced, the deliveries that were matched with it run again by themselves.
**On failure** the log names column, rule, count and an example; the file is in quarantine.
"""

from datetime import timedelta

from airflow.sdk import DAG, PartitionedAssetTimetable

from windsock.spec import ModelSpec
from windsock_airflow import assets, forms
from windsock_airflow.blueprint import MANY_RUNS, for_each_model, identity
from windsock_airflow.step import StepOperator


@for_each_model("labels")
def labels_dag(spec: ModelSpec) -> None:
    """Make one model's DAG, if its labels come so."""
    if spec.label.files is None:
        return
    with DAG(
        **identity(spec, "labels", __doc__),
        schedule=PartitionedAssetTimetable(assets=assets.of(spec, "labels_due")),
        is_paused_upon_creation=False,
        max_active_runs=MANY_RUNS,
        params={
            "no_delivery": forms.flag("No delivery", "No labels will come for this day."),
            **forms.worse_redelivery(),
        },
    ):
        events = assets.of(spec, "events")
        StepOperator(
            step="labels",
            model=spec.name,
            form=["no_delivery", "accept_worse", "reason"],
            outlets=[events],
            days_from={events.name: "refresh"},
            execution_timeout=timedelta(minutes=30),
        )
