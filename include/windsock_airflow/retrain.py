"""The way from the daily chain to the model chain.

Every event of a keyed run carries its key, and an event with a key does not start an
un-keyed consumer. So the nightly ``monitor`` run, which is for a day, cannot ask ``train``
by an asset of its own; it starts a run of the small un-keyed ``retrain`` DAG, and that one
publishes the request. The run's id is the governor's dedupe key: Airflow itself refuses a
second run for the same drift.
"""

import re
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException


class RequestRetraining(TriggerDagRunOperator):
    """Start the model's retrain DAG if the ``decision``, the result of the step ``govern``, says so; skip otherwise."""

    template_fields = ("decision",)

    def __init__(self, *, model: str, decision: Any, **kwargs: Any) -> None:
        super().__init__(
            trigger_dag_id=f"{model}_retrain",
            logical_date=None,
            skip_when_already_exists=True,
            openlineage_inject_parent_info=False,
            **kwargs,
        )
        self.decision = decision

    def execute(self, context: Context) -> None:
        """Trigger one run per dedupe key.

        Raises:
            AirflowSkipException: There is nothing to request, or it was requested before.
        """
        decision = dict(self.decision)
        if not decision.get("retrain"):
            raise AirflowSkipException("No retraining: " + ("; ".join(decision.get("reasons", ())) or "no signal."))
        self.trigger_run_id = run_id_for(decision["dedupe_key"])
        self.conf = {name: decision.get(name) for name in ("as_of", "reasons", "dedupe_key")}
        super().execute(context)


def run_id_for(dedupe_key: str) -> str:
    """Return the retrain run's id for one drift, in characters that Airflow accepts."""
    return "drift__" + re.sub(r"[^A-Za-z0-9_.~-]+", "-", dedupe_key)
