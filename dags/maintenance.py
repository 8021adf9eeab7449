"""Keep the store small and fast without losing anything that is pinned.

**Started by** the clock, weekly. Removes files of tables that no record names, definitions of features that nobody
needs, trainings that became no version, checkpoints and studies of searches that are over, and what the spec's
`retention` lets go of: deliveries, refused deliveries, pages of reports and of Data Docs. Says what it freed.

**Reruns** are safe: a second run finds nothing to do, and a killed one is gone on with.
"""

from datetime import timedelta

from airflow.sdk import DAG

from windsock.spec import ModelSpec
from windsock_airflow.blueprint import for_each_model, identity, weekly
from windsock_airflow.step import StepOperator


@for_each_model("maintenance")
def maintenance_dag(spec: ModelSpec) -> None:
    """Make one model's DAG."""
    with DAG(
        **identity(spec, "maintenance", __doc__),
        # No start date: a fresh installation waits for the next tick.
        schedule=weekly(spec.schedule.maintenance),
        is_paused_upon_creation=False,
        max_active_runs=1,
    ):
        StepOperator(step="maintain", model=spec.name, keyed=False, execution_timeout=timedelta(hours=6))
