"""Bags of DAGs: ``bag`` of the reference model, ``bag_of`` any folders of models."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dag_bag import load_bag


@pytest.fixture(scope="session", autouse=True)
def _own_airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
        yield


@pytest.fixture(scope="session")
def bag(_own_airflow_home: None) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WINDSOCK_MODELS", raising=False)
        return load_bag()


@pytest.fixture
def bag_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def load(*folders: Path) -> Any:
        monkeypatch.setenv("WINDSOCK_MODELS", os.pathsep.join(map(str, folders)))
        return load_bag()

    return load
