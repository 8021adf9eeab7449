"""Data Docs are built from the results of days, and nothing is ever written into the repository."""

import hashlib
import json
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta

import jinja2
import pyarrow as pa
import pytest

from churn_model import COLUMNS, Churn, delivery
from churn_model import DAY as CHURN_DAY
from delivered import DAY, Inbox, transactions
from fork_server import fork_context
from windsock.settings import REPO_ROOT
from windsock.steps import run_step
from windsock.validate import docs
from windsock.validate.docs import result_path


def _digest(folder):
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def _ingest(settings, key):
    return run_step("ingest", model="fraud", key=key, settings=settings, live=False)["status"]


def test_days_validated_at_once_by_many_processes_each_get_their_page(tmp_path):
    inbox = Inbox(tmp_path)
    before = _digest(REPO_ROOT / "great_expectations")
    days = [DAY + timedelta(days=n) for n in range(6)]
    for day in days:
        inbox.deliver(transactions(300, day), day)

    with ProcessPoolExecutor(3, mp_context=fork_context()) as pool:
        statuses = list(pool.map(_ingest, [inbox.settings] * len(days), map(str, days)))

    assert statuses == ["published"] * len(days)
    index = docs.build(inbox.settings)
    assert index.is_file()
    for day in days:
        page = docs.page_path(inbox.settings, inbox.spec, day).read_text(encoding="utf-8")
        assert "TX_AMOUNT" in page
        assert str(day) in index.read_text(encoding="utf-8")
    assert (index.parent / "expectations" / "fraud_events.html").is_file()
    assert _digest(REPO_ROOT / "great_expectations") == before


def test_a_live_day_with_warnings_gets_its_page_at_once_and_a_replayed_one_does_not(tmp_path):
    inbox = Inbox(tmp_path)
    later = DAY + timedelta(days=1)
    inbox.ingest(transactions())
    assert result_path(inbox.settings, inbox.spec, DAY).is_file()
    assert not docs.page_path(inbox.settings, inbox.spec, DAY).exists()

    inbox.deliver(transactions(day=later), later)
    result = run_step("ingest", model="fraud", key=str(later), settings=inbox.settings, live=True)

    assert result["warnings"]
    assert docs.page_path(inbox.settings, inbox.spec, later).is_file()


def test_the_second_page_of_a_process_compiles_no_template(tmp_path, monkeypatch):
    inbox = Inbox(tmp_path)
    inbox.ingest(transactions())
    first = docs.add_day(inbox.settings, inbox.spec, DAY).read_text(encoding="utf-8")
    monkeypatch.setattr(jinja2.Environment, "compile", lambda *_, **__: pytest.fail("a template is compiled again"))

    again = docs.add_day(inbox.settings, inbox.spec, DAY).read_text(encoding="utf-8")

    assert first.count("TX_AMOUNT") == again.count("TX_AMOUNT") > 0


def test_a_page_that_cannot_be_built_does_not_fail_the_day(tmp_path, monkeypatch, caplog):
    inbox = Inbox(tmp_path)
    inbox.deliver(transactions())
    monkeypatch.setattr(docs, "add_day", lambda *_: 1 / 0)

    result = run_step("ingest", model="fraud", key=str(DAY), settings=inbox.settings, live=True)

    assert result["status"] == "published"
    assert "Data Docs page could not be built" in caplog.text


def test_a_bad_days_result_stays_small(tmp_path):
    inbox = Inbox(tmp_path, validation={"quarantine_budget": 1.0})
    table = transactions(20_000)
    inbox.ingest(table.set_column(4, "TX_AMOUNT", [[-1.0] * 19_999 + [1.0]]))

    assert result_path(inbox.settings, inbox.spec, DAY).stat().st_size < 100_000


SCRIPT = "<script>alert('1')</script><img src=x onerror=alert(1)>"


def test_a_delivered_value_that_is_a_script_is_text_in_the_page(tmp_path):
    rule = {"type": "expect_column_values_to_be_in_set", "severity": "warning",
            "kwargs": {"column": "plan", "value_set": ["a", "b"]}}  # fmt: skip
    suite = tmp_path / "models" / "churn" / "expectations.json"
    suite.parent.mkdir(parents=True)
    suite.write_text(json.dumps({"expectations": [rule]}))
    churn = Churn.make(tmp_path, events__columns={**COLUMNS, "plan": "string"})
    churn.ingest(delivery(more={"plan": pa.array([SCRIPT, *["a"] * 199])}))

    page = docs.add_day(churn.settings, churn.spec, CHURN_DAY)

    assert page is not None
    text = page.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert "&lt;script&gt;alert" in text
    assert "<script>" in str(churn.rows("quarantine").to_pylist())
