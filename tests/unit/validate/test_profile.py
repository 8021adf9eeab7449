"""A model without a suite gets one from its first good days, which only warns."""

import json
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from churn_model import COLUMNS, Churn, delivery
from churn_model import DAY as FIRST
from windsock.steps import run_step
from windsock.validate import docs
from windsock.validate.profile import DAYS, find_profile
from windsock.validate.suites import profile_name, suite_name

MORE = {"plan": "string", "country": "string", "age": "double", "tip": "double", "sequence": "int64", "text": "string",
        "nothing": "double"}  # fmt: skip


def _day(n, **changes):
    rows, rng = 200, np.random.default_rng(n)
    columns = {
        "plan": rng.choice(["a", "b"], rows).tolist(),
        "country": ["NL"] * rows,
        "age": rng.uniform(18, 90, rows).round(1).tolist(),
        "tip": [None if i % 10 == 0 else float(i % 7) for i in range(rows)],
        "sequence": list(range(n * rows, (n + 1) * rows)),
        "text": [f"t{i % 60}" for i in range(rows)],
        "nothing": [None] * rows,
    }
    kinds = {"string": pa.string(), "double": pa.float64(), "int64": pa.int64()}
    return delivery(
        day=FIRST + timedelta(days=n),
        more={name: pa.array(changes.get(name, columns[name]), kinds[MORE[name]]) for name in MORE},
    )


@pytest.fixture(scope="module")
def churn(tmp_path_factory):
    churn = Churn.make(tmp_path_factory.mktemp("profile"), events__columns={**COLUMNS, **MORE})
    for n in range(DAYS):
        assert find_profile(churn.settings, churn.spec) is None
        churn.ingest(_day(n), FIRST + timedelta(days=n))
    return churn


def _warnings(churn, n, **changes):
    day = FIRST + timedelta(days=n)
    pq.write_table(_day(n, **changes), churn.home / "inbox" / f"{day}.parquet")
    result = run_step("ingest", model="churn", key=str(day), settings=churn.settings, live=False)
    return result["status"], [w for w in result["warnings"] if "(a profile; a suite of the model's own" in w]


def test_it_says_what_held_for_each_column_and_is_the_same_bytes_for_the_same_days(churn):
    suite = find_profile(churn.settings, churn.spec)
    file = churn.home / churn.settings.store / "churn" / "profile.json"
    before = file.read_bytes()
    file.unlink()

    held = {(e["kwargs"]["column"], e["type"].removeprefix("expect_column_")) for e in suite["expectations"]}
    assert held >= {
        ("plan", "values_to_be_in_set"), ("country", "values_to_be_in_set"), ("age", "values_to_be_between"),
        ("tip", "values_to_be_between"), ("text", "unique_value_count_to_be_between"),
        ("customer_id", "unique_value_count_to_be_between"), ("minutes", "values_to_be_between"),
    }  # fmt: skip
    assert {name for name, _ in held}.isdisjoint({"event_id", "seen_at", "nothing"})
    assert ("sequence", "values_to_be_between") not in held
    assert {e["severity"] for e in suite["expectations"]} == {"info"}
    assert [e["kwargs"]["mostly"] for e in suite["expectations"]
            if e["kwargs"]["column"] == "tip" and "mostly" in e["kwargs"]] == [0.75, 0.99]  # fmt: skip
    assert sorted(suite["meta"]["days"]) == [str(FIRST + timedelta(days=n)) for n in range(DAYS)]
    assert find_profile(churn.settings, churn.spec) == suite
    assert file.read_bytes() == before


def test_usual_days_are_left_in_peace_and_it_stays_as_it_was_made(churn):
    suite = find_profile(churn.settings, churn.spec)

    assert [_warnings(churn, n) for n in range(DAYS, DAYS + 3)] == [("published", [])] * 3
    churn.ingest(_day(0, country=["BE"] * 200), FIRST)
    assert find_profile(churn.settings, churn.spec) == suite


def test_a_day_unlike_them_is_published_with_warnings_that_its_record_does_not_hold(churn):
    day = FIRST + timedelta(days=DAYS + 3)

    status, warnings = _warnings(
        churn,
        DAYS + 3,
        country=["BE"] * 200,
        plan=["c"] * 10 + ["a"] * 190,
        age=[-1.0] * 200,
        tip=[None] * 100 + [1.0] * 100,
    )

    assert status == "published"
    assert [w.split(":")[0] for w in warnings] == ["plan", "country", "age", "tip"]
    assert "country: 200 of 200 rows break the rule 'one of NL for at least 0.99 of the rows', e.g. BE" in warnings[1]
    assert not any("profile" in w for w in churn.record(day=day).detail["warnings"])
    docs.add_day(churn.settings, churn.spec, day)
    of_profile = docs.page_path(churn.settings, churn.spec, day, profile_name(churn.spec))
    assert "country" in of_profile.read_text(encoding="utf-8")


def test_a_model_with_a_suite_of_its_own_has_none(churn, tmp_path):
    other = churn.copied(tmp_path, events__columns={**COLUMNS, **MORE})
    (other.spec.folder / "expectations.json").write_text(
        json.dumps({"name": suite_name(other.spec), "expectations": []})
    )

    assert _warnings(other, DAYS + 4, country=["BE"] * 200) == ("published", [])
