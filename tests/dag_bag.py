"""The DAG files, loaded as Airflow's own processor loads them."""

from typing import Any

from windsock.settings import REPO_ROOT

DAGS = REPO_ROOT / "dags"


def load_bag() -> Any:
    """Parse every DAG file for the models that ``WINDSOCK_MODELS`` names."""
    from airflow.dag_processing.dagbag import BundleDagBag

    return BundleDagBag(dag_folder=str(DAGS), bundle_path=DAGS, bundle_name="dags-folder")
