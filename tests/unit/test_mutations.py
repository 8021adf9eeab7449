"""The table of broken rules stays true to the source that it breaks."""

import tomllib

import pytest

from windsock.settings import REPO_ROOT

RULES = tomllib.loads((REPO_ROOT / "tests" / "mutations.toml").read_text(encoding="utf-8"))["rule"]


@pytest.mark.parametrize("rule", RULES, ids=[rule["name"] for rule in RULES])
def test_a_rule_is_one_place_in_the_source_and_names_a_test_that_is_there(rule: dict[str, str]):
    assert (REPO_ROOT / rule["file"]).read_text(encoding="utf-8").count(rule["replace"]) == 1
    assert rule["by"] != rule["replace"]
    file, _, test = rule["test"].partition("::")
    assert f"def {test}(" in (REPO_ROOT / file).read_text(encoding="utf-8")
