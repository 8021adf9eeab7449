"""What people are told of a step's result: once, to whom the spec says, as Slack takes it, and over when it is over."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from fake_slack import FakeSlack, faults_of
from small_model import small_fraud
from windsock.alerts import Alert, send_waiting
from windsock.block_kit import blocks_of, mrkdwn, reply_blocks
from windsock.ledger import DayRecord, Ledger
from windsock.messages import tell
from windsock.outbox import Outbox
from windsock.settings import Settings
from windsock.store import Store

CHECKS = [
    {"name": "floor_average_precision", "passed": False, "value": 0.1234567, "threshold": 0.3, "why": "too low"},
    {"name": "another_model", "passed": True, "value": None, "threshold": None, "why": "it is"},
]
NEWS: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "quarantine": (
        "ingest",
        {"status": "published", "rows": 900, "quarantined": 100, "by_rule": {"amount: at least 0": 100}},
        "Many rows set aside",
        "100 of 1,000 rows of 2026-03-05 (10.0%)",
    ),
    "performance": (
        "monitor",
        {
            "degraded": True,
            "champion": "3",
            "summary": "no drift; average_precision fell from 0.6 to 0.3",
            "performance": {"metric": "average_precision", "value": 0.3, "holdout": 0.6, "loss": 0.5},
        },
        "Performance fell",
        "fell from 0.6 to 0.3",
    ),
    "drift": (
        "govern",
        {"action": "retrain", "dedupe_key": "3@2026-03-04", "as_of": "2026-03-05", "reasons": ["2 of 3 nights"]},
        "Drift",
        "A new training is asked for, as of 2026-03-05",
    ),
    "refusal": (
        "gate",
        {"passed": False, "version": "4", "champion_seen": "3", "checks": CHECKS, "why": "Version 4 failed 1 of 2."},
        "Challenger refused",
        "0.1235 (limit 0.3)",
    ),
    "promotion": (
        "promote",
        {"promoted": True, "version": "4", "previous": "3", "in_force_from": "2026-03-06", "seq": 2},
        "New champion",
        "Version 4 of fraud is champion: it scores events from 2026-03-06 on. Before: 3.",
    ),
    "rollback": (
        "rollback",
        {"version": "3", "previous": "4", "in_force_from": "2026-03-07", "seq": 3},
        "Rolled back",
        "Version 3 of fraud is champion",
    ),
}
QUIET: dict[str, tuple[str, dict[str, Any]]] = {
    "quarantine": ("ingest", {"status": "published", "rows": 999, "quarantined": 1, "by_rule": {"x": 1}}),
    "performance": ("monitor", {"degraded": False, "performance": {"loss": 0.01}}),
    "drift": ("govern", {"action": "none", "reasons": ["no drift"], "dedupe_key": None}),
}


class House:
    """One installation with a model, its Slack, and what its steps say."""

    def __init__(self, tmp_path: Path, slack: FakeSlack, **alerts: Any) -> None:
        _, spec = small_fraud(tmp_path, owner="payments", alerts=alerts)
        env = {"WINDSOCK_HOME": str(tmp_path), "WINDSOCK_MODELS": str(tmp_path / "models"), **slack.env}
        self.settings, self.spec, self.slack = Settings.from_env(env), spec, slack

    def say(self, step: str, result: dict[str, Any], day: str = "2026-03-05") -> None:
        dag_id = f"fraud_{step}"
        where = {"dag_id": dag_id, "task_id": step, "run_id": f"run {day}", "url": f"http://ui/{dag_id}"}
        tell(self.settings, "fraud", step, result, day=day, **where, links=(("Report", "http://ui/page"),))
        send_waiting(self.settings)

    def live(self, day: str, night: dict[str, Any], decision: dict[str, Any]) -> list[str]:
        """Record a night, let both of its steps speak, and return the titles of the threads."""
        Ledger.of(self.settings, "fraud", "monitor").publish(DayRecord(day, "published", detail=night))
        self.say("monitor", {"performance": None, **night}, day)
        self.say("govern", decision, day)
        return [str(head["blocks"][0]["text"]["text"]) for head in self.slack.heads]


@pytest.mark.parametrize("kind", NEWS)
def test_people_hear_once_what_happened_with_figures_links_and_owner(kind: str, tmp_path: Path) -> None:
    step, result, headline, part = NEWS[kind]
    with FakeSlack() as slack:
        house = House(tmp_path, slack)
        house.say(step, result)
        house.say(step, result)

    (message,) = slack.messages
    shown = str(message["blocks"])
    for each in (headline, part, "owner payments", f"<http://ui/fraud_{step}|", "<http://ui/page|Report>"):
        assert each in shown, each
    assert message["text"].startswith(f"*{headline}*")
    assert faults_of(message["blocks"]) == []


@pytest.mark.parametrize("kind", QUIET)
def test_what_goes_on_folds_into_one_thread_and_what_is_over_closes_it(kind: str, tmp_path: Path) -> None:
    step, result, _, _ = NEWS[kind]
    with FakeSlack() as slack:
        house = House(tmp_path, slack)
        house.say(*QUIET[kind])
        assert slack.messages == [], "nothing was wrong"
        house.say(step, result)
        house.say(step, {**result, "dedupe_key": "3@2026-03-05"}, "2026-03-06")
        house.say(*QUIET[kind], "2026-03-07")
        house.say(*QUIET[kind], "2026-03-08")

    (head,) = slack.heads
    assert head["blocks"][0]["text"]["text"].startswith("✅")
    assert "(2×)" in head["blocks"][0]["text"]["text"]
    assert len(slack.messages) == 3


def test_labels_that_stop_are_told_until_they_come_again_and_a_loss_by_its_cause(tmp_path: Path) -> None:
    usual = {"champion": "3", "drifted": False, "degraded": False, "labels": {"alarm": False, "why": None}}
    amiss = {"alarm": True, "why": "labels of 2026-03-01 have not come, where 98% is usual"}
    nights = [usual, {**usual, "labels": amiss}, usual, {**usual, "degraded": True, "cause": "concept"}]
    with FakeSlack() as slack:
        house = House(tmp_path, slack)
        ledger = Ledger.of(house.settings, "fraud", "monitor")
        for number, night in enumerate(nights, 1):
            day = f"2026-03-0{number}"
            ledger.publish(DayRecord(day, "published", detail=night))
            house.say("monitor", {"degraded": night["degraded"], "champion": "3", "performance": None}, day)

    labels, loss = slack.heads
    assert amiss["why"] in labels["text"]
    assert labels["blocks"][0]["text"]["text"] == "✅ Labels are amiss: over"
    assert "though its inputs are as before" in loss["text"]


def test_broken_data_is_told_and_neither_it_nor_a_quiet_night_ends_what_goes_on(tmp_path: Path) -> None:
    lost = {"metric": "average_precision", "value": 0.3, "holdout": 0.6, "loss": 0.5, "degraded": True}
    sentence = "TX_AMOUNT is 100 times what it was"
    usual = {"champion": "3", "degraded": False, "labels": {"alarm": False}, "broken": [], "performance": lost}
    missing = {"alarm": True, "unfinished": True, "why": "labels are missing"}
    set_aside = {**usual, "labels": missing, "performance": {**lost, "degraded": False}}
    none = {"action": "none", "reasons": ["no drift"], "onset": "2026-03-01"}
    well = {**usual, "performance": {**lost, "loss": 0.0, "degraded": False}}
    nights: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({**usual, "degraded": True}, {"action": "retrain", "reasons": ["2 of 3"], "dedupe_key": "3@2026-03-01"}),
        ({**usual, "broken": [{"sentence": sentence}]}, none),
        (set_aside, none),
        (well, {**none, "onset": None}),
    ]
    over = []
    with FakeSlack() as slack:
        house = House(tmp_path, slack)
        for number, (night, decision) in enumerate(nights, 1):
            titles = house.live(f"2026-03-0{number}", night, decision)
            over.append(sorted(title.split()[1].rstrip(":") for title in titles if title.startswith("✅")))
            if number == 2:
                assert sentence in slack.heads[-1]["text"]

    assert over == [[], [], ["Data"], ["Data", "Drift", "Labels", "Performance"]]


def test_a_training_for_labels_is_no_drift_and_a_night_that_could_not_look_mends_nothing(tmp_path: Path) -> None:
    labels = {"trigger": "labels", "reasons": ["500 labels"], "dedupe_key": "3@labels", "as_of": "2026-03-02"}
    broken = {"champion": "3", "broken": [{"sentence": "X is missing in 100% of rows"}], "examined": True}
    nights: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (broken, {"action": "retrain", "reasons": ["2 of 3"], "dedupe_key": "3@2026-03-01", "trigger": "drift"}),
        ({"champion": "3", "broken": [], "examined": False}, {**labels, "action": "suppress", "onset": "2026-03-01"}),
        ({"champion": "3", "broken": [], "examined": True}, {**labels, "action": "retrain", "onset": None}),
    ]
    over = []
    with FakeSlack() as slack:
        house = House(tmp_path, slack)
        for number, (night, decision) in enumerate(nights, 1):
            titles = house.live(f"2026-03-0{number}", night, decision)
            over.append(sum(title.startswith("✅") for title in titles))
        titles = [head["text"].split("*")[1] for head in slack.heads]

    assert over == [0, 0, 2]
    assert titles == ["Data is broken", "Drift", "Enough new labels"]


def test_a_drift_is_told_from_the_first_night_on_which_it_is_believed(tmp_path: Path) -> None:
    waits = {
        "action": "wait",
        "dedupe_key": "3@2026-03-04",
        "reasons": ["drift since 2026-03-04"],
        "useful_from": "2026-03-19",
    }
    with FakeSlack() as slack:
        house = House(tmp_path, slack)
        ledger = Ledger.of(house.settings, "fraud", "monitor")
        for day in (4, 5):
            found = {"champion": "3", "drifted": True, "degraded": False}
            ledger.publish(DayRecord(str(date(2026, 3, day)), "published", detail=found))
        house.say("govern", waits, "2026-03-04")
        assert slack.messages == [], "one night is no drift"
        house.say("govern", waits, "2026-03-05")

    (message,) = slack.messages
    assert "Retraining waits until 2026-03-19" in message["text"]


def test_a_drift_that_requests_do_not_end_is_left_to_people_in_so_many_words(tmp_path: Path) -> None:
    left = {"action": "escalate", "dedupe_key": "3@2026-03-04", "reasons": ["version 4 waits for promote"]}
    with FakeSlack() as slack:
        house = House(tmp_path, slack)
        for day in ("2026-03-04", "2026-03-05"):
            house.say("govern", left, day)
        house.say("govern", {**left, "reasons": ["10 requests have not ended this drift"]}, "2026-03-06")

    first, second = slack.messages
    assert "somebody has to look. Why: version 4 waits for promote" in first["text"]
    assert "10 requests have not ended this drift" in second["text"], "another reason is news"


def test_a_retraining_that_waits_for_a_measurement_names_no_day_that_lies_behind(tmp_path: Path) -> None:
    waits = {"action": "wait", "dedupe_key": "3@2026-03-04", "reasons": ["its cure"], "useful_from": "2026-03-06"}
    with FakeSlack() as slack:
        house = House(tmp_path, slack)
        for day in ("2026-03-11", "2026-03-12"):
            found = {"champion": "3", "drifted": True, "degraded": False}
            Ledger.of(house.settings, "fraud", "monitor").publish(DayRecord(day, "published", detail=found))
        house.say("govern", waits, "2026-03-12")

    (message,) = slack.messages
    assert "Retraining waits for now. Why: its cure." in message["text"]


@pytest.mark.parametrize("kind", QUIET)
def test_an_older_day_that_is_run_again_ends_nothing_that_goes_on(kind: str, tmp_path: Path) -> None:
    step, result, _, _ = NEWS[kind]
    with FakeSlack() as slack:
        house = House(tmp_path, slack)
        stage = "decisions" if step == "govern" else step
        Ledger.of(house.settings, "fraud", stage).publish(DayRecord("2026-03-06", "published"))
        house.say(step, result, "2026-03-06")
        house.say(*QUIET[kind], "2026-03-04")
        (head,) = slack.heads
        assert not head["blocks"][0]["text"]["text"].startswith("✅")
        house.say(*QUIET[kind], "2026-03-07")

    assert slack.heads[0]["blocks"][0]["text"]["text"].startswith("✅")


def test_the_spec_says_where_each_kind_and_severity_goes(tmp_path: Path) -> None:
    routes = {"info": "#quiet", "rollback": "#oncall", "refusal": None}
    with FakeSlack() as slack:
        house = House(tmp_path, slack, slack_channel="#fraud", routes=routes, severity={"drift": "info"})
        for step, result, _, _ in NEWS.values():
            house.say(step, result)

    told = {message["text"].splitlines()[0].split("*")[1]: message["channel"] for message in slack.messages}
    assert told == {
        "Many rows set aside": "#fraud",
        "Performance fell": "#fraud",
        "Drift": "#quiet",
        "New champion": "#quiet",
        "Rolled back": "#oncall",
    }
    kinds = {message.kind for message in Outbox(Store.of(house.settings)).messages()}
    assert kinds == set(NEWS), "the table has all of it"


@pytest.mark.parametrize("character", ["&", "<", "x", "é", "\n"])
@pytest.mark.parametrize("length", [1, 150, 3000, 20_000])
def test_slack_takes_a_message_whatever_its_text_is(character: str, length: int, tmp_path: Path) -> None:
    settings, spec = small_fraud(tmp_path)
    text = f"a{character * length}b"
    alert = Alert(
        "fraud_ingest",
        text,
        text,
        text,
        f"http://ui/{text}",
        text,
        facts=tuple((text, text) for _ in range(30)),
        links=((text, "http://x"),) * 20,
    )
    message = alert.as_message(settings, spec)
    for blocks in (blocks_of(message, 3, message, late=True), reply_blocks([message] * 200)):
        assert faults_of(blocks) == []


def test_what_is_said_again_and_again_is_said_once_with_its_places(tmp_path: Path) -> None:
    settings, spec = small_fraud(tmp_path)
    days = [f"2026-03-0{number}" for number in range(1, 9)]
    said = [Alert("fraud_score", "Store away.", "score", day).as_message(settings, spec) for day in days]
    (block,) = reply_blocks(said)
    assert block["text"]["text"].splitlines()[1] == (
        "• 8× Store away. (fraud_score score 2026-03-01, fraud_score score 2026-03-02, fraud_score score 2026-03-03 "
        "and 5 more)"
    )


def test_text_from_data_calls_nobody_and_forges_nothing() -> None:
    assert mrkdwn("<!channel> & <https://evil|here>") == "&lt;!channel&gt; &amp; &lt;https://evil|here&gt;"
    assert mrkdwn("&" * 50, 40) == "&amp;&amp;&amp;&amp;&amp; … (shortened)"
