"""The lineage graph's nodes: what each model's DAGs publish, as Airflow assets.

Two worlds that Airflow does not mix. **Keyed** assets carry a day (partition key) with
every event and start exactly one run of their consumer per day: ``labels_due``,
``events``, ``features``, ``predictions``. **Un-keyed** assets belong to the model as a whole:
``retrain_requested``, ``challenger``, ``champion``. An event of a keyed run always
carries its key and so never starts an un-keyed consumer; ``retrain`` has the way across.
"""

from __future__ import annotations

from airflow.sdk import Asset

from windsock.spec import ModelSpec

KEYED: frozenset[str] = frozenset({"labels_due", "events", "features", "predictions"})
"""Kinds of assets whose events carry a day."""


def events(spec: ModelSpec) -> Asset:
    """Return the model's published days of events and labels."""
    return _asset(spec, "events")


def labels_due(spec: ModelSpec) -> Asset:
    """Return the days whose label files are to be taken in, for models that have such files."""
    return _asset(spec, "labels_due")


def features(spec: ModelSpec) -> Asset:
    """Return the model's published days of features, online store included."""
    return _asset(spec, "features")


def predictions(spec: ModelSpec) -> Asset:
    """Return the champion's published days of scores."""
    return _asset(spec, "predictions")


def retrain_requested(spec: ModelSpec) -> Asset:
    """Return the governor's requests to train again."""
    return _asset(spec, "retrain_requested")


def challenger(spec: ModelSpec) -> Asset:
    """Return the newly registered model versions."""
    return _asset(spec, "challenger")


def champion(spec: ModelSpec) -> Asset:
    """Return the changes of champion, rollbacks included."""
    return _asset(spec, "champion")


def _asset(spec: ModelSpec, kind: str) -> Asset:
    return Asset(name=f"{spec.name}_{kind}", uri=f"x-windsock://{spec.name}/{kind}", group=f"windsock_{spec.name}")
