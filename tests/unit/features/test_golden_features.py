"""The fraud model's SQL against the published features of the fraud handbook."""

from datetime import date, datetime, timedelta

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from examples import thorough
from shared_data import shared_data
from windsock.features.view_sql import compute_view, entity_column
from windsock.settings import REPO_ROOT
from windsock.spec import load_spec

MONDAYS = [date(2018, 7, 25), date(2018, 8, 1), date(2018, 8, 8)]
DAYS_OF_A_WEEK = 7 if thorough() else 3
SPEC = load_spec(REPO_ROOT / "include" / "models" / "fraud" / "model.yaml")


def day_end(times: pa.Array) -> pa.Array:
    return pc.add(pc.floor_temporal(times, unit="day"), pa.scalar(timedelta(days=1, microseconds=-1)))


@pytest.fixture(scope="module")
def handbook() -> tuple[pa.Table, pa.Table, pd.DataFrame]:
    folder = shared_data("fraud_handbook")
    rows = pq.read_table(folder / "transactions_2018-04-01_2018-08-14.parquet")
    events = rows.select(list(SPEC.events.columns)).append_column("known_at", day_end(rows["TX_DATETIME"]))
    labels = pa.table(
        {
            "TRANSACTION_ID": rows["TRANSACTION_ID"],
            "TX_FRAUD": rows["TX_FRAUD"],
            "event_time": rows["TX_DATETIME"],
            "known_at": pc.add(rows["TX_DATETIME"], pa.scalar(timedelta(days=7))),
        }
    )
    return events, labels, pd.read_parquet(folder / "features_reference_2018-07-25_2018-08-14.parquet")


@pytest.mark.parametrize("monday", MONDAYS if thorough() else MONDAYS[-1:])
def test_a_week_of_features_equals_the_published_ones_but_for_same_second_ties(handbook, monday: date):
    events, labels, published = handbook
    differing: set[int] = set()
    compared = 0
    for day in (monday + timedelta(days=n) for n in range(DAYS_OF_A_WEEK)):
        start = datetime.combine(day, datetime.min.time())
        reach = (start - timedelta(days=37), start + timedelta(days=1))
        window = pc.and_(pc.greater_equal(events["TX_DATETIME"], reach[0]), pc.less(events["TX_DATETIME"], reach[1]))
        known_events, known_labels = events.filter(window), labels.filter(window)
        expected = published[(start <= published.TX_DATETIME) & (reach[1] > published.TX_DATETIME)]
        for view in SPEC.features.views:
            entity = entity_column(SPEC, view)
            ours = compute_view(SPEC, view, known_events, known_labels, day).to_pandas()
            joined = expected.merge(
                ours,
                left_on=[entity, "TX_DATETIME"],
                right_on=[entity, "event_timestamp"],
                how="left",
                suffixes=("", "_ours"),
            )
            assert len(joined) == len(expected)
            names = [c for c in ours.columns if c not in (entity, "event_timestamp")]
            assert len(names) == 6
            for name in names:
                off = ~((joined[name] - joined[f"{name}_ours"]).abs() <= 1e-6)
                differing |= set(joined.loc[off, "TRANSACTION_ID"])
            compared += len(joined)
    assert compared > 15_000 * DAYS_OF_A_WEEK
    assert len(differing) <= 5
    # Each one shares its second with another transaction of the same customer or terminal: pandas
    # counts only the rows above a row, a range frame counts both.
    rows = published[published.TRANSACTION_ID.isin(differing)]
    for row in rows.itertuples():
        same_second = published.TX_DATETIME == row.TX_DATETIME
        # A week later the tie lies at the edge of the terminal's delayed window.
        peers = published[
            same_second & ((published.CUSTOMER_ID == row.CUSTOMER_ID) | (published.TERMINAL_ID == row.TERMINAL_ID))
        ]
        near = events.filter(pc.equal(events["TERMINAL_ID"], row.TERMINAL_ID)).to_pandas()
        assert len(peers) > 1 or near.TX_DATETIME.duplicated().any()


def test_the_flags_equal_the_published_ones(handbook, tmp_path):
    from windsock.features.frame import event_frame
    from windsock.ledger import DayRecord
    from windsock.store import Store
    from windsock.tables import write_day

    events, _, published = handbook
    store = Store(str(tmp_path))
    day = date(2018, 7, 28)
    start = datetime.combine(day, datetime.min.time())
    window = pc.and_(
        pc.greater_equal(events["TX_DATETIME"], start), pc.less(events["TX_DATETIME"], start + timedelta(days=1))
    )
    output = write_day(store, "fraud", "events", day, events.filter(window))
    record = DayRecord(day.isoformat(), "published", {"events": output})
    frame = (
        event_frame(store, SPEC, [record])
        .to_pandas()
        .merge(published, on="TRANSACTION_ID", suffixes=("", "_published"))
    )
    assert len(frame) == output.rows
    for flag in ("TX_DURING_WEEKEND", "TX_DURING_NIGHT"):
        assert (frame[flag] == frame[f"{flag}_published"]).all()
        assert frame[flag].nunique() == (1 if flag == "TX_DURING_WEEKEND" else 2)
