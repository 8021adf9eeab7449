"""Files cut by the days of a time zone: the same rows in the same days as if they were cut by UTC."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivered import DAY, Inbox, transactions, with_column
from examples import examples
from small_model import small_fraud
from windsock.days import end_of, start_of
from windsock.errors import DayRejected, SpecError
from windsock.ingest.judge import conform_events
from windsock.ingest.labels import fetch_labels
from windsock.ingest.sources.delivery import NotDelivered, fetch
from windsock.ingest.sources.local_days import last_day_over, local_days
from windsock.ingest.zones import cast_times
from windsock.spec.sources import FilesSource
from windsock.steps import run_step

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Pacific/Kiritimati",
    "Pacific/Pago_Pago",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "Atlantic/Azores",
    "America/Havana",
    "Africa/Casablanca",
]
CHANGES = [date(2026, 3, 8), date(2026, 3, 29), date(2026, 4, 5), date(2026, 10, 25), date(2026, 11, 1), DAY]
"""Days on which some clocks are changed, and one on which none are."""


def _rows(times: list[datetime]) -> pa.Table:
    rows = transactions(max(len(times), 1)).slice(0, len(times))
    rows = with_column(rows, "TRANSACTION_ID", range(len(times)), pa.int64())
    return with_column(rows, "TX_DATETIME", times, pa.timestamp("us"))


def _write(path: Path, rows: pa.Table) -> None:
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(rows, path)
    else:
        pq.write_table(rows, path)


def _cut(folder: Path, rows: pa.Table, middle: date, zone: str, ending: str, times: str) -> None:
    """Write files by the days of a zone, with times as UTC without saying so, as instants, or as clocks show them."""
    instants = rows["TX_DATETIME"].cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("us", zone))
    clocks = pc.local_timestamp(instants)
    written = {"naive utc": rows["TX_DATETIME"], "instant": instants, "local": clocks}[times]
    days = clocks.cast(pa.date32(), safe=False)
    for n in range(-3, 5):
        local = middle + timedelta(days=n)
        part = rows.set_column(1, "TX_DATETIME", written).filter(pc.equal(days, pa.scalar(local, pa.date32())))
        _write(folder / f"{local}.{ending}", part)


@given(data=st.data())
@examples(60)
def test_rows_cut_by_the_days_of_any_zone_come_with_the_days_of_utc_that_they_are_of(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    zone, middle = data.draw(st.sampled_from(ZONES)), data.draw(st.sampled_from(CHANGES))
    around = st.integers(-(36 * 3600), 60 * 3600).map(lambda s: start_of(middle) + timedelta(seconds=s))
    rows = _rows(data.draw(st.lists(around, min_size=1, max_size=30)))
    times, ending = data.draw(st.sampled_from(["naive utc", "instant"])), data.draw(st.sampled_from(["parquet", "csv"]))
    folder = tmp_path_factory.mktemp("cut")
    _cut(folder, rows, middle, zone, ending, times)
    source = {"kind": "files", "url": f"{folder}/{{ds}}.{ending}", "timezone": zone, "naive_times": "utc"}
    _, spec = small_fraud(folder, source=source)

    for n in range(-1, 3):
        day = middle + timedelta(days=n)
        delivery = fetch(spec, day)
        found = conform_events(spec, day, delivery.rows, zone=delivery.zone).rows
        of_day = pc.and_(
            pc.greater_equal(rows["TX_DATETIME"], start_of(day)), pc.less(rows["TX_DATETIME"], end_of(day))
        )
        assert found.sort_by("TRANSACTION_ID") == rows.filter(of_day).select(found.column_names)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
def test_days_are_published_as_from_files_cut_by_utc(tmp_path: Path, zone: str) -> None:
    days = [date(2026, 3, 1) + timedelta(days=n) for n in range(3)]
    rows = pa.concat_tables([transactions(48, day) for day in [days[0] - timedelta(1), *days, days[-1] + timedelta(1)]])
    (tmp_path / "utc").mkdir()
    (tmp_path / "local").mkdir()
    by_utc, by_zone = Inbox(tmp_path / "utc"), _inbox(tmp_path / "local", zone)
    for day in days:
        by_utc.ingest(transactions(48, day), day)
    _cut(by_zone.folder, rows, days[1], zone, "parquet", "local")

    for day in reversed(days):
        assert by_zone.ingest(day=day)["warnings"] == by_utc.record(day).detail["warnings"]

    for day in days:
        assert by_zone.record(day).data_hash == by_utc.record(day).data_hash


def _inbox(home: Path, zone: str, ending: str = "parquet", **overrides) -> Inbox:
    source = {"kind": "files", "url": f"{home}/inbox/{{ds}}.{ending}", "timezone": zone}
    inbox = Inbox(home, ending=ending)
    inbox.settings, inbox.spec = small_fraud(home, source=source, **overrides)
    return inbox


def test_a_time_that_clocks_never_showed_is_set_aside_and_one_that_they_showed_twice_is_said(tmp_path: Path) -> None:
    inbox = _inbox(tmp_path, "Europe/Berlin", "csv")
    forward, back = date(2026, 3, 29), date(2026, 10, 25)
    for day in (forward, back):
        rows = transactions(96, day)
        for local in (day, day + timedelta(days=1)):
            shown = rows if local == day else with_column(transactions(96, local), "TX_FRAUD", [0] * 96)
            inbox.deliver(shown, local)

    found = inbox.ingest(day=forward)

    assert found["by_rule"] == {"TX_DATETIME is timestamp in Europe/Berlin": 4}  # a quarter of an hour each, from 02:00
    assert inbox.rows(day=forward).num_rows == 96 - 4 - 4 + 8  # as UTC's day is from 01:00 to 02:00
    said = [warning for warning in inbox.ingest(day=back)["warnings"] if "shown twice" in warning]
    assert len(said) == 1
    assert "4 of 92 times were shown twice by the clocks of Europe/Berlin" in said[0]
    times = inbox.rows(day=back)["TX_DATETIME"].to_pylist()
    assert datetime(2026, 10, 25, 0, 45) in times
    assert datetime(2026, 10, 25, 1, 30) not in times


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.date32(), pa.string()])
def test_a_date_on_which_clocks_left_midnight_out_is_the_instant_at_which_it_began(kind: pa.DataType) -> None:
    given = [datetime(2018, 11, 3), datetime(2018, 11, 4), datetime(2018, 11, 4, 0, 30)]
    dates = pa.array([str(d.date()) for d in given[:2]]) if kind == pa.string() else pa.array(given[:2], kind)
    clocks = pa.chunked_array([dates, pa.array([str(given[2])]) if kind == pa.string() else pa.array(given[2:], kind)])

    times, broken, twice = cast_times(clocks, "America/Sao_Paulo", from_text=kind == pa.string())

    half_past = datetime(2018, 11, 4, 3) if kind == pa.date32() else None
    assert times.to_pylist() == [datetime(2018, 11, 3, 3), datetime(2018, 11, 4, 3), half_past]
    assert (broken.tolist(), twice.tolist()) == ([] if half_past else [2], [])


def test_a_row_of_another_day_or_of_no_time_is_judged_once_on_the_day_of_the_file(tmp_path: Path) -> None:
    inbox = _inbox(tmp_path, "Europe/Berlin", validation={"quarantine_budget": 0.5})
    for n in (-1, 0, 1, 2):
        day = DAY + timedelta(days=n)
        rows = transactions(48, day)
        if day == DAY:
            times = rows["TX_DATETIME"].to_pylist()
            times[10], times[11] = None, times[11] + timedelta(days=30)
            rows = with_column(rows, "TX_DATETIME", times, pa.timestamp("us"))
        inbox.deliver(rows, day)

    results = {n: inbox.ingest(day=DAY + timedelta(days=n)) for n in (0, 1)}

    assert [results[n]["quarantined"] for n in (0, 1)] == [2, 0]
    assert [results[n]["rows"] for n in (0, 1)] == [46, 48]


def test_a_day_waits_for_both_its_files_and_beyond_the_models_days_for_none(tmp_path: Path) -> None:
    last = DAY + timedelta(days=1)
    inbox = _inbox(tmp_path, "Europe/Berlin", last_day=str(last))
    inbox.deliver(transactions(48))
    with pytest.raises(NotDelivered, match=str(last)):
        fetch(inbox.spec, DAY)
    inbox.deliver(transactions(48, last), last)

    assert fetch(inbox.spec, DAY).rows.num_rows == 48
    assert fetch(inbox.spec, last).rows.num_rows == 46
    with pytest.raises(NotDelivered):
        fetch(inbox.spec, last + timedelta(days=2))


def test_a_file_whose_times_cannot_be_read_refuses_the_days_it_is_needed_for(tmp_path: Path) -> None:
    inbox = _inbox(tmp_path, "Europe/Berlin")
    inbox.deliver(transactions(48))
    inbox.deliver(transactions(48).drop_columns("TX_DATETIME"), DAY + timedelta(days=1))
    with pytest.raises(DayRejected, match="'TX_DATETIME' stands in the file 0 times"):
        inbox.ingest()
    rows = transactions(48, DAY + timedelta(days=1))
    inbox.deliver(rows.drop_columns("TX_AMOUNT"), DAY + timedelta(days=1))
    with pytest.raises(DayRejected, match="'TX_AMOUNT': missing in some of its files"):
        inbox.ingest()
    inbox.deliver(with_column(rows, "TX_DATETIME", range(48), pa.int64()), DAY + timedelta(days=1))
    with pytest.raises(DayRejected, match="holds no times"):
        inbox.ingest()


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_one_big_file_is_cut_by_what_the_clocks_of_its_zone_mean(tmp_path: Path, ending: str) -> None:
    zone = "America/New_York"
    instants = [datetime(2026, 3, 1, tzinfo=UTC) + timedelta(minutes=30 * n) for n in range(48 * 12)]
    clocks = [i.astimezone(ZoneInfo(zone)).replace(tzinfo=None) for i in instants]
    never = datetime(2026, 3, 8, 2, 30)
    _write(tmp_path / f"all.{ending}", _rows([*clocks, never]))
    source = {"kind": "files", "url": f"{tmp_path}/all.{ending}", "timezone": zone}
    _, spec = small_fraud(tmp_path, source=source)

    for day in (date(2026, 3, 1), date(2026, 3, 8), date(2026, 3, 9)):
        delivery = fetch(spec, day)
        times = conform_events(spec, day, delivery.rows, zone=delivery.zone).rows["TX_DATETIME"]
        wanted = [i.replace(tzinfo=None) for i in instants if i.date() == day]
        assert times.to_pylist() == wanted + [None] * (day == never.date())  # set aside there, not lost


def test_a_kept_delivery_is_read_on_the_clocks_that_it_was_delivered_by(tmp_path: Path) -> None:
    events = {"time": "TX_DATETIME", "key": "TRANSACTION_ID"}
    features = {"row": {"customer": "CUSTOMER_ID"}}
    few = {"TRANSACTION_ID": "int64", "TX_DATETIME": "timestamp", "CUSTOMER_ID": "int64", "TERMINAL_ID": "int64"}
    inbox = _inbox(tmp_path, "America/New_York", "csv", events={**events, "columns": few}, features=features)
    (inbox.spec.folder / "expectations.json").write_text('{"expectations": []}')
    for n in (-1, 0):
        inbox.deliver(transactions(48, DAY + timedelta(days=n)), DAY + timedelta(days=n))
    inbox.ingest()
    before = inbox.rows()
    source = {"kind": "files", "url": f"{inbox.folder}/{{ds}}.csv"}
    inbox.settings, inbox.spec = small_fraud(
        tmp_path, source=source, events={**events, "columns": {**few, "TX_AMOUNT": "double"}}, features=features
    )

    assert inbox.ingest()["recovered"] == ["TX_AMOUNT"]
    assert inbox.rows()["TX_DATETIME"] == before["TX_DATETIME"]


def test_labels_of_local_days_come_with_the_first_day_by_whose_end_they_were_delivered(tmp_path: Path) -> None:
    label = {"column": "TX_FRAUD", "task": "binary", "delay_days": 7}
    for zone, delivered in {"Europe/Berlin": DAY, "America/New_York": DAY - timedelta(days=1)}.items():
        files = {"url": f"{tmp_path}/{{ds}}.csv", "key": "TRANSACTION_ID", "timezone": zone}
        _, spec = small_fraud(tmp_path, label={**label, "files": files})
        (tmp_path / f"{delivered}.csv").write_text(f"TRANSACTION_ID,TX_FRAUD\n{len(zone)},1\n")

        assert fetch_labels(spec, DAY).rows["TRANSACTION_ID"].to_pylist() == [str(len(zone))]


def test_the_label_file_of_the_local_day_before_the_first_one_is_not_waited_for(tmp_path: Path) -> None:
    files = {"url": f"{tmp_path}/{{ds}}.csv", "key": "TRANSACTION_ID", "timezone": "America/New_York"}
    label = {"column": "TX_FRAUD", "task": "binary", "delay_days": 7, "files": files}
    inbox = Inbox(tmp_path, label=label)
    inbox.ingest(transactions(48).drop_columns("TX_FRAUD"))
    inbox.ingest(transactions(48, DAY + timedelta(1)).drop_columns("TX_FRAUD"), DAY + timedelta(1))

    result = run_step("labels", model="fraud", key=str(DAY), settings=inbox.settings, live=True)

    assert result["status"] == "empty"
    assert f"{DAY - timedelta(1)} is before the model's first_day" in result["warnings"][0]
    with pytest.raises(NotDelivered, match=str(DAY)):
        run_step("labels", model="fraud", key=str(DAY + timedelta(1)), settings=inbox.settings, live=True)


@given(day=st.dates(date(2020, 1, 1), date(2030, 12, 31)), zone=st.sampled_from(ZONES))
@examples(100)
def test_a_local_day_that_is_over_has_no_later_instant(day: date, zone: str) -> None:
    over = last_day_over(day, zone)

    assert end_of(day).replace(tzinfo=UTC).astimezone(ZoneInfo(zone)).date() > over
    assert over + timedelta(days=1) == last_day_over(day + timedelta(days=1), zone)
    assert day in local_days(day, zone)


def test_a_zone_that_there_is_not_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"there is no time zone 'Europe/Berlni'. Did you mean 'Europe/Berlin'"):
        small_fraud(tmp_path, source={"kind": "files", "url": "{ds}.csv", "timezone": "Europe/Berlni"})


@pytest.mark.parametrize("name", ["posix/Europe/Berlin", "right/Europe/Berlin", "posixrules", "localtime", "Factory"])
def test_a_zone_that_only_some_machines_know_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"there is no time zone '{name}'"):
        FilesSource(kind="files", url="{ds}.csv", timezone=name)
