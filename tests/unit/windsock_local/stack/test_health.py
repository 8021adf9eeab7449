"""Health is a part's own heartbeat, not its predecessor's."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from windsock.settings import Settings
from windsock_local.stack import doctor, health, probes


def report(seconds_ago: float, status: str = "healthy") -> dict[str, object]:
    beat = (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat()
    return {"dag_processor": {"status": status, "latest_dag_processor_heartbeat": beat}}


def test_a_heartbeat_from_before_the_start_does_not_count() -> None:
    started = time.time() - 10

    assert probes.beat_since(report(5), "dag-processor", started)
    assert not probes.beat_since(report(20), "dag-processor", started)
    assert not probes.beat_since(report(5, "unhealthy"), "dag-processor", started)
    assert not probes.beat_since({}, "dag-processor", started)
    assert not probes.beat_since({"dag_processor": {"status": None}}, "dag-processor", started)


def test_no_answer_is_no_health() -> None:
    assert probes.airflow_health("http://127.0.0.1:9", timeout_seconds=0.2) == {}
    assert not probes.answers("http://127.0.0.1:9/health")


def test_without_a_stack_the_state_is_down(tmp_path: Path) -> None:
    state = health.check(Settings.from_env({"WINDSOCK_HOME": str(tmp_path)}))

    assert (state.running, state.state, state.healthy) == (False, "down", False)


def test_the_doctor_finds_every_check_and_a_step_for_each_fault(tmp_path: Path) -> None:
    (tmp_path / "models" / "broken").mkdir(parents=True)
    (tmp_path / "models" / "broken" / "model.yaml").write_text("name: [")
    env = {"WINDSOCK_HOME": str(tmp_path / "home"), "WINDSOCK_MODELS": str(tmp_path / "models")}

    checks = doctor.examine(Settings.from_env(env))

    assert {c.name for c in checks} >= {"python", "versions", "memory", "disk", "home", "database", "ports", "secrets"}
    assert all(c.next_step for c in checks if c.verdict != "ok")
    assert [c.verdict for c in checks if c.name == "models"] == ["problem"]
    assert not (tmp_path / "home").exists(), "a doctor changes nothing"
