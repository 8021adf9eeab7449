"""Compare recent days with what the champion knew, and decide whether to train again.

**Reads** features, predictions and the labels that have matured by the day. **Writes** the
day's drift and performance report; `govern` weighs the signals of recent days (hysteresis,
pause, cool-down, budget) and records its decision with reasons. **Starts** `<model>_retrain`
if it decided to, once per request; where requests do not help, people are told.

**Reruns** are safe: the same day gives the same decision, and repeats its own request
until there is a training for it. Backfills report and never retrain.
"""

from airflow.sdk import DAG

from windsock.spec import ModelSpec
from windsock_airflow import assets
from windsock_airflow.blueprint import MANY_RUNS, daily, for_each_model, heavy_step, identity, live_from, live_until
from windsock_airflow.decisions import RequestRetraining
from windsock_airflow.step import StepOperator


@for_each_model("monitor")
def monitor_dag(spec: ModelSpec) -> None:
    """Make one model's DAG."""
    with DAG(
        **identity(spec, "monitor", __doc__),
        schedule=daily(spec.schedule.monitor),
        start_date=live_from(spec),
        end_date=live_until(spec),
        max_active_runs=MANY_RUNS,
    ):
        looked_at = [assets.of(spec, kind) for kind in ("events", "features", "predictions")]
        monitor = heavy_step(spec, step="monitor", inlets=looked_at)
        # One after another: cool-down and budget count what was decided before.
        govern = StepOperator(step="govern", model=spec.name, max_active_tis_per_dag=1)
        monitor >> govern
        RequestRetraining(task_id="request", model=spec.name, decision=govern.output)
