import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from windsock.errors import SpecError
from windsock.lint import lint_model, specs_below
from windsock.settings import REPO_ROOT, Settings


def folder(tmp_path: Path, name: str = "fraud", **changed: Any) -> Path:
    """Copy the fraud model, with some fields changed; ``a__b`` names a field of a field."""
    target = tmp_path / "models" / name
    shutil.copytree(REPO_ROOT / "include" / "models" / "fraud", target)
    raw = yaml.safe_load((target / "model.yaml").read_text()) | {"name": name}
    for field, value in changed.items():
        *path, last = field.split("__")
        part = raw
        for step in path:
            part = part[step]
        part[last] = value
    (target / "model.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    return target


def faults(target: Path) -> list[str]:
    return lint_model(target.name, target / "model.yaml").faults


def test_the_reference_model_is_without_fault() -> None:
    finding = lint_model("fraud", REPO_ROOT / "include" / "models" / "fraud" / "model.yaml")

    assert finding.faults == []
    assert finding.note == "15 features (3 of the row, 2 views)"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        pytest.param({"features__row": {"x": "TX_AMONT * 2"}}, r"features\.row\.x: .*TX_AMONT", id="expression"),
        pytest.param({"features__row": {"x": "'a'"}, "training__categorical": []}, "type STRING, no number", id="text"),
        pytest.param({"features__row": {"CUSTOMER_ID": "1"}}, "name of the customer entity", id="entity-name"),
        pytest.param({"features__row": {"score": "1"}}, "name of predictions", id="reserved-name"),
        pytest.param(
            {"features__row": {"TERMINAL_ID_RISK_7DAY_WINDOW": "1"}},
            "several features are named 'TERMINAL_ID_RISK_7DAY_WINDOW'",
            id="clash",
        ),
        pytest.param(
            {"training__categorical": ["TX_DURING_NIHGT"]}, "Did you mean 'TX_DURING_NIGHT'", id="categorical"
        ),
        pytest.param(
            {"training__estimators": [{"params": {"num_leavs": 3}}]},
            "no parameter 'num_leavs'. Did you mean",
            id="parameter",
        ),
        pytest.param({"training__estimators": [{"params": {"seed": 3}}]}, r"training\.seed", id="reserved-parameter"),
        pytest.param(
            {"training__estimators": [{"search": {"num_leaves": {"kind": "int", "low": 9, "high": 3}}}]},
            "low 9 is not below high 3",
            id="range",
        ),
        pytest.param(
            {"training__estimators": [{"search": {"lambda_l1": {"kind": "float", "low": 0, "high": 3, "log": True}}}]},
            "must start above 0",
            id="log-range",
        ),
        pytest.param({"schedule": {"train": "every day"}}, r"schedule\.train: .*'every day'", id="cron"),
    ],
)
def test_each_fault_is_named(tmp_path: Path, changed: dict[str, Any], named: str) -> None:
    import re

    found = faults(folder(tmp_path, **changed))

    assert any(re.search(named, fault) for fault in found), found


def test_a_views_sql_is_run(tmp_path: Path) -> None:
    target = folder(tmp_path)
    (target / "terminal_risk.sql").write_text("select TERMINAL_ID, TX_DATETIME as event_timestamp, nosuch from history")

    found = faults(target)

    assert len(found) == 1
    assert "terminal_risk" in found[0]
    assert "nosuch" in found[0]


@pytest.mark.parametrize(
    ("suite", "fault"),
    [
        ("{", "expectations.json: is not a GX suite (JSONDecodeError"),
        ("{}", "expectations.json: is not a GX suite (KeyError"),
        (
            '{"expectations": [{"type": "expect_column_mean_to_be_between", "kwargs": {"column": "TX_AMONT"}}]}',
            "expectations.json: expectations[0] (expect_column_mean_to_be_between) names the column 'TX_AMONT'",
        ),
    ],
)
def test_a_broken_suite_file_is_named(tmp_path: Path, suite: str, fault: str) -> None:
    target = folder(tmp_path)
    (target / "expectations.json").write_text(suite)

    assert [f for f in faults(target) if f.startswith(fault)]


def test_all_faults_are_listed_at_once_and_one_broken_model_hides_no_other(tmp_path: Path) -> None:
    folder(tmp_path, "good")
    folder(tmp_path, "many", training__categorical=["a"], schedule={"maintenance": "x"}, features__row={"b": "nosuch"})
    broken = folder(tmp_path, "unreadable")
    (broken / "model.yaml").write_text("name: unreadable\nowner: me\nspeed: 3\n")

    specs = specs_below(Settings.from_env({}), tmp_path / "models")
    findings = {name: lint_model(name, path) for name, path in specs.items()}

    assert findings["good"].faults == []
    assert len(findings["many"].faults) == 3
    assert any("speed: there is no such field" in f for f in findings["unreadable"].faults)
    assert len(findings["unreadable"].faults) > 5


def test_a_path_may_be_a_file_a_model_or_a_folder_of_models(tmp_path: Path) -> None:
    target = folder(tmp_path)
    settings = Settings.from_env({"WINDSOCK_MODELS": str(tmp_path / "models")})

    for path in (None, target, target / "model.yaml", target.parent):
        assert specs_below(settings, path) == {"fraud": target / "model.yaml"}
    with pytest.raises(SpecError, match=r"There is no model\.yaml"):
        specs_below(settings, tmp_path)
    with pytest.raises(SpecError, match="Did you mean 'fraud'"):
        specs_below(settings, None, "froud")
