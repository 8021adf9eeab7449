"""Put an earlier champion back in force, whole, in one action.

**Started by** hand only. Leave *Model version* empty for the champion before this one.
**Publishes** `<model>_champion`. From the next day on, days are scored by that version;
days that were scored keep their predictions.

**Reruns** are safe: the version that is in force stays in force.
"""

from airflow.sdk import DAG

from windsock.spec import ModelSpec
from windsock_airflow import assets, forms
from windsock_airflow.blueprint import for_each_model, identity
from windsock_airflow.step import StepOperator


@for_each_model("rollback")
def rollback_dag(spec: ModelSpec) -> None:
    """Make one model's DAG."""
    with DAG(
        **identity(spec, "rollback", __doc__),
        schedule=None,
        is_paused_upon_creation=False,
        max_active_runs=1,
        params={
            "to_version": forms.version("Version to put back; empty: the one before the champion."),
            "reason": forms.reason("What is wrong with the champion.", required=True),
        },
    ):
        StepOperator(
            step="rollback",
            model=spec.name,
            keyed=False,
            form=["to_version", "reason"],
            outlets=[assets.of(spec, "champion")],
            announce=["version", "previous", "in_force_from"],
        )
