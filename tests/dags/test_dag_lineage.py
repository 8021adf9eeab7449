"""What starts what: a change of the graph shows in review."""

from datetime import UTC, datetime
from typing import Any

import pytest

LINEAGE = {
    "fraud_ingest": ("daily 00:30", ["ingest -> fraud_events"]),
    "fraud_features": ("per day of fraud_events", ["materialize -> fraud_features"]),
    "fraud_score": ("per day of fraud_features", ["score -> fraud_predictions"]),
    "fraud_monitor": ("daily 03:00", ["request => fraud_retrain"]),
    "fraud_retrain": ("by hand or operator", ["announce -> fraud_retrain_requested"]),
    "fraud_train": (
        "0 5 * * 1 or fraud_retrain_requested",
        ["prepare -> fraud_events", "register -> fraud_challenger"],
    ),
    "fraud_promote": ("fraud_challenger", ["promote -> fraud_champion"]),
    "fraud_rollback": ("by hand or operator", ["rollback -> fraud_champion"]),
    "fraud_maintenance": ("0 6 * * 0", []),
    "windsock_watch": ("by hand or operator", []),
}


def assets_of(condition: Any) -> str:
    return getattr(condition, "name", None) or ", ".join(asset.name for asset in condition.objects)


def starts(timetable: Any) -> str:
    match type(timetable).__name__:
        case "CronPartitionTimetable":
            zone = -timetable.timezone.offset if hasattr(timetable.timezone, "offset") else 0
            return f"daily {zone // 3600:02d}:{zone % 3600 // 60:02d}"
        case "PartitionedAssetTimetable":
            return f"per day of {assets_of(timetable.asset_condition)}"
        case "AssetOrTimeSchedule":
            return f"{timetable.timetable.expression} or {assets_of(timetable.asset_condition)}"
        case "AssetTriggeredTimetable":
            return assets_of(timetable.asset_condition)
        case "CronTriggerTimetable":
            return str(timetable.expression)
        case _:
            return "by hand or operator"


def publishes(dag: Any) -> list[str]:
    outlets = [f"{task.task_id} -> {asset.name}" for task in dag.tasks for asset in task.outlets]
    return outlets + [f"{t.task_id} => {t.trigger_dag_id}" for t in dag.tasks if hasattr(t, "trigger_dag_id")]


@pytest.mark.parametrize("dag_id", LINEAGE)
def test_lineage(bag: Any, dag_id: str):
    dag = bag.dags[dag_id]
    assert (starts(dag.timetable), publishes(dag)) == LINEAGE[dag_id]


def core_timetable(bag: Any, dag_id: str) -> Any:
    from airflow.serialization.serialized_objects import DagSerialization

    return DagSerialization.deserialize_dag(DagSerialization.serialize_dag(bag.dags[dag_id])).timetable


def test_a_scheduled_run_is_for_the_day_before_and_a_backfill_takes_both_of_its_ends(bag: Any):
    from airflow.timetables.base import DagRunInfo, TimeRestriction

    timetable = core_timetable(bag, "fraud_ingest")
    last = DagRunInfo(
        run_after=datetime(2026, 11, 20, 0, 30, tzinfo=UTC), data_interval=None, partition_key=None, partition_date=None
    )
    info = timetable.next_dagrun_info_v2(
        last_dagrun_info=last, restriction=TimeRestriction(datetime(2026, 9, 2, tzinfo=UTC), None, catchup=True)
    )
    assert (info.run_after, info.partition_key) == (datetime(2026, 11, 21, 0, 30, tzinfo=UTC), "2026-11-20")

    days = timetable.iter_partition_dagrun_infos(
        earliest=datetime(2026, 9, 1, tzinfo=UTC), latest=datetime(2026, 9, 3, tzinfo=UTC)
    )
    keys = [info.partition_key for info in days]
    assert keys == ["2026-09-01", "2026-09-02", "2026-09-03"]
    # A day triggered by hand, scheduled or backfilled is one and the same partition.
    assert timetable.resolve_partition_date("2026-11-20") == info_date(timetable, "2026-11-20") == info.partition_date


def info_date(timetable: Any, day: str) -> datetime:
    at = datetime.fromisoformat(day).replace(tzinfo=UTC)
    (info,) = timetable.iter_partition_dagrun_infos(earliest=at, latest=at)
    return info.partition_date


def test_nothing_starts_by_the_clock_once_the_last_day_is_over(tmp_path: Any, bag_of: Any):
    from small_model import small_fraud

    small_fraud(tmp_path, first_day="2026-03-01", last_day="2026-04-15")
    dag = bag_of(tmp_path / "models").dags["fraud_ingest"]
    assert dag.start_date == datetime(2026, 3, 2, tzinfo=UTC)
    # The run for 15 April is due on the 16th.
    assert datetime(2026, 4, 16, 0, 30, tzinfo=UTC) < dag.end_date < datetime(2026, 4, 17, 0, 30, tzinfo=UTC)


def test_only_what_the_clock_starts_waits_for_a_person_to_switch_it_on(bag: Any):
    by_default = {dag_id for dag_id, dag in bag.dags.items() if dag.is_paused_upon_creation is None}
    assert by_default == {"fraud_ingest", "fraud_monitor"}
    # An event for a paused DAG is lost, and these only react; their clock starts with the next tick.
    assert all(bag.dags[f"fraud_{stage}"].start_date is None for stage in ("train", "maintenance"))
