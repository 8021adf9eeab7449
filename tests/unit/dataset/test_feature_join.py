from datetime import timedelta

import pyarrow as pa

from feature_tables import feature_days
from training_world import AS_OF, FIRST, copy_world
from windsock.dataset.feature_join import join_features
from windsock.days import day_range
from windsock.features.feature_tables import settled_features
from windsock.features.frame import event_frame
from windsock.featurestore.retrieval import point_in_time
from windsock.ledger import Ledger
from windsock.steps import run_step
from windsock.store import Store


def test_reading_only_the_days_that_are_needed_changes_nothing(world, tmp_path):
    """A view without rows for most events: they find features earlier in the day, in older days or nowhere."""
    settings, spec = copy_world(world[0], tmp_path)
    sql = spec.folder / "customer_spending.sql"
    sql.write_text(f"select * from ({sql.read_text()}) where hour(event_timestamp) < 3")
    days = day_range(FIRST, AS_OF)
    for day in days:
        run_step("features", model="fraud", key=str(day), settings=settings)
    store, first = Store.of(settings), AS_OF - timedelta(days=1)
    records = feature_days(settings, spec)
    frame = event_frame(store, spec, Ledger.of(settings, "fraud", "ingest").between(first, AS_OF).values())
    asked = []

    def join(rows, since):
        asked.append((since, rows.num_rows))
        chosen = {name: {d: r for d, r in days.items() if d >= since} for name, days in records.items()}
        return point_in_time(store, spec, rows, chosen)

    got = join_features(spec, frame, first, join)

    assert got.equals(point_in_time(store, spec, frame, records))
    assert asked[0] == (first, frame.num_rows)
    assert asked[1][0] == first - timedelta(days=10)  # the ttl
    assert 0 < asked[1][1] < frame.num_rows
    assert got["CUSTOMER_ID_NB_TX_1DAY_WINDOW"].null_count > 0


def test_days_with_a_row_for_every_event_are_read_alone(world):
    _, settings, spec = world
    store = Store.of(settings)
    frame = event_frame(store, spec, Ledger.of(settings, "fraud", "ingest").between(AS_OF, AS_OF).values())
    asked = []

    def join(rows, since):
        asked.append(since)
        return point_in_time(store, spec, rows, settled_features(settings, spec, since, AS_OF))

    assert isinstance(join_features(spec, frame, AS_OF, join), pa.Table)
    assert asked == [AS_OF]
