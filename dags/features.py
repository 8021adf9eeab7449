"""Compute one day's features and bring them to the online store.

**Reads** events and labels of the day's whole lookback, only what was known by the end of
the day. **Publishes** `<model>_features` for the day.

**Waits** (no slot held, after a while no process) until every day of the lookback is published,
empty or refused; the log names the days that are missing. If nobody runs them, backfill
`<model>_ingest` over these days.

**Reruns** are safe: the same days give the same bytes, and the online store never goes
back to older values. To overwrite online values on purpose, trigger with *Correct*.
**On a parity error** the online store serves something else than the tables hold: read
the log's example, then run the day again with *Correct*.
"""

from datetime import timedelta

from airflow.sdk import DAG, PartitionedAssetTimetable

from windsock.spec import ModelSpec
from windsock_airflow import assets, forms
from windsock_airflow.blueprint import MANY_RUNS, for_each_model, identity
from windsock_airflow.step import StepOperator


@for_each_model("features")
def features_dag(spec: ModelSpec) -> None:
    """Make one model's DAG."""
    with DAG(
        **identity(spec, "features", __doc__),
        schedule=PartitionedAssetTimetable(assets=assets.of(spec, "events")),
        is_paused_upon_creation=False,
        max_active_runs=MANY_RUNS,
        params={"correct": forms.flag("Correct", "Overwrite newer online values with this day's.")},
    ):
        features = StepOperator(step="features", model=spec.name, execution_timeout=timedelta(hours=2))
        materialize = StepOperator(
            step="materialize",
            model=spec.name,
            form=["correct"],
            inlets=[assets.of(spec, "events")],
            outlets=[assets.of(spec, "features")],
        )
        features >> materialize
