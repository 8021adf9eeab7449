"""The facts of a run are those of its first try, whatever Airflow has forgotten or was told since."""

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windsock.errors import DamagedRecord, SpecError
from windsock.settings import Settings
from windsock.store import Store
from windsock_airflow.runs import RunFacts, was_replayed

LIVE, REPLAYED = {"live": True}, {"live": False}


def event(extra: dict[str, Any]) -> SimpleNamespace:
    return SimpleNamespace(extra=extra, source_run_id="x", timestamp=datetime(2026, 3, 1, tzinfo=UTC))


def context(run_type: str = "asset_triggered", *extras: dict[str, Any], **run: Any) -> Any:
    run = {"dag_id": "m_features", "run_id": "r1", "run_type": run_type, "conf": {}, **run}
    events = {"asset": list(map(event, extras))}
    return {"dag_run": SimpleNamespace(**run), "partition_key": "2026-03-01", "triggering_asset_events": events}


def facts(of: Any) -> RunFacts:
    return RunFacts.of(of, model="m", keyed=True)


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("WINDSOCK_HOME", str(tmp_path))
    monkeypatch.delenv("WINDSOCK_STORE", raising=False)
    return Settings.from_env()


@pytest.mark.parametrize("extra", [LIVE, REPLAYED])
def test_a_run_whose_events_were_purged_stays_what_it_was_at_its_first_try(settings: Settings, extra: dict[str, Any]):
    first = facts(context("asset_triggered", {**extra, "version": "7"}, triggering_user_name="ada"))
    purged = context("asset_triggered", triggering_user_name=None)

    assert first.live is extra["live"]
    assert facts(purged) == first
    assert facts(purged).latest("version") == "7"
    assert was_replayed(purged, settings, "m") is not extra["live"]


def test_a_run_that_nothing_is_known_of_is_not_live_unless_somebody_or_the_clock_started_it(settings: Settings):
    lost = context("asset_triggered")
    assert was_replayed(lost, settings, "m")
    assert not facts(lost).live
    for run_type in ("manual", "scheduled", "asset_materialization"):
        assert facts(context(run_type, run_id=run_type)).live


def test_a_live_run_that_a_backfill_begins_again_is_replayed(settings: Settings):
    assert facts(context("scheduled")).live
    assert not facts(context("backfill")).live
    assert was_replayed(context("backfill"), settings, "m")


def test_a_run_id_used_again_for_another_day_is_another_run():
    facts(context("asset_triggered", REPLAYED))
    other = {**context("asset_triggered", LIVE), "partition_key": "2026-03-02"}
    assert facts(other).live
    assert facts(other).key == "2026-03-02"


def test_a_damaged_record_stops_the_run_and_says_what_to_do_but_hides_no_failure(settings: Settings):
    facts(context("asset_triggered", LIVE))
    store = Store.of(settings)
    (name,) = store.files("m", "started")
    store.write_bytes(b"{", "m", "started", name)

    with pytest.raises(DamagedRecord, match="Remove it: the next try writes it anew"):
        facts(context("asset_triggered", LIVE))
    assert not was_replayed(context("asset_triggered", LIVE), settings, "m")


def test_airflows_own_test_commands_are_told_what_to_use_instead():
    with pytest.raises(SpecError, match=r"windsock step features --model m --key YYYY-MM-DD'.*`airflow dags test`"):
        facts({**context("manual"), "partition_key": None})


@given(
    extras=st.lists(
        st.dictionaries(st.sampled_from(["live", "version", "as_of"]), st.booleans() | st.text()), max_size=4
    )
)
def test_what_any_first_try_saw_is_what_every_later_one_reads(
    tmp_path_factory: pytest.TempPathFactory, extras: list[dict[str, Any]]
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WINDSOCK_HOME", str(tmp_path_factory.mktemp("home")))
        first = facts(context("asset_triggered", *extras))
        assert facts(context("asset_triggered")) == first
        assert first.live is (bool(extras) and not any(e.get("live") is False for e in extras))
