"""Keep the store small and fast without losing anything that is pinned.

**Started by** the clock, weekly. Compacts tables and removes files that no table version
in use, no training run and no promoted model refers to.

**Reruns** are safe: a second run finds nothing to do.
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
