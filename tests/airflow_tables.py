"""Airflow's tables in a database of a test's own, as its models make them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.models import import_all_models
from airflow.models.base import Base
from airflow.models.dagbundle import DagBundleModel
from sqlalchemy import create_engine, event
from sqlalchemy.orm import Session


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """A session with the tables, and the bundle that DAGs belong to."""
    import_all_models()
    engine = create_engine(f"sqlite:///{tmp_path / 'airflow.db'}")
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys = ON"))
    Base.metadata.create_all(engine)
    with Session(engine) as opened:
        opened.add(DagBundleModel(name="dags"))
        opened.commit()
        yield opened
    engine.dispose()


def task_values(dag_id: str, run_id: str, task_id: str, state: str | None) -> dict[str, object]:
    """Return the columns of a task that Airflow's tables insist on."""
    return {
        **{"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": -1, "state": state},
        **{"try_number": 1, "max_tries": 1, "pool": "default_pool", "pool_slots": 1},
    }
