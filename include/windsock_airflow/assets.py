"""The lineage graph's nodes: what each model's DAGs publish, as Airflow assets.

Two worlds that Airflow does not mix. **Keyed** assets carry a day (partition key) with every event and start exactly
one run of their consumer per day. **Un-keyed** assets belong to the model as a whole. An event of a keyed run always
carries its key and so never starts an un-keyed consumer; ``decisions`` has the way across.

=====================  ==================================================================
keyed: the days of
=====================  ==================================================================
``labels_due``         label files to be taken in, for models that have such files
``events``             events and labels
``features``           features, online store included
``predictions``        the champion's scores
---------------------  ------------------------------------------------------------------
un-keyed
---------------------  ------------------------------------------------------------------
``retrain_requested``  the governor's requests to train again
``challenger``         newly registered model versions
``champion``           changes of champion, rollbacks included
=====================  ==================================================================
"""

from typing import Literal

from airflow.sdk import Asset

from windsock.spec import ModelSpec

Kind = Literal["labels_due", "events", "features", "predictions", "retrain_requested", "challenger", "champion"]


def of(spec: ModelSpec, kind: Kind) -> Asset:
    """Return one of a model's assets."""
    return Asset(name=f"{spec.name}_{kind}", uri=f"x-windsock://{spec.name}/{kind}", group=f"windsock_{spec.name}")
