"""Score one day's events with the champion that was in force on that day.

**Reads** events and features of the day and the log of promotions. **Publishes**
`<model>_predictions` for the day, each row with the version it was made by; a day without
a champion is recorded as such.

**Reruns** are safe: a day whose events did not change keeps its predictions. To score it
with another version, or again, trigger with *Model version* or *Score again*.
"""

from airflow.sdk import DAG, PartitionedAssetTimetable

from windsock.spec import ModelSpec
from windsock_airflow import assets, forms
from windsock_airflow.blueprint import MANY_RUNS, for_each_model, identity
from windsock_airflow.step import StepOperator


@for_each_model("score")
def score_dag(spec: ModelSpec) -> None:
    """Make one model's DAG."""
    with DAG(
        **identity(spec, "score", __doc__),
        schedule=PartitionedAssetTimetable(assets=assets.of(spec, "features")),
        is_paused_upon_creation=False,
        max_active_runs=MANY_RUNS,
        params={
            "model_version": forms.version("Score with this version; empty: the day's champion."),
            "rescore": forms.flag("Score again", "Replace predictions that are still valid."),
        },
    ):
        StepOperator(
            step="score",
            model=spec.name,
            form=["model_version", "rescore"],
            inlets=[assets.of(spec, "features"), assets.of(spec, "champion")],
            outlets=[assets.of(spec, "predictions")],
        )
