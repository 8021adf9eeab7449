"""Close the gaps in the days of every model, and tell a person of what cannot be closed.

**Started by** a thread of the scheduler every quarter of an hour, and every minute while days are made up for.
**Reads** the ledger of each model: which days are due and not settled, stage by stage, and who waits for what.
**Starts** live runs for days that nobody is on the way for, in order, within `schedule.catch_up_days` of the spec:
after an outage, a pause, a clock that was wrong, or events that were lost.

**Tells**, once each: which days are made up for; which are too old for it, with the command that runs them; which
DAG is paused although days are lacking; which run waits for longer than `schedule.alert_after_hours`. Once a day, how
each model stands (`alerts.digest`).

**Reruns** are safe: a day is asked for once. **On failure** read the log; the next look comes by itself. Paused, it
starts and tells nothing.
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, get_parsing_context, task

from windsock_airflow.blueprint import defaults
from windsock_airflow.watch import look_after_all
from windsock_airflow.watch_clock import DAG_ID, TASK_ID

if get_parsing_context().dag_id in (None, DAG_ID):
    with DAG(
        dag_id=DAG_ID,
        description=__doc__.partition("\n")[0],
        doc_md=__doc__,
        tags=["stage:watch"],
        schedule=None,
        catchup=False,
        is_paused_upon_creation=False,
        max_active_runs=1,
        default_args=defaults("windsock"),
    ):

        @task(task_id=TASK_ID, execution_timeout=timedelta(minutes=10))
        def look(**context: Any) -> dict[str, Any]:
            """Look after each model; the result names the runs that are wanted."""
            return look_after_all(context)

        look()
