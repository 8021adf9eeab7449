"""DAG files and plugins stay light; who may import whom below them is held by import-linter (``make lint``)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from windsock.settings import REPO_ROOT

HEAVY = {
    "duckdb",
    "evidently",
    "feast",
    "great_expectations",
    "lightgbm",
    "mlflow",
    "numpy",
    "optuna",
    "pandas",
    "pyarrow",
    "sklearn",
    "torch",
}


def imports_of(path: Path) -> Iterator[str]:
    """Yield every module that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module


def files_below(folder: Path) -> list[Path]:
    found = sorted(folder.rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("folder", ["dags", "plugins"])
def test_dags_and_plugins_import_no_heavy_library_and_no_stage(folder: str):
    for path in files_below(REPO_ROOT / folder):
        names = set(imports_of(path))
        assert not {name.split(".")[0] for name in names} & HEAVY, path
        stages = {name for name in names if name.startswith("windsock.")} - {
            "windsock.errors",
            "windsock.spec",
            "windsock.settings",
        }
        assert not stages, f"{path} reaches past windsock_airflow: {stages}"


def test_no_module_of_the_product_is_too_long_to_be_read_at_once():
    longest = 300
    paths = [path for folder in ("dags", "include", "plugins") for path in files_below(REPO_ROOT / folder)]
    lines = {str(path.relative_to(REPO_ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    assert {name: n for name, n in lines.items() if n > longest} == {}


def test_no_two_test_modules_have_one_name_or_pytest_would_collect_only_one():
    names = [path.name for path in files_below(REPO_ROOT / "tests") if path.name not in {"conftest.py", "__init__.py"}]
    assert {name for name in names if names.count(name) > 1} == set()
