"""DAGs without work: what remains is what Airflow itself costs."""

import os
from datetime import UTC, datetime

from airflow.sdk import DAG, Asset, CronPartitionTimetable, PartitionedAssetTimetable, task

TASKS = int(os.environ.get("WINDSOCK_BENCH_TASKS", "20"))
HANDED_ON = Asset(name="bench_handed_on", uri="x-windsock://bench/handed_on")

with DAG("bench_sequence", schedule=None, catchup=False, tags=["bench"], doc_md=__doc__):
    previous = None
    for number in range(TASKS):

        @task(task_id=f"step_{number:02d}")
        def step() -> None:
            pass

        current = step()
        if previous is not None:
            previous >> current
        previous = current

with DAG("bench_parallel", schedule=None, catchup=False, tags=["bench"], doc_md=__doc__):
    for number in range(TASKS):

        @task(task_id=f"step_{number:02d}")
        def alone() -> None:
            pass

        alone()

with DAG(
    "bench_producer",
    # The clock starts nothing: its days are over. Keyed runs are triggered.
    schedule=CronPartitionTimetable("0 0 * * *", timezone="UTC", key_format="%Y-%m-%d"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    end_date=datetime(2026, 1, 2, tzinfo=UTC),
    catchup=False,
    tags=["bench"],
    doc_md=__doc__,
):

    @task(outlets=[HANDED_ON])
    def produce() -> None:
        pass

    produce()

with DAG(
    "bench_consumer",
    schedule=PartitionedAssetTimetable(assets=HANDED_ON),
    catchup=False,
    tags=["bench"],
    doc_md=__doc__,
):

    @task
    def consume() -> None:
        pass

    consume()
