"""Judge a challenger and make it champion if it passes.

**Started by** `<model>_challenger`, or by hand for a chosen version. **Reads** the challenger,
the champion and the frozen rows both are scored on. **Publishes** `<model>_champion`.

`gate` shows its verdict: the sentence names each check that did not pass or could not run,
the evidence lies in the run folder (button *Report*). A refused challenger is a result: the
run ends green, the tasks after it are skipped, the champion stays. Red is what is broken.
With `training.refit`, what passed is then trained again, by the same recipe up to the last
matured day (`refit`, the `fit` of its estimator, `adopt`), and goes into force for its judged
twin; if `adopt` finds it not sane, the twin does. If the spec asks for it, a person then decides
(*Required Actions*); newer versions are judged meanwhile, and once one asks, the older question
is withdrawn. `promote` compares and sets: if the champion changed, the gate runs again.

**Reruns** are safe: promoting the champion again changes nothing. Challengers of replayed
runs are judged and not promoted; trigger by hand to promote one.
"""

from airflow.sdk import DAG

from windsock.spec import ModelSpec
from windsock_airflow import assets, forms
from windsock_airflow.blueprint import for_each_model, identity, refit_tasks
from windsock_airflow.decisions import APPROVER, ask_for_approval
from windsock_airflow.step import StepOperator


@for_each_model("promote")
def promote_dag(spec: ModelSpec) -> None:
    """Make one model's DAG."""
    with DAG(
        **identity(spec, "promote", __doc__),
        schedule=[assets.of(spec, "challenger")],
        is_paused_upon_creation=False,
        max_active_runs=4,  # while a version waits for a person, newer ones are judged
        params={
            "version": forms.version("Judge this version; empty: the latest challenger."),
            "reason": forms.reason("Why this version is promoted."),
        },
    ):
        its = ["version"]
        gate = StepOperator(step="gate", model=spec.name, keyed=False, form=its, cause=its, max_active_tis_per_dag=1)
        judged = {"version": gate.output["version"], "champion_seen": gate.output["champion_seen"]}
        published = {"inlets": [assets.of(spec, "challenger")], "outlets": [assets.of(spec, "champion")]}
        adopt = refit_tasks(spec, judged) if spec.training.refit else None
        promote = StepOperator(
            step="promote",
            model=spec.name,
            keyed=False,
            form=["reason"],
            options={
                **(judged if adopt is None else {**judged, "version": adopt.output["version"]}),
                "by": APPROVER if spec.gate.approval else None,
            },
            skip_replayed=True,
            **published,
            announce=["version", "previous", "in_force_from"],
        )
        if spec.gate.approval:
            [gate, *([adopt] if adopt is not None else [])] >> ask_for_approval(spec) >> promote
