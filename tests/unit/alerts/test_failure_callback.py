"""The failure callback, on contexts as Airflow makes them in a task and in the DAG processor."""

import logging
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
from botocore.exceptions import EndpointConnectionError
from kubernetes.client.exceptions import ApiException

from fake_slack import FakeSlack
from small_model import small_fraud
from windsock.alerts import send_waiting
from windsock.errors import DataContractError, DayRejected
from windsock.settings import Settings
from windsock_airflow.callbacks import on_task_failure as report_failure
from windsock_airflow.callbacks import run_url
from windsock_airflow.runs import is_replay


def on_task_failure(context: dict[str, Any]) -> None:
    """Report a failure, and do what the scheduler does then."""
    report_failure(context)
    send_waiting(Settings.from_env())


class State(Enum):
    FAILED = "failed"
    UP_FOR_RETRY = "up_for_retry"


class AirflowFailException(Exception):
    """Stands for Airflow's own, which carries a step's sentence."""


def context(exception: BaseException | None = None, **run: Any) -> dict[str, Any]:
    run_id = run.get("run_id", "manual__2026-03-06T01:00:00+00:00")
    dag_run = SimpleNamespace(
        run_id=run_id, run_type=run.get("run_type", "manual"), conf={}, consumed_asset_events=run.get("events", [])
    )
    ti = SimpleNamespace(
        dag_id=run.get("dag_id", "fraud_ingest"),
        task_id="ingest",
        run_id=run_id,
        map_index=-1,
        state=run.get("state", State.FAILED),
    )
    found = {"ti": ti, "task_instance": ti, "dag_run": dag_run, "partition_key": "2026-03-05", "run_id": run_id}
    return found | ({"exception": exception} if exception else {}) | run.get("extra", {})


@pytest.fixture
def slack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    small_fraud(tmp_path)
    with FakeSlack() as server:
        use(server, tmp_path, monkeypatch)
        yield server


def use(server: FakeSlack, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = {"WINDSOCK_HOME": str(home), "WINDSOCK_MODELS": str(home / "models"), "WINDSOCK_UI_URL": "http://ui:1"}
    for name, value in {**env, **server.env}.items():
        monkeypatch.setenv(name, value)


def raised(wrapper: type[Exception] | None, error: Exception) -> BaseException:
    try:
        if wrapper is None:
            raise error
        try:
            raise error
        except Exception as cause:
            raise wrapper(f"{type(cause).__name__}: {cause}") from cause
    except Exception as err:
        return err


@pytest.mark.parametrize("wrapper", [None, AirflowFailException])
def test_our_own_error_is_reported_by_its_sentence(wrapper: type[Exception] | None, slack: FakeSlack) -> None:
    on_task_failure(context(raised(wrapper, DataContractError("Column TX_AMOUNT is missing."))))

    (message,) = slack.messages
    lines = message["text"].splitlines()
    assert lines[0] == "*Task failed*: DAG fraud_ingest, task ingest, day 2026-03-05"
    assert lines[1] == "Column TX_AMOUNT is missing."
    assert lines[2].startswith(
        "<http://ui:1/dags/fraud_ingest/runs/manual__2026-03-06T01%3A00%3A00%2B00%3A00/tasks/ingest|"
    )


def error_of(work: Callable[[], object]) -> Exception:
    """Return what some work raises, with its traceback."""
    try:
        work()
    except Exception as err:
        return err
    raise AssertionError("it raises nothing")


def test_a_foreign_error_is_reported_by_type_place_and_text(slack: FakeSlack) -> None:
    on_task_failure(context(error_of(lambda: 1 / 0)))

    text = slack.messages[0]["text"]
    assert "ZeroDivisionError: division by zero" in text.splitlines()[1]
    assert "test_failure_callback.py, line " in text
    assert "The task's log says more." in text


JANE = pd.DataFrame({"name": ["Jane Doe, 4 Elm St"], "mail": ["jane.doe@example.org"]})
FOREIGN = {
    "a cast in SQL": lambda: duckdb.sql("select cast(name as integer) from JANE").fetchall(),
    "a cast of a column": lambda: JANE["mail"].astype(float),
    "a date": lambda: pd.to_datetime(JANE["name"]),
    "an Arrow array": lambda: pa.array([1, "Jane Doe"], pa.int64()),
    "a missing key": lambda: {}["DE89370400440532013000"],
    "a missing number": lambda: {}[4711],
    "a mistaken apostrophe": lambda: _raise(ValueError("can't read 'Jane' and b'Doe', it isn't one")),
    "a quote that is never closed": lambda: _raise(ValueError('could not parse "Jane Doe')),
    "a key of a database": lambda: _raise(ValueError("duplicate key\nDETAIL: Key (iban)=(DE89) of Jane Doe")),
    "a value after a colon": lambda: _raise(ValueError("unable to parse: Jane Doe, Elm St")),
    "a bare address": lambda: _raise(ValueError("no mailbox jane.doe@example.org there")),
}


def _raise(err: Exception) -> None:
    raise err


@pytest.mark.parametrize("wrapper", [None, AirflowFailException])
@pytest.mark.parametrize("what", FOREIGN)
def test_a_foreign_error_tells_people_no_value_of_a_row(
    what: str, wrapper: type[Exception] | None, slack: FakeSlack
) -> None:
    err = error_of(FOREIGN[what])
    on_task_failure(context(err if wrapper is None else raised(wrapper, err)))

    shown = str(slack.messages[0])
    assert type(err).__name__ in shown
    for value in ("Jane", "Doe", "Elm", "DE89", "4711", "jane.doe", "example.org"):
        assert value not in shown


@pytest.mark.parametrize(
    "err",
    [
        FileNotFoundError(2, "No such file or directory", "/data/2026-03-05.csv"),
        ConnectionRefusedError("db:5432 refused the connection"),
        ModuleNotFoundError("No module named 'torch'"),
        MemoryError("Unable to allocate 3.2 GiB for an array with shape (400, 2)"),
    ],
)
@pytest.mark.parametrize("wrapper", [None, AirflowFailException])
def test_an_error_about_the_machine_keeps_its_text(
    wrapper: type[Exception] | None, err: Exception, slack: FakeSlack
) -> None:
    on_task_failure(context(raised(wrapper, err)))

    assert f"{type(err).__name__}: {str(err).strip()}" in slack.messages[0]["text"]


@pytest.mark.parametrize(
    "err",
    [
        ApiException(status=403, reason="Forbidden"),
        EndpointConnectionError(endpoint_url="http://s3:9000/bucket"),
    ],
)
def test_an_error_about_the_network_keeps_its_text(err: Exception, slack: FakeSlack) -> None:
    on_task_failure(context(raised(None, err)))

    assert f"{type(err).__name__}: {str(err).strip()}" in slack.messages[0]["text"]


@pytest.mark.parametrize(
    "sentence",
    [
        "DataContractError: column 'amount' is missing in 3 of 7 files.",
        "fit of fraud: the cluster had no place for its pod within 20 min. It asked for 2 cpu.",
        "Pod fraud-fit-1 of fit cannot start: ImagePullBackOff: 'x:1' is not there",
        "windsock.errors.SpecError: model 'fraud' has no estimator 'forest'.",
        "UsageError: No such option: --trails (did you mean --trials?)",
        "MLflow: version 3 has no file model.ubj.",
        "Evicted: The node was low on resource: memory.",
    ],
)
def test_a_sentence_of_ours_that_a_pod_hands_over_is_told_whole(sentence: str, slack: FakeSlack) -> None:
    on_task_failure(context(AirflowFailException(sentence)))

    assert slack.messages[0]["text"].splitlines()[1] == sentence


def test_an_error_that_merely_came_up_while_handling_ours_is_told_as_itself(slack: FakeSlack) -> None:
    try:
        try:
            raise DataContractError("handled")
        except DataContractError:
            raise OSError("disk full")  # noqa: B904
    except OSError as err:
        on_task_failure(context(err))

    assert "OSError: disk full" in slack.messages[0]["text"]


def test_a_task_that_will_be_tried_again_is_not_reported(slack: FakeSlack) -> None:
    on_task_failure(context(ValueError("x"), state=State.UP_FOR_RETRY))

    assert slack.requests == 0


def test_the_dag_processor_reports_a_lost_task_without_an_exception(slack: FakeSlack) -> None:
    on_task_failure(context())
    on_task_failure({"run_id": "manual__1", "reason": "task_failure", "dag": SimpleNamespace(dag_id="fraud_train")})

    assert "was killed, ran out of memory or lost its worker" in slack.messages[0]["text"]
    assert "DAG fraud_train" in slack.messages[1]["text"]
    assert "Airflow says: task_failure" in slack.messages[1]["text"]


REPLAYS = [
    {"run_type": "backfill"},
    {"run_id": "backfill__2026-03-05"},
    {"events": [SimpleNamespace(source_run_id="backfill__2026-03-05", extra={})]},
    {"events": [SimpleNamespace(source_run_id="asset_triggered__1", extra={"live": False})]},
]


@pytest.mark.parametrize("run", REPLAYS)
def test_a_replay_is_only_logged(run: dict[str, Any], slack: FakeSlack, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        on_task_failure(context(ValueError("x"), **run))

    assert slack.requests == 0
    assert "ValueError: x" in caplog.text


def test_a_replay_is_reported_where_the_model_asks_for_it(slack: FakeSlack, tmp_path: Path) -> None:
    small_fraud(tmp_path, alerts={"on_replay": True})

    on_task_failure(context(ValueError("x"), run_type="backfill"))

    assert len(slack.messages) == 1


def test_a_broken_spec_does_not_hide_the_failure(slack: FakeSlack, tmp_path: Path) -> None:
    (tmp_path / "models" / "fraud" / "model.yaml").write_text("name: [", encoding="utf-8")

    on_task_failure(context(ValueError("x")))

    assert "DAG fraud_ingest" in slack.messages[0]["text"]


@pytest.mark.parametrize("nonsense", [{}, {"ti": object(), "exception": "text"}, {"dag_run": 7, "ti": None}])
def test_any_context_is_survived(nonsense: dict[str, Any], slack: FakeSlack) -> None:
    on_task_failure(nonsense)


@pytest.mark.parametrize("behaviour", ["hang", "slow", "drip", "server_error"])
def test_a_task_waits_for_slack_in_no_case(behaviour: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_fraud(tmp_path)
    with FakeSlack(behaviour) as server:
        use(server, tmp_path, monkeypatch)
        started = time.monotonic()
        report_failure(context(ValueError("x")))

        assert time.monotonic() - started < 2
        assert server.requests == 0, "the scheduler sends it"


def test_what_leaves_the_house_has_no_value_of_a_row(slack: FakeSlack) -> None:
    brief = "fraud 2026-03-05: delivery d.csv was rejected for 1 reason:\n  - amount: 3 of 9 break 'at least 0'."
    long = brief.replace("0'.", "0', e.g. Ann O'Hara\n, e.g. ann@example.org.")
    on_task_failure(context(DayRejected(long, brief=brief)))
    differs = DataContractError("2 of 9 entities disagree, e.g. customer 4711 (42.5).")
    on_task_failure(context(differs, run_id="manual__2"))

    rejected, other = (str(message) for message in slack.messages)
    assert "File rejected" in rejected
    assert "3 of 9 break" in rejected
    assert "2 of 9 entities disagree." in other
    for secret in ("Ann", "example.org", "4711", "42.5"):
        assert secret not in rejected + other


def test_one_run_that_fails_again_and_again_is_one_thread(slack: FakeSlack) -> None:
    for number in range(3):
        on_task_failure(context(ValueError(f"try {number}"), run_id=f"manual__{number}"))

    assert len(slack.heads) == 1
    assert "(3×)" in slack.heads[0]["blocks"][0]["text"]["text"]
    assert "owner" in str(slack.heads[0]["blocks"])


def test_live_runs_are_live() -> None:
    assert not is_replay(context(events=[SimpleNamespace(source_run_id="scheduled__1", extra={"live": True})]))


def test_links_lead_to_mapped_tasks_too(tmp_path: Path) -> None:
    settings, _ = small_fraud(tmp_path)

    assert run_url(settings, "d", "r/1", "t", 3).endswith("/dags/d/runs/r%2F1/tasks/t/mapped/3")
