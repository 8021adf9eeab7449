"""Edits of a model's columns: what days that are stored give then, what a rerun takes in, and what is refused."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from delivered import DAY, PAYMENT, Inbox, transactions, with_column
from examples import examples
from small_model import small_fraud
from windsock import tables
from windsock.errors import DayRejected, NotReady, SpecError, UpstreamUnavailable
from windsock.ingest import undeclared
from windsock.ingest.gaps import find_gaps
from windsock.ingest.kept import delivered_since
from windsock.ledger import Ledger, columns_hash
from windsock.steps import run_step
from windsock.store import Store

NEXT = DAY + timedelta(days=1)
EVENTS: dict[str, Any] = {"time": "TX_DATETIME", "key": "TRANSACTION_ID", "ignore": []}
MCC = [n % 7 for n in range(400)]


def delivery(day: date = DAY, **more: list) -> pa.Table:
    rows = transactions(day=day)
    for name, values in more.items():
        rows = rows.append_column(name, pa.array(values))
    return rows


def edit(inbox: Inbox, columns: Mapping[str, Any], **overrides: Any) -> Inbox:
    """Declare other columns in the model of an inbox, which keeps its store and its deliveries."""
    events = EVENTS | {"columns": dict(columns)}
    edited = Inbox(inbox.folder.parent, ending=inbox.ending, events=events, **overrides)
    suite(edited)  # the fraud model's own names its columns
    return edited


def suite(inbox: Inbox, *expectations: dict[str, Any]) -> None:
    path = inbox.spec.folder / "expectations.json"
    path.write_text(json.dumps({"expectations": expectations}), encoding="utf-8")


def forget_columns(inbox: Inbox) -> None:
    """Let the records say what those of version 0.1 said."""
    store = Store.of(inbox.settings)
    for name in store.files("fraud", "ledger", "ingest"):
        record = store.read_json("fraud", "ledger", "ingest", name)
        for output in record["outputs"].values():
            output.pop("columns"), output.pop("column_hashes")
        store.write_json(record, "fraud", "ledger", "ingest", name)


def read(inbox: Inbox, day: date = DAY) -> pa.Table:
    return tables.read_events(Store.of(inbox.settings), inbox.spec, [inbox.record(day)])


@dataclass(frozen=True)
class Edit:
    columns: Mapping[str, Any]
    """Declared afterwards."""
    column: str
    """The one that it is about."""
    values: list | None
    """What a stored day gives for it at once; None: it lacks there, and is no fault of a day before ``since``."""
    again: list | None
    """What it gives after a rerun; None: the rerun is refused."""
    delivered: Mapping[str, list]


def without(name: str) -> dict[str, str]:
    return {column: kind for column, kind in PAYMENT.items() if column != name}


AMOUNTS = transactions()["TX_AMOUNT"].to_pylist()
NULLS = [None] * 400
EDITS = {
    "added, and delivered all along": Edit({**PAYMENT, "MCC": "int64"}, "MCC", NULLS, MCC, {"MCC": MCC}),
    "added, and delivered all along by another name": Edit(
        {**PAYMENT, "MCC": {"type": "int64", "from": "mcc code"}}, "MCC", NULLS, MCC, {"mcc code": MCC}
    ),
    "added, and never delivered": Edit({**PAYMENT, "MCC": "int64"}, "MCC", NULLS, None, {}),
    "added, and delivered from a later day on": Edit(
        {**PAYMENT, "MCC": {"type": "int64", "since": "2026-03-02"}}, "MCC", NULLS, NULLS, {}
    ),
    "widened": Edit(
        {**PAYMENT, "TERMINAL_ID": "double"},
        "TERMINAL_ID",
        [n % 80 for n in range(400)],
        [n % 80 for n in range(400)],
        {},
    ),
    "renamed": Edit(
        {**without("TX_AMOUNT"), "amount": {"type": "double", "from": "TX_AMOUNT"}}, "amount", NULLS, AMOUNTS, {}
    ),
    "in other case": Edit(
        {**without("TX_AMOUNT"), "tx_amount": {"type": "double", "from": "TX_AMOUNT"}}, "tx_amount", NULLS, AMOUNTS, {}
    ),
    "reordered": Edit(dict(reversed(PAYMENT.items())), "TX_AMOUNT", AMOUNTS, AMOUNTS, {}),
    "of a new type under a name of its own": Edit(
        {**PAYMENT, "AMOUNT_INT": {"type": "int64", "from": "TX_CENTS"}}, "AMOUNT_INT", NULLS, MCC, {"TX_CENTS": MCC}
    ),
}


@pytest.mark.parametrize("version", ["0.1", "today"])
@pytest.mark.parametrize("name", EDITS)
def test_of_an_edited_column_stored_days_give_what_was_stored_and_a_rerun_takes_in_what_was_delivered(
    tmp_path, name: str, version: str
):
    wanted = EDITS[name]
    inbox = edit(Inbox(tmp_path), PAYMENT)
    inbox.ingest(delivery(**wanted.delivered))
    before = inbox.record()
    if version == "0.1":
        forget_columns(inbox)
    edited = edit(inbox, wanted.columns)

    stored = read(edited)
    (inbox.folder / f"{DAY}.parquet").unlink()  # no source is asked again
    if wanted.again is None or wanted.again == wanted.values:
        with pytest.raises(UpstreamUnavailable):
            edited.ingest()
        assert edited.record().data_hash == before.data_hash
    else:
        assert edited.ingest()["recovered"] == [wanted.column]
        assert edited.ingest(delivery(**wanted.delivered))["changed"] is False

    assert stored[wanted.column].to_pylist() == wanted.values
    assert read(edited)[wanted.column].to_pylist() == (wanted.again or wanted.values)
    for column in set(PAYMENT) & set(edited.spec.events.columns) - {wanted.column}:
        assert stored[column].equals(read(edited)[column])
    if version == "today":
        kept = set(PAYMENT) - {"TERMINAL_ID" if name == "widened" else ""}
        assert columns_hash(edited.record().outputs["events"], kept) == columns_hash(before.outputs["events"], kept)


@pytest.mark.parametrize("version", ["0.1", "today"])
@pytest.mark.parametrize(
    ("column", "kind"), [("TX_AMOUNT", "int64"), ("TERMINAL_ID", "string"), ("TX_DATETIME", "date")]
)
def test_a_column_that_becomes_narrower_is_refused_with_the_way_out(tmp_path, column: str, kind: str, version: str):
    inbox = edit(Inbox(tmp_path), {**PAYMENT, "WHEN": {"type": "timestamp", "from": "again"}})
    inbox.ingest(delivery(again=transactions()["TX_DATETIME"].to_pylist()))
    if version == "0.1":
        forget_columns(inbox)
    column = "WHEN" if column == "TX_DATETIME" else column  # the event time cannot be anything else
    edited = edit(inbox, {**inbox.spec.events.columns, column: kind})

    with pytest.raises(SpecError, match=f"as in {column}_{kind}: {{type: {kind}, from: {column}}}"):
        read(edited)


@pytest.mark.parametrize("version", ["0.1", "today"])
def test_a_column_that_is_removed_stays_in_days_that_have_it_also_when_they_come_again(tmp_path, version: str):
    inbox = edit(Inbox(tmp_path), {**PAYMENT, "MCC": "int64"})
    inbox.ingest(delivery(MCC=MCC))
    before = inbox.record()
    if version == "0.1":
        forget_columns(inbox)
    edited = edit(inbox, PAYMENT)

    edited.ingest()
    edited.ingest(delivery(day=NEXT, MCC=MCC), NEXT)

    assert "MCC" not in read(edited).column_names
    assert edited.record().data_hash == before.data_hash
    assert edited.rows()["MCC"].to_pylist() == MCC
    assert "MCC" not in edited.rows(day=NEXT).column_names


@pytest.mark.parametrize(
    "kept", [MCC, ["restaurant"] * 400, None], ids=["delivered", "of another type", "not delivered"]
)
def test_a_column_that_a_living_version_reads_goes_on_being_stored_and_refuses_no_day(tmp_path, monkeypatch, kept):
    inbox = edit(Inbox(tmp_path), PAYMENT)
    monkeypatch.setattr(undeclared, "extra_columns", lambda ctx: {"MCC": "int64", "TX_FRAUD": "int64"})

    result = inbox.ingest(delivery(**({} if kept is None else {"MCC": kept})))

    rows = inbox.rows()
    assert result["status"] == "published"
    assert "TX_FRAUD" not in rows.column_names  # the label, whoever asks
    assert ("MCC" in rows.column_names) == (kept is MCC)
    assert any("MCC" in warning for warning in result["warnings"]) == (kept not in (MCC, None))


@pytest.mark.parametrize("version", ["0.1", "today"])
def test_a_column_named_like_ours_is_never_taken_for_ours_nor_ours_for_it(tmp_path, version: str):
    theirs = transactions()["TX_DATETIME"].to_pylist()
    inbox = edit(Inbox(tmp_path), PAYMENT)
    inbox.ingest(delivery(known_at=theirs))
    ours = read(inbox)["known_at"]
    if version == "0.1":
        forget_columns(inbox)

    added = edit(inbox, {**PAYMENT, "known_at": "timestamp"})
    with pytest.raises(SpecError, match=rf"called 'known_at_' now, and otherwise in the rows of {DAY}.*known_at_there"):
        read(added)
    assert added.ingest()["recovered"] == ["known_at"]
    assert read(added)["known_at"].to_pylist() == theirs
    assert read(added)["known_at_"].equals(ours)

    removed = edit(inbox, PAYMENT)
    with pytest.raises(SpecError, match="called 'known_at' now"):
        read(removed)
    removed.ingest()
    assert read(removed)["known_at"].equals(ours)


RENAMED = {name: {"type": kind, "from": f"their {name}"} for name, kind in PAYMENT.items()}


@pytest.mark.parametrize("kind", ["a file a day", "one file", "one CSV file", "a query"])
def test_names_in_the_delivery_are_the_sources_business_alone(tmp_path, monkeypatch, kind: str):
    ours = delivery().set_column(0, "TRANSACTION_ID", pa.array([None, *range(1, 400)]))  # one row is set aside
    theirs = ours.rename_columns([f"their {name}" if name in PAYMENT else name for name in ours.column_names])
    plain, renamed = (
        edit(Inbox(folder(tmp_path / name)), columns) for name, columns in (("a", PAYMENT), ("b", RENAMED))
    )
    plain.ingest(ours)
    if kind == "a query":
        monkeypatch.setenv("DB", f"sqlite:///{tmp_path}/db.sqlite")
        write_database(tmp_path / "db.sqlite", theirs)
        query = 'select * from tx where "their TX_DATETIME" >= :start and "their TX_DATETIME" < :end'
        source = {"kind": "sql", "url_env": "DB", "query": query}
    else:
        name = {"a file a day": "{ds}.parquet", "one file": "all.parquet", "one CSV file": "all.csv"}[kind]
        source = {"kind": "files", "url": f"{renamed.folder}/{name}", "quiet_seconds": 0}
        write = pyarrow.csv.write_csv if name.endswith("csv") else pyarrow.parquet.write_table
        write(theirs, renamed.folder / name.replace("{ds}", str(DAY)))
    small_fraud(tmp_path / "b", source=source, events=EVENTS | {"columns": RENAMED})
    suite(renamed)

    renamed.ingest()

    assert renamed.record().outputs["events"].hash == plain.record().outputs["events"].hash
    assert renamed.record().outputs["labels"].hash == plain.record().outputs["labels"].hash
    (row,) = renamed.rows("quarantine").to_pylist()
    assert (row["rule"], json.loads(row["row"])["their CUSTOMER_ID"] in (0, "0")) == ("TRANSACTION_ID not null", True)


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def write_database(path: Path, rows: pa.Table) -> None:
    with sqlite3.connect(path) as db:
        rows.to_pandas().astype({"their TX_DATETIME": str}).to_sql("tx", db, index=False)


def test_a_day_from_since_on_must_have_the_column_and_one_before_must_not_have_values_of_it(tmp_path):
    inbox = edit(Inbox(tmp_path), {**PAYMENT, "MCC": {"type": "int64", "since": str(NEXT)}})

    with pytest.raises(DayRejected, match=r"MCC: the declared column \(int64\) is missing.*`since:` from which day on"):
        inbox.ingest(delivery(NEXT), NEXT)
    with pytest.raises(SpecError, match=rf"MCC is delivered since {NEXT}.* 400 of 400 rows .*Write since: {DAY}"):
        inbox.ingest(delivery(MCC=MCC))
    assert inbox.record() is None
    inbox.ingest(with_column(delivery(MCC=MCC), "MCC", NULLS, pa.int64()))
    assert inbox.rows()["MCC"].null_count == 400


def test_rules_about_a_column_are_not_held_against_days_before_it_was_delivered(tmp_path):
    inbox = edit(Inbox(tmp_path), {**PAYMENT, "MCC": {"type": "int64", "since": str(NEXT)}})
    rule = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "MCC"}, "severity": "critical"}
    suite(inbox, rule)

    assert inbox.ingest(delivery())["status"] == "published"
    with pytest.raises(DayRejected, match="MCC"):
        inbox.ingest(with_column(delivery(NEXT, MCC=MCC), "MCC", NULLS, pa.int64()), NEXT)


@pytest.mark.parametrize("ending", ["parquet", "csv", "csv.gz"])
def test_the_kept_deliveries_say_since_when_a_column_is_delivered(tmp_path, ending: str):
    inbox = edit(Inbox(tmp_path, ending=ending), PAYMENT)
    days = [DAY + timedelta(days=n) for n in range(5)]
    for n, day in enumerate(days):
        inbox.ingest(delivery(day, **({"mcc": MCC} if n in (1, 3, 4) else {})), day)
    edited = edit(inbox, {**PAYMENT, "MCC": {"type": "int64", "from": "mcc"}, "GONE": "string"})
    store = Store.of(edited.settings)

    assert delivered_since(store, edited.spec, "MCC") == days[3]
    assert delivered_since(store, edited.spec, "GONE") is None
    assert delivered_since(store, edited.spec, "TX_AMOUNT") == days[0]
    edited = edit(inbox, {**PAYMENT, "MCC": {"type": "int64", "from": "mcc"}})
    edited.ingest(day=days[4])
    store.fs.rm(store.path(edited.record(days[4]).detail["source"]["raw"]))
    store.fs.rm(store.path(edited.record(days[3]).detail["source"]["raw"]))
    assert delivered_since(store, edited.spec, "MCC") == days[4]  # in its rows by now


def test_a_gap_in_a_column_is_told_with_its_days_and_the_line_to_write(tmp_path):
    inbox = edit(Inbox(tmp_path), PAYMENT)
    days = [DAY + timedelta(days=n) for n in range(4)]
    for n, day in enumerate(days):
        inbox.ingest(delivery(day, **({"mcc": MCC} if n >= 2 else {})), day)
    edited = edit(inbox, {**PAYMENT, "MCC": {"type": "int64", "from": "mcc"}, "NEW": "string"})
    store, records = Store.of(edited.settings), Ledger.of(edited.settings, "fraud", "ingest").all()

    mcc, new = find_gaps(store, edited.spec, records.values(), ["TX_AMOUNT", "MCC", "NEW"])

    assert (mcc.column, mcc.days, mcc.recoverable, mcc.unexplained) == (
        "MCC",
        tuple(days),
        tuple(days[2:]),
        tuple(days[:2]),
    )
    assert mcc.line == f"MCC: {{type: int64, since: {days[2]}, from: mcc}}"
    assert f"write `{mcc.line}` under events.columns" in str(mcc)
    assert (new.days, new.line) == (tuple(days), None)
    told = edit(inbox, {**PAYMENT, "MCC": {"type": "int64", "since": str(days[2]), "from": "mcc"}})
    (left,) = find_gaps(store, told.spec, records.values(), ["MCC"])
    assert left.days == left.recoverable == tuple(days[2:])
    for day in left.recoverable:
        told.ingest(day=day)
    records = Ledger.of(told.settings, "fraud", "ingest").all()
    assert find_gaps(store, told.spec, records.values(), told.spec.events.columns) == []


def test_what_todays_rules_refuse_in_a_kept_delivery_is_asked_of_the_source(tmp_path):
    inbox = edit(Inbox(tmp_path), PAYMENT)
    inbox.ingest(delivery(MCC=[None, *MCC[1:]]))
    before = inbox.record()
    edited = edit(inbox, {**PAYMENT, "MCC": "string"})
    (inbox.folder / f"{DAY}.parquet").unlink()

    with pytest.raises(UpstreamUnavailable):
        edited.ingest()
    assert edited.record() == before

    edited.ingest(delivery(MCC=[str(n) for n in MCC]))
    assert edited.rows()["MCC"].to_pylist() == [str(n) for n in MCC]


def test_a_live_run_asks_the_source_first_and_takes_what_was_kept_if_that_has_nothing(tmp_path):
    inbox = edit(Inbox(tmp_path), PAYMENT)
    inbox.ingest(delivery(MCC=MCC))
    edited = edit(inbox, {**PAYMENT, "MCC": "int64"})
    edited.deliver(delivery(MCC=[9] * 400))

    assert "recovered" not in live(edited)
    assert edited.rows()["MCC"].to_pylist() == [9] * 400

    (inbox.folder / f"{DAY}.parquet").unlink()
    renamed = edit(inbox, {**PAYMENT, "mcc": {"type": "int64", "from": "MCC"}})
    assert live(renamed)["recovered"] == ["mcc"]
    assert renamed.rows()["mcc"].to_pylist() == [9] * 400
    with pytest.raises(NotReady):
        live(renamed)


def live(inbox: Inbox) -> dict[str, Any]:
    return run_step("ingest", model="fraud", key=str(DAY), settings=inbox.settings)


@examples(12, suppress=[HealthCheck.function_scoped_fixture])
@given(
    codes=st.lists(st.sampled_from([1, 7, None, "n/a", "", "12.0", "twelve"]), min_size=20, max_size=20),
    copies=st.lists(st.integers(0, 19), max_size=3),
    known=st.booleans(),
)
def test_no_row_is_lost_or_made_when_a_day_is_derived_again(
    tmp_path_factory, codes: list, copies: list[int], known: bool
):
    rows = transactions(20).append_column("MCC", pa.array([None if c is None else str(c) for c in codes]))
    rows = pa.concat_tables([rows, rows.take(pa.array(copies, pa.int64()))])
    columns = {**PAYMENT, "MCC": "int64"} if known else PAYMENT
    overrides = {"validation": {"quarantine_budget": 1.0}}
    inbox = edit(Inbox(tmp_path_factory.mktemp("inbox"), ending="csv"), columns, **overrides)
    try:
        inbox.ingest(rows)
    except DayRejected:  # not one row was left
        assert not any(c in (1, 7, None, "", "n/a", "12.0") for c in codes)
        return
    edited = edit(inbox, {**PAYMENT, "MCC": "int64"}, **overrides)

    edited.ingest()

    record = edited.record()
    quarantined = record.rows("quarantine")
    assert record.rows("events") + quarantined == record.detail["delivered"] == rows.num_rows
    told = dict(zip(rows["TRANSACTION_ID"].to_pylist(), codes, strict=False))
    meant = {1: 1, 7: 7, None: None, "": None, "n/a": None, "12.0": 12}
    events = edited.rows()
    assert dict(zip(events["TRANSACTION_ID"].to_pylist(), events["MCC"].to_pylist(), strict=True)) == {
        key: meant[code] for key, code in told.items() if code != "twelve"
    }
