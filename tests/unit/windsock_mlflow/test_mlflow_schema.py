"""MLflow's database of an earlier or a later MLflow, made by MLflow's own migrations up to there."""

from pathlib import Path

import pytest
import sqlalchemy
from alembic import command
from alembic.script import ScriptDirectory
from mlflow.store.db import utils
from mlflow.store.tracking.dbmodels.initial_models import Base
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from windsock.errors import SpecError
from windsock_mlflow.schema import bring_up_to_date

REVISIONS = [each.revision for each in ScriptDirectory.from_config(utils._get_alembic_config("")).walk_revisions()]
"""The newest first."""


def database_at(url: str, revision: str) -> None:
    """Make the database that an earlier MLflow left, with an experiment."""
    engine = sqlalchemy.create_engine(url)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        config = utils._get_alembic_config(url)
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    with engine.begin() as connection:
        connection.execute(
            sqlalchemy.text(
                "insert into experiments (experiment_id, name, lifecycle_stage) values (7, 'fraud', 'active')"
            )
        )
    engine.dispose()


@pytest.mark.parametrize("behind", [1, 20])
def test_a_database_of_an_earlier_mlflow_is_migrated_and_keeps_what_it_holds(tmp_path: Path, behind: int) -> None:
    url = f"sqlite:///{tmp_path / 'mlflow.db'}"
    database_at(url, REVISIONS[behind])

    for _ in range(2):  # safe to repeat
        bring_up_to_date(url)

    store = SqlAlchemyStore(url, str(tmp_path / "artifacts"))  # refuses any but today's tables
    assert store.get_experiment_by_name("fraud").experiment_id == "7"


def test_a_new_database_is_left_to_mlflow(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'mlflow.db'}"
    bring_up_to_date(url)
    assert sqlalchemy.inspect(sqlalchemy.create_engine(url)).get_table_names() == []


def test_a_database_of_a_later_mlflow_is_refused_and_untouched(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'mlflow.db'}"
    database_at(url, "head")
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("update alembic_version set version_num = 'fedcba987654'"))
    before = (tmp_path / "mlflow.db").read_bytes()

    with pytest.raises(SpecError, match=r"tables of a later MLflow \(revision fedcba987654\).* restore the backup"):
        bring_up_to_date(url)

    assert (tmp_path / "mlflow.db").read_bytes() == before
    engine.dispose()
