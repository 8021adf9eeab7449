"""What Airflow's provider manager learns of Windsock: how OpenLineage is to call the assets of the models' DAGs.

The entry point ``apache_airflow_provider`` of the package leads here. Airflow asks for the converter only where
OpenLineage is on (docs/deploy.md).
"""

from typing import Any
from urllib.parse import urlsplit

from windsock.settings import Settings


def provider_info() -> dict[str, Any]:
    """Return the package's description in Airflow's form."""
    return {
        "package-name": "windsock",
        "name": "Windsock",
        "description": "The assets of the models' DAGs as OpenLineage datasets.",
        "asset-uris": [
            {
                "schemes": ["x-windsock"],
                "handler": None,
                "to_openlineage_converter": "windsock_airflow.provider.dataset_of",
            }
        ],
    }


def dataset_of(asset: Any, lineage_context: Any) -> Any:
    """Return the OpenLineage dataset of an asset: ``<model>/<kind>`` in the installation's store."""
    from openlineage.client.event_v2 import Dataset

    of = urlsplit(asset.uri)
    store = Settings.from_env().store.rstrip("/")
    return Dataset(namespace=store if "://" in store else f"file://{store}", name=f"{of.netloc}{of.path}")
