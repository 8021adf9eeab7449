"""Where expectations come from, and what happens to a suite that cannot be used."""

import json
from datetime import datetime

import numpy as np
import pytest

from delivered import DAY, Inbox, transactions, with_column
from windsock.errors import DayRejected, SpecError
from windsock.settings import REPO_ROOT
from windsock.validate.sentences import show
from windsock.validate.suites import expectations_of, find_suite


def _suite(inbox, *expectations, name="expectations.json"):
    (inbox.spec.folder / name).write_text(json.dumps({"name": "own", "expectations": list(expectations)}))


def _expect(kind, severity=None, **kwargs):
    entry = {"type": kind, "kwargs": kwargs}
    return entry if severity is None else {**entry, "severity": severity}


def test_the_fraud_suite_has_about_25_expectations_of_every_severity():
    suite = json.loads((REPO_ROOT / "great_expectations" / "expectations" / "fraud_events.json").read_text())

    assert 24 <= len(suite["expectations"]) <= 30
    assert {e["severity"] for e in suite["expectations"]} == {"critical", "warning", "info"}
    assert len({e["id"] for e in suite["expectations"]}) == len(suite["expectations"])


def test_a_suite_in_the_models_folder_comes_first(tmp_path):
    inbox = Inbox(tmp_path)
    assert find_suite(inbox.settings, inbox.spec).name == "fraud_events.json"

    _suite(inbox)

    assert find_suite(inbox.settings, inbox.spec) == inbox.spec.folder / "expectations.json"


def test_derived_rules_hold_with_an_empty_suite_too(tmp_path):
    inbox = Inbox(tmp_path)
    _suite(inbox)
    table = transactions()
    broken = with_column(table, "CUSTOMER_ID", [None] * 3 + table["CUSTOMER_ID"].to_pylist()[3:])
    broken = with_column(broken, "TX_AMOUNT", table["TX_AMOUNT"].to_pylist()[:-2] + [float("inf")] * 2)

    result = inbox.ingest(broken)

    assert result["by_rule"] == {"CUSTOMER_ID not null": 3, "TX_AMOUNT finite": 2}


def test_an_own_rule_that_only_warns_does_not_replace_a_derived_one(tmp_path):
    inbox = Inbox(tmp_path)
    _suite(inbox, _expect("expect_column_values_to_not_be_null", "info", column="CUSTOMER_ID"))
    table = transactions()

    result = inbox.ingest(with_column(table, "CUSTOMER_ID", [None, *table["CUSTOMER_ID"].to_pylist()[1:]]))

    assert result["by_rule"] == {"CUSTOMER_ID not null": 1}


def test_ids_are_stable_and_distinct(tmp_path):
    inbox = Inbox(tmp_path)
    first = [e["id"] for e in expectations_of(inbox.settings, inbox.spec)]

    assert [e["id"] for e in expectations_of(inbox.settings, inbox.spec)] == first
    assert len(set(first)) == len(first)


@pytest.mark.parametrize(
    ("severity", "outcome"), [("critical", "rejected"), (None, "rejected"), ("warning", 20), ("info", "warned")]
)
def test_severity_decides_what_a_broken_expectation_means(tmp_path, severity, outcome):
    inbox = Inbox(tmp_path)
    _suite(inbox, _expect("expect_column_values_to_be_between", severity, column="TERMINAL_ID", max_value=75))
    if outcome == "rejected":
        with pytest.raises(DayRejected, match=r"TERMINAL_ID: 20 of 400 rows break the rule 'at most 75', e\.g\. 76"):
            inbox.ingest(transactions())
        return

    result = inbox.ingest(transactions())

    assert result["quarantined"] == (outcome if outcome == 20 else 0)
    assert any("TERMINAL_ID: 20 of 400 rows" in w for w in result["warnings"])


def test_a_whole_column_rule_refuses_if_critical_and_else_warns(tmp_path):
    inbox = Inbox(tmp_path)
    _suite(inbox, _expect("expect_column_mean_to_be_between", "warning", column="TX_AMOUNT", max_value=1))
    assert any("TX_AMOUNT" in w and "mean at most 1" in w for w in inbox.ingest(transactions())["warnings"])

    _suite(inbox, _expect("expect_column_mean_to_be_between", "critical", column="TX_AMOUNT", max_value=1))
    with pytest.raises(DayRejected, match="mean at most 1"):
        inbox.ingest(transactions())


def test_a_check_that_cannot_run_counts_as_failed(tmp_path):
    inbox = Inbox(tmp_path)
    _suite(inbox, _expect("expect_column_values_to_match_regex", "warning", column="TX_AMOUNT", regex="("))

    with pytest.raises(DayRejected, match="could not be checked"):
        inbox.ingest(transactions())
    assert inbox.record(DAY).status == "rejected"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a GX suite"),
        ('{"expectations": [{"kind": "x"}]}', "is not a GX suite"),
        (
            '{"expectations": [{"type": "expect_column_values_to_be_unique", "kwargs": {"column": "TX_AMONT"}}]}',
            "names the column 'TX_AMONT'.*Did you mean 'TX_AMOUNT'",
        ),
        (
            '{"expectations": [{"type": "t", "kwargs": {}, "severity": "fatal"}]}',
            "severity 'fatal' is none of critical, warning, info",
        ),
        (
            '{"expectations": [{"type": "expect_column_values_to_be_between", "kwargs": {"column": "TX_AMOUNT"}}]}',
            "expect_column_values_to_be_between cannot be used as given.*min_value",
        ),
        (
            '{"expectations": [{"type": "expect_column_value_to_be_unique", "kwargs": {"column": "TX_AMOUNT"}}]}',
            "no expectation of type 'expect_column_value_to_be_unique'.*Did you mean 'expect_column_values",
        ),
    ],
)
def test_a_suite_that_cannot_be_used_is_a_spec_error_with_its_file(tmp_path, content, message):
    inbox = Inbox(tmp_path)
    (inbox.spec.folder / "expectations.json").write_text(content)

    with pytest.raises(SpecError, match=rf"expectations\.json[\s\S]*{message}"):
        inbox.ingest(transactions())


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (np.int64(10**18 + 7), "1000000000000000007"),
        (10**18, "1000000000000000000"),
        (1e18, "1000000000000000000"),
        (np.float64(12.3456789), "12.3456789"),
        (float("inf"), "inf"),
        (float("nan"), "null"),
        (None, "null"),
        ("basic", "basic"),
        (datetime(2026, 3, 1), "2026-03-01 00:00:00"),
    ],
)
def test_examples_are_shown_in_full(value, shown):
    assert show(value) == shown
