"""OpenLineage calls what the models' DAGs publish by names that are those of the installation's store."""

from __future__ import annotations

import pytest
from airflow.providers.openlineage.utils.utils import translate_airflow_asset

from windsock.settings import Settings
from windsock.spec import get_spec
from windsock_airflow import assets


@pytest.mark.parametrize(
    ("store", "namespace"), [("s3://bucket/prefix/", "s3://bucket/prefix"), ("/srv/store", "file:///srv/store")]
)
def test_airflow_itself_finds_how_an_asset_is_called(
    store: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WINDSOCK_STORE", store)
    events = assets.of(get_spec(Settings.from_env(), "fraud"), "events")

    dataset = translate_airflow_asset(events, None)

    assert dataset is not None
    assert (dataset.namespace, dataset.name) == (namespace, "fraud/events")
