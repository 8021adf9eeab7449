"""The operators around a decision: asking a person before a promotion, and asking for a retraining.

Every event of a keyed run carries its key, and an event with a key does not start an un-keyed consumer. So the nightly
``monitor`` run, which is for a day, cannot ask ``train`` by an asset of its own; it starts a run of the small un-keyed
``retrain`` DAG, and that one publishes the request.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException

from windsock.alerts import Alert, report
from windsock.days import parse_day
from windsock.messages import approval_thread
from windsock.settings import Settings
from windsock.spec import ModelSpec, get_spec
from windsock.store import Store
from windsock_airflow.runs import RunFacts, run_url
from windsock_airflow.step import no_retry_of_faulty_input, require_results

REQUEST = ("as_of", "reasons", "dedupe_key", "trigger", "recovery")
"""What a request says of itself: parameters of the retrain DAG, and then of the event that starts a training."""
APPROVAL = "approval"
"""Name of the task that asks a person."""
SUPERSEDED = "superseded by version"
"""What an answer says that no person gave: a newer version is asked about instead."""
APPROVER = "{{ ((ti.xcom_pull(task_ids='approval') or {}).get('responded_by_user') or {}).get('name', '') }}"
"""Template of the name that goes into the record of promotions; empty if nobody answered."""

_EVIDENCE = """\
{%- set verdict = ti.xcom_pull(task_ids="gate") -%}
Version **{{ verdict["version"] }}** passed the gate. Champion: **{{ verdict["champion_seen"] or "none" }}**.

| check | value | threshold | passed | why |
|---|---|---|---|---|
{% for check in verdict["checks"] -%}
| {{ check["name"] }} | {{ check["value"] }} | {{ check["threshold"] }} | {{ check["passed"] }} | {{ check["why"] }} |
{% endfor %}
{% set adopted = ti.xcom_pull(task_ids="adopt") %}{% if adopted %}{{ adopted["why"] }}
{% endif %}
Approve: it scores from the next day on. Reject: the champion stays, and the run ends without a promotion.
"""


class AskForApproval(ApprovalOperator):
    """Ask a person about a version that passed the gate in a live run; skip where there is nothing to decide."""

    def __init__(self, *, spec: ModelSpec, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec = spec

    def execute(self, context: Context) -> Any:
        """Show the evidence and wait, unless the version was refused or nothing may be promoted."""
        with no_retry_of_faulty_input():
            require_results(context)
            facts = RunFacts.of(context, model=self.spec.name, keyed=False)
        verdict: Any = context["ti"].xcom_pull(task_ids="gate")
        if not verdict.get("passed", True):  # a gate of 0.2.0 or before left its verdict only if it was passed
            raise AirflowSkipException(f"Nobody is asked: {verdict['why']}")
        if not facts.live:
            raise AirflowSkipException(f"Nobody is asked: {facts.run_id} is a replay, which promotes nothing.")
        settings = Settings.from_env()
        self._note(context, None)
        self._report(settings, context, f"{verdict['why']} Answer under Required Actions: Approve or Reject.")
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Take the answer; what is not approved is said in the thread that asked."""
        newer = (event.get("params_input") or {}).get(SUPERSEDED)
        if event.get("error_type") == "timeout":
            self._note(context, "nobody has said in time whether it may be promoted")
        if event.get("chosen_options") == [self.REJECT]:  # what follows ends this task and skips those after it
            why = "It was rejected. The champion stays."
            if newer is not None:
                ti: Any = context["ti"]
                why = (
                    f"Version {newer} was judged later, passed as well, and is asked about instead. To be asked about "
                    f"this one all the same, trigger {ti.dag_id} with its number."
                )
            self.log.info(why)
            self._report(Settings.from_env(), context, why, closes=True)
            self._note(context, "rejected by a person" if newer is None else f"superseded by version {newer}", newer)
        return super().execute_complete(context, {**event, "params_input": {}} if newer is not None else event)

    def _note(self, context: Context, why: str | None, newer: Any = None) -> None:
        """Keep for the governor why there was no approval, None: that a person is asked. Without a store it goes on."""
        from windsock.governor import answers  # not for every task that is parsed

        try:
            verdict: Any = context["ti"].xcom_pull(task_ids="gate")
            version, settings = str(verdict["version"]), Settings.from_env()
            if why is None:
                answers.forget_no_approval(settings, self.spec, version)
            elif str(newer) != version:  # else another run asks about this very one
                answers.note_no_approval(settings, self.spec, version, why)
        except Exception as err:
            self.log.warning("The governor is not told of this answer: %s: %s", type(err).__name__, err)

    def _report(self, settings: Settings, context: Context, sentence: str, **more: Any) -> None:
        ti: Any = context["ti"]
        url = run_url(settings, ti.dag_id, ti.run_id, ti.task_id)
        cause = f"approval {ti.dag_id} {ti.run_id} {ti.try_number} {'answered' if more else 'asked'}"
        about = {"kind": "approval", "run_id": ti.run_id, "thread": approval_thread(ti), **more}
        report(
            settings, Alert(ti.dag_id, sentence, ti.task_id, None, url, "Approval needed", cause, **about), self.spec
        )


def ask_for_approval(spec: ModelSpec) -> AskForApproval:
    """Return the task that shows the gate's evidence and waits for *Approve* or *Reject*."""
    return AskForApproval(
        spec=spec,
        task_id=APPROVAL,
        subject=f"Make version {{{{ ti.xcom_pull(task_ids='gate')['version'] }}}} of {spec.name} the champion?",
        body=_EVIDENCE,
        # Asked again, a person would have to answer twice; a rejection is final for this run.
        retries=0,
        execution_timeout=None,
        response_timeout=timedelta(days=14),
    )


class RequestRetraining(TriggerDagRunOperator):
    """Start the model's retrain DAG if the ``decision``, the result of the step ``govern``, says so; skip otherwise.

    The run's id is made of the governor's dedupe key: Airflow itself refuses a second run for the same request. After
    its history in Airflow was deleted the store tells whether the request is answered: by a training, not by having
    been asked.
    """

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
        self.model = model

    def execute(self, context: Context) -> None:
        """Trigger one run per dedupe key, or skip: there is nothing to request, or it was requested before."""
        with no_retry_of_faulty_input():
            require_results(context)
        decision, settings = dict(self.decision), Settings.from_env()
        why = "; ".join(decision.get("reasons", ())) or "no signal."
        if not decision.get("retrain"):
            raise AirflowSkipException(f"No retraining: {why}")
        self.trigger_run_id = run_id_for(decision["dedupe_key"])
        if (done := self._done_before(settings, decision)) is not None:
            raise AirflowSkipException(f"{done}. To train again all the same, trigger {self.model}_train.")
        self.conf = {name: decision.get(name) for name in REQUEST}
        super().execute(context)

    def _done_before(self, settings: Settings, decision: Mapping[str, Any]) -> str | None:
        """Say why this request is not made again, or return None."""
        from windsock.governor import answers  # not for every task that is parsed

        day = parse_day(decision["as_of"])
        if (why := answers.overtaken(settings, self.model, day, decision["dedupe_key"])) is not None:
            return f"Not asked again: {why}"
        begun = RunFacts.recorded(Store.of(settings), self.model, self.trigger_dag_id, str(self.trigger_run_id))
        if begun is not None and answers.later_nights_ask(settings, get_spec(settings, self.model), day):
            return f"Not asked again: run {begun.run_id} asked, and nights that were decided later ask by themselves"
        return None


def nobody_would_hear(context: Context, spec: ModelSpec) -> bool:
    """Say whether training is paused, and with it deaf: Airflow drops the events of paused DAGs. Tells people once."""
    ti: Any = context["ti"]
    dag_id = f"{spec.name}_train"
    if not ti.get_dag(dag_id).is_paused:
        return False
    sentence = f"A retraining was asked for, and {dag_id} is paused. The request waits: unpause that, and it begins."
    cause = f"request {ti.dag_id} {ti.run_id}"
    settings = Settings.from_env()
    alert = Alert(ti.dag_id, sentence, ti.task_id, headline="Retraining waits", cause=cause, kind="deadline")
    report(settings, alert, spec)
    return True


def told_to_train(context: Context, spec: ModelSpec) -> dict[str, Any] | None:
    """Return what the event of a request says, or None as long as nobody would hear it.

    Raises:
        AirflowSkipException: There is a training for it by now, or a newer request.
    """
    if nobody_would_hear(context, spec):
        return None
    given = {name: context["params"][name] for name in REQUEST if context["params"].get(name)}
    if "as_of" in given and "dedupe_key" in given:
        from windsock.governor import answers

        day = parse_day(given["as_of"])
        if why := answers.overtaken(Settings.from_env(), spec.name, day, given["dedupe_key"]):
            raise AirflowSkipException(f"Not asked: {why}.")
    return {"live": True, **given}


def run_id_for(dedupe_key: str) -> str:
    """Return the retrain run's id for one drift, in characters that Airflow accepts."""
    return "drift__" + re.sub(r"[^A-Za-z0-9_.~-]+", "-", dedupe_key)
