"""The scheduler's thread starts a look, and then the runs that the look wanted; twice is once."""

from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from airflow.sdk.api.client import ServerResponseError

from windsock_airflow import watch_clock


class Api:
    """As much of a client of Airflow's execution API as the thread uses, with the runs that were posted."""

    def __init__(self, *, paused: bool = False, alive: int = 0, wanted: Any = None) -> None:
        self.posted: dict[str, Any] = {}
        self.refuse = HTTPStatus.CONFLICT
        self.dags = SimpleNamespace(get=lambda dag_id: SimpleNamespace(is_paused=paused))
        self.dag_runs = SimpleNamespace(get_count=lambda dag_id, states: SimpleNamespace(count=alive))
        self.xcoms = SimpleNamespace(get=lambda *_: SimpleNamespace(value=wanted))

    def post(self, path: str, json: dict[str, Any]) -> None:
        if path in self.posted:
            request = httpx.Request("POST", f"http://airflow/{path}")
            raise ServerResponseError("no", request=request, response=httpx.Response(self.refuse, request=request))
        self.posted[path] = json


def test_a_look_is_started_unless_it_is_paused_or_one_is_under_way():
    for api, started in ((Api(), 1), (Api(paused=True), 0), (Api(alive=1), 0)):
        watch_clock.look(api)
        assert len(api.posted) == started
        assert all(path.startswith("dag-runs/windsock_watch/watch__") for path in api.posted)


def test_the_wanted_runs_are_started_for_their_days_once():
    run = {"dag_id": "m_ingest", "run_id": "catch_up__ingest__2026-03-01", "key": "2026-03-01"}
    api = Api(wanted={"start": [run], "again": True})

    assert watch_clock.start_wanted(api, "watch__1")
    assert watch_clock.start_wanted(api, "watch__2")
    assert api.posted == {"dag-runs/m_ingest/catch_up__ingest__2026-03-01": {"partition_key": "2026-03-01"}}

    api.refuse = HTTPStatus.BAD_REQUEST
    with pytest.raises(ServerResponseError):
        watch_clock.start_wanted(api, "watch__3")
    assert not watch_clock.start_wanted(Api(wanted=None), "watch__4")  # one that was marked a success by hand


def test_only_the_end_of_a_look_is_handed_to_the_thread():
    for dag_id in ("m_ingest", "windsock_watch"):
        watch_clock.on_dag_run_success(SimpleNamespace(dag_id=dag_id, run_id=f"of {dag_id}"), "")
    assert watch_clock._ended.get_nowait() == "of windsock_watch"
    assert watch_clock._ended.empty()
