"""Numbers for Prometheus: right, cheap, for who has the token; what the examples show and alert on is there."""

import json
import re
import shutil
import subprocess
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from small_model import small_fraud
from windsock import exporter, promotions
from windsock.alerts import Alert, report
from windsock.days import utc_now
from windsock.ledger import DayRecord, Ledger, Output
from windsock.settings import REPO_ROOT, Settings
from windsock_airflow.pages import make_app

TOKEN = "a-token-of-prometheus"
EXAMPLES = REPO_ROOT / "docs" / "monitoring"
DAY = date(2026, 3, 5)


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """One model with a day behind it, and one of which nothing is recorded."""
    settings, spec = small_fraud(tmp_path)
    shutil.copytree(tmp_path / "models" / "fraud", tmp_path / "models" / "idle")
    idle = tmp_path / "models" / "idle" / "model.yaml"
    idle.write_text(idle.read_text(encoding="utf-8").replace("name: fraud", "name: idle", 1), encoding="utf-8")
    for name, value in (("HOME", tmp_path), ("MODELS", tmp_path / "models"), ("METRICS_TOKEN", f"{TOKEN}\n")):
        monkeypatch.setenv(f"WINDSOCK_{name}", str(value))
    monkeypatch.delenv("WINDSOCK_STORE", raising=False)
    monkeypatch.setattr(exporter, "_last", (float("-inf"), b""))
    ledger = {stage: Ledger.of(settings, "fraud", stage) for stage in ("ingest", "score", "monitor")}
    for day in (DAY - timedelta(days=1), DAY):
        detail = {"published": 90, "quarantined": {"amount": 7, "time": 3}}
        ledger["ingest"].publish(DayRecord(str(day), "published", detail=detail, seconds=1.5))
        rows = {"predictions": Output(90, "h", ("f",))}
        ledger["score"].publish(DayRecord(str(day), "published", rows))
        performance = {"metric": "average_precision", "value": 0.4, "holdout": 0.6}
        found = {"champion": "7", "drifted": True, "drifted_share": 0.5, "degraded": False, "performance": performance}
        ledger["monitor"].publish(DayRecord(str(day), "published", detail=found))
    entry = promotions.Promotion(0, "promote", "7", "r", None, DAY, DAY - timedelta(days=1), "test")
    promotions.append(settings, spec, entry, after=None)
    report(settings, Alert("fraud_ingest", "x", thread="failed fraud_ingest"), spec)
    return Settings.from_env()


@pytest.fixture
def prometheus(installation: Settings) -> TestClient:
    return TestClient(make_app.__wrapped__(), headers={"Authorization": f"Bearer {TOKEN}"})


def samples(text: str) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(text)
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_the_numbers_are_those_of_the_newest_records(prometheus: TestClient) -> None:
    found = samples(prometheus.get("/metrics").text)

    expected = {
        ("windsock_model_readable", "fraud"): 1,
        ("windsock_model_readable", "idle"): 1,
        ("windsock_day_rows", "fraud"): 90,
        ("windsock_day_quarantined_rows", "fraud"): 10,
        ("windsock_day_scored_rows", "fraud"): 90,
        ("windsock_step_seconds", "fraud", "ingest"): 1.5,
        ("windsock_newest_day_timestamp_seconds", "fraud", "score"): 1772755200,  # the end of 5 March
        ("windsock_drifted", "fraud"): 1,
        ("windsock_drift_share", "fraud"): 0.5,
        ("windsock_degraded", "fraud"): 0,
        ("windsock_performance", "average_precision", "fraud"): 0.4,
        ("windsock_performance_promised", "average_precision", "fraud"): 0.6,
        ("windsock_champion_info", "fraud", "7"): 1,
        ("windsock_champion_trained_timestamp_seconds", "fraud"): 1772668800,
        ("windsock_open_alerts",): 1,
        ("windsock_alerts_waiting",): 0,
    }
    assert {name: found.get(name) for name in expected} == expected
    age = utc_now().timestamp() - found["windsock_last_success_timestamp_seconds", "fraud", "monitor"]
    assert abs(age) < 600
    assert ("windsock_day_rows", "idle") not in found, "what is not known is no zero"


def test_a_rejected_day_is_no_success_and_a_night_that_judges_nothing_ends_no_drift(
    prometheus: TestClient, installation: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "_CACHED_S", 0.0)
    before = samples(prometheus.get("/metrics").text)
    day = DAY + timedelta(days=1)
    Ledger.of(installation, "fraud", "ingest").publish(DayRecord(str(day), "rejected"))
    night = {"champion": "7", "drifted": False, "degraded": False, "drifted_share": 0.0, "broken": [{"column": "x"}]}
    Ledger.of(installation, "fraud", "monitor").publish(DayRecord(str(day), "published", detail=night))

    after = samples(prometheus.get("/metrics").text)
    success = ("windsock_last_success_timestamp_seconds", "fraud", "ingest")
    assert after[success] == before[success]
    assert after["windsock_day_rejected", "fraud"] == 1
    assert (before["windsock_judged", "fraud"], after["windsock_judged", "fraud"]) == (1, 0)
    for name in ("windsock_drifted", "windsock_drift_share", "windsock_degraded"):
        assert after[name, "fraud"] == before[name, "fraud"], name


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x"])
def test_nobody_sees_them_without_the_token(header: str, installation: Settings) -> None:
    answer = TestClient(make_app.__wrapped__()).get("/metrics", headers={"Authorization": header} if header else {})
    assert answer.status_code == 401
    assert "windsock_" not in answer.text


def test_without_a_token_there_are_none(installation: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WINDSOCK_METRICS_TOKEN")
    answer = TestClient(make_app.__wrapped__()).get("/metrics", headers={"Authorization": "Bearer "})
    assert answer.status_code == 404


def test_a_model_that_cannot_be_read_hides_no_other(prometheus: TestClient, installation: Settings) -> None:
    Path(installation.store, "fraud", "ledger", "ingest", f"{DAY}.json").write_text("{", encoding="utf-8")
    found = samples(prometheus.get("/metrics").text)
    assert found["windsock_model_readable", "fraud"] == 0
    assert found["windsock_model_readable", "idle"] == 1


def test_the_store_is_read_once_in_some_seconds_however_often_it_is_asked(
    prometheus: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prometheus.get("/metrics").text
    monkeypatch.setattr(exporter, "load_specs", None)
    assert prometheus.get("/metrics").text == first


needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not here (Debian: prometheus)"
)


@needs_promtool
def test_promtool_accepts_numbers_rules_and_configuration(prometheus: TestClient, tmp_path: Path) -> None:
    def check(*arguments: str, given: str = "") -> None:
        done = subprocess.run(
            ["promtool", "check", *arguments], input=given, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr.replace("\n", "")) == (0, ""), done.stdout + done.stderr

    check("metrics", given=prometheus.get("/metrics").text)
    check("rules", str(EXAMPLES / "alert-rules.yaml"))
    config = (EXAMPLES / "prometheus.yaml").read_text(encoding="utf-8")
    (tmp_path / "token").write_text(TOKEN, encoding="utf-8")
    (tmp_path / "alert-rules.yaml").write_bytes((EXAMPLES / "alert-rules.yaml").read_bytes())
    (tmp_path / "prometheus.yaml").write_text(
        config.replace("/etc/prometheus/windsock-metrics-token", str(tmp_path / "token")), encoding="utf-8"
    )
    check("config", str(tmp_path / "prometheus.yaml"))


def expressions(value: Any) -> list[str]:
    """Return every PromQL expression of a dashboard or of rules."""
    if isinstance(value, dict):
        own = [value["expr"]] if "expr" in value else []
        return own + [found for each in value.values() for found in expressions(each)]
    return [found for each in value for found in expressions(each)] if isinstance(value, list) else []


def test_the_examples_ask_for_numbers_that_there_are(prometheus: TestClient) -> None:
    import yaml

    text = prometheus.get("/metrics").text
    offered = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    board = json.loads((EXAMPLES / "grafana-dashboard.json").read_text(encoding="utf-8"))
    rules = yaml.safe_load((EXAMPLES / "alert-rules.yaml").read_text(encoding="utf-8"))
    asked = {name for each in expressions(board) + expressions(rules) for name in re.findall(r"windsock_\w+", each)}
    assert asked <= offered
    assert offered - asked == set(), "a number that nobody looks at"


def test_the_dashboard_is_one_that_grafana_loads() -> None:
    board = json.loads((EXAMPLES / "grafana-dashboard.json").read_text(encoding="utf-8"))
    assert board["schemaVersion"] >= 36
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
        assert {target["refId"] for target in panel["targets"]} == set("ABC"[: len(panel["targets"])])
