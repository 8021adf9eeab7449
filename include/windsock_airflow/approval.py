"""Asking a person before a challenger becomes champion."""

from datetime import timedelta

from airflow.providers.standard.operators.hitl import ApprovalOperator

from windsock.spec import ModelSpec

APPROVER = "{{ ti.xcom_pull(task_ids='approval')['responded_by_user']['name'] }}"
"""Template of the name that goes into the record of promotions."""

_EVIDENCE = """\
{%- set verdict = ti.xcom_pull(task_ids="gate") -%}
Version **{{ verdict["version"] }}** passed the gate. Champion: **{{ verdict["champion_seen"] or "none" }}**.

| check | value | threshold | passed | why |
|---|---|---|---|---|
{% for check in verdict["checks"] -%}
| {{ check["name"] }} | {{ check["value"] }} | {{ check["threshold"] }} | {{ check["passed"] }} | {{ check["why"] }} |
{% endfor %}
Approve: it scores from the next day on. Reject: the champion stays, and the run ends without a promotion.
"""


def ask_for_approval(spec: ModelSpec) -> ApprovalOperator:
    """Return the task that shows the gate's evidence and waits for *Approve* or *Reject*."""
    return ApprovalOperator(
        task_id="approval",
        subject=f"Make this version of {spec.name} the champion?",
        body=_EVIDENCE,
        # Asked again, a person would have to answer twice; a rejection is final for this run.
        retries=0,
        execution_timeout=None,
        response_timeout=timedelta(days=14),
    )
