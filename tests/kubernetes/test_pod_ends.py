"""What each way for a pod to end, or never to start, means for its task."""

from __future__ import annotations

import pytest
import yaml
from pod_world import World

ENDS = (
    *("well", "says_65", "says_64", "says_75", "traceback", "dies_once", "nothing", "hungry", "starving"),
    *("deferred_well", "deferred_65", "deferred_hungry", "no_image", "no_account", "no_program"),
)


@pytest.fixture(scope="module")
def runs(pods: World) -> dict[str, str]:
    """All of them at once: they take less time together than one by one."""
    return {name: pods.start(name) for name in ENDS}


def outcome(pods: World, name: str, run: str) -> tuple[str, int, str]:
    """Wait; return the run's state, the number of tries and the last try's log."""
    state, tries = pods.end(name, run), pods.task(name, run)["try_number"]
    return state, tries, pods.log(name, run, tries)


@pytest.mark.parametrize("name", ["well", "deferred_well"])
def test_a_trainer_pod_gets_its_request_and_its_metrics_become_the_result(pods: World, runs: dict[str, str], name: str):
    state, tries, log = outcome(pods, name, runs[name])
    assert (state, tries) == ("success", 1), log
    result = pods.stack.api.xcom(f"pods_{name}", runs[name], "fit")
    assert (result["estimator"], result["run"], result["selection"]["score"]) == (name, "run-1", 0.5)
    assert "trainer ends well" in log
    assert len(pods.starts(name)) == 1
    assert pods.gone(name)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("says_65", "DataContractError: day 2026-03-04 has two labels for one payment."),
        ("says_64", "SpecError: search.depth is no parameter of this trainer."),
        ("deferred_65", "DataContractError: no rows."),
        ("nothing", "has ended without finishing"),
        ("no_image", "cannot start: Image cannot be pulled"),
        ("no_program", "no-such-program"),
        ("no_account", "nobody-there"),
    ],
)
def test_what_no_retry_can_mend_fails_at_once_with_the_sentence_that_says_why(
    pods: World, runs: dict[str, str], name: str, sentence: str
):
    state, tries, log = outcome(pods, name, runs[name])
    assert (state, tries) == ("failed", 1), log
    assert sentence in log
    assert pods.gone(name)


def test_the_alert_says_what_the_trainer_said_last(pods: World, runs: dict[str, str]):
    _, _, log = outcome(pods, "says_65", runs["says_65"])
    alert = next(line for line in log.splitlines() if "pods_says_65" in line and "two labels" in line)
    assert "DataContractError: day 2026-03-04 has two labels for one payment." in alert


def test_a_service_that_is_away_and_unknown_errors_are_retried(pods: World, runs: dict[str, str]):
    state, tries, log = outcome(pods, "says_75", runs["says_75"])
    assert (state, tries) == ("failed", 3), log
    assert "UpstreamUnavailable: the bucket does not answer." in log
    state, tries, log = outcome(pods, "traceback", runs["traceback"])
    assert (state, tries) == ("failed", 3)
    assert "ValueError: rows and labels differ in length" in log
    state, tries, log = outcome(pods, "dies_once", runs["dies_once"])
    assert (state, tries) == ("success", 2), log
    assert "OSError: a disk was away" in pods.log("dies_once", runs["dies_once"], 1)


@pytest.mark.parametrize("name", ["hungry", "deferred_hungry"])
def test_a_pod_that_ran_out_of_memory_gets_more_on_the_next_try(pods: World, runs: dict[str, str], name: str):
    state, tries, log = outcome(pods, name, runs[name])
    assert (state, tries) == ("success", 2), log
    assert "ran out of 100Mi; next try with 200Mi" in pods.log(name, runs[name], 1)


def test_out_of_memory_at_the_limit_fails_for_good_and_names_the_limit(pods: World, runs: dict[str, str]):
    state, tries, log = outcome(pods, "starving", runs["starving"])
    assert (state, tries) == ("failed", 2), log
    assert "ran out of 60Mi; next try with 90Mi" in pods.log("starving", runs["starving"], 1)
    assert "ran out of 90Mi, and compute.memory_limit is 90Mi" in log


def test_a_missing_secret_fails_at_once_and_is_named(pods: World):
    before = pods.site.read_text()
    pods.site.write_text(yaml.safe_dump({**yaml.safe_load(before), "env_from_secrets": ["not-there"]}))
    try:
        run = pods.start("no_secret")
        state, tries, log = outcome(pods, "no_secret", run)
    finally:
        pods.site.write_text(before)
    assert (state, tries) == ("failed", 1), log
    assert 'secret "not-there" not found' in log
    assert pods.gone("no_secret")


def test_a_faulty_site_file_fails_the_task_and_hides_no_dag(pods: World):
    before = pods.site.read_text()
    pods.site.write_text(before + "namspace: elsewhere\n")
    try:
        run = pods.start("no_secret")
        state, tries, log = outcome(pods, "no_secret", run)
        assert not pods.stack.api.import_errors()
    finally:
        pods.site.write_text(before)
    assert (state, tries) == ("failed", 1), log
    assert "namspace: there is no such field. Did you mean 'namespace'?" in log
