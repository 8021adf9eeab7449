"""What is asked of GX in two parts, in the units that it is quick in, is what it would say of the rows as they are."""

import json
from datetime import datetime, timedelta

import great_expectations as gx
import numpy as np
import pytest

from delivered import DAY, Inbox, transactions, with_column
from windsock.column_types import to_pandas
from windsock.days import end_of, start_of
from windsock.validate.engine import _short, validate
from windsock.validate.suites import expectations_of, open_context

TODAY = datetime(DAY.year, DAY.month, DAY.day)
BROKEN = {
    "nothing": {},
    "values of every column": {
        "TRANSACTION_ID": [None, -5, 7, 7],
        "TX_DATETIME": [TODAY - timedelta(microseconds=1), TODAY + timedelta(days=1), None],
        "CUSTOMER_ID": [None, -1, 5000],
        "TX_AMOUNT": [None, float("inf"), -1.0, 100_000.5],
        "TX_FRAUD": [None, 2],
    },
    "a time beyond nanoseconds": {"TX_DATETIME": [datetime(9998, 12, 31), datetime(1, 1, 1)]},
    "a column without values": {"TX_AMOUNT": [None] * 400},
    "times without values": {"TX_DATETIME": [None] * 400},
}


@pytest.mark.parametrize("values", BROKEN.values(), ids=BROKEN)
def test_a_day_is_judged_as_by_one_complete_run_of_its_suite(tmp_path, values):
    inbox, table = Inbox(tmp_path), transactions()
    for name, first in values.items():
        column = first + table[name].to_pylist()[len(first) :]
        table = with_column(table, name, column, table.schema.field(name).type)

    broken, result = validate(inbox.settings, inbox.spec, DAY, table)

    asset = open_context(inbox.settings).data_sources.get("deliveries").get_asset("day")
    batch = asset.get_batch_definition("whole").get_batch({"dataframe": to_pandas(table)})
    with np.errstate(invalid="ignore"):
        expected = batch.validate(
            gx.ExpectationSuite(name="fraud_events", expectations=expectations_of(inbox.settings, inbox.spec)),
            result_format={"result_format": "COMPLETE", "return_unexpected_index_query": False},
            expectation_parameters={"day_start": start_of(DAY), "day_end": end_of(DAY)},
        )
    assert _comparable(result) == _comparable(_short(expected.to_json_dict()))
    lists = {r["expectation_config"]["id"]: r["result"].get("unexpected_index_list") for r in expected["results"]}
    given = sorted(len(b.rows) for b in broken if b.rows is not None)
    assert given == sorted(len(lists[r["expectation_config"]["id"]] or []) for r in result["results"]
                           if not r["success"] and lists[r["expectation_config"]["id"]])  # fmt: skip


def test_rules_about_types_see_the_type_that_is_stored(tmp_path):
    inbox = Inbox(tmp_path)
    typed = {"column": "TX_DATETIME", "type_list": ["datetime64[us]"]}
    rule = {"type": "expect_column_values_to_be_in_type_list", "severity": "critical", "kwargs": typed}
    (inbox.spec.folder / "expectations.json").write_text(json.dumps({"expectations": [rule]}))

    broken, result = validate(inbox.settings, inbox.spec, DAY, transactions())

    assert (broken, result["success"]) == ([], True)


def _comparable(result):
    for each in result["results"]:
        each["exception_info"] = "exception_message" in str(each["exception_info"])
    by_id = sorted(result["results"], key=lambda r: r["expectation_config"]["id"])
    return json.dumps([result["statistics"], result["success"], by_id], sort_keys=True, default=str)
