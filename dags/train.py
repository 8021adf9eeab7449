"""Train a challenger as of a day, from what was known by then.

**Started by** `<model>_retrain_requested`, by the clock, or by hand with a form.
**Reads** features of complete, warm days and the labels known by the day. **Publishes**
`<model>_challenger`: a registered model version with metrics and lineage in MLflow.

**Asks first** for features that it lacks: of definitions that are new, or of days that have
changed since. They are computed by runs of `<model>_features`, and `assemble` waits for them.

**Reruns** are safe: each run has its own folder, and a rerun gives the same bytes. A run by
the clock is skipped while there is too little data; one that was asked for waits two hours
for missing days, then fails and names them. In pods, a killed `fit` goes on where it was.
**On exit code 64 or 65** fix the spec or the form's values; a retry would not help.
"""

from datetime import timedelta

from airflow.sdk import DAG, AssetOrTimeSchedule

from windsock.spec import ModelSpec
from windsock_airflow import assets, forms
from windsock_airflow.blueprint import fit_tasks, for_each_model, heavy_step, identity, weekly
from windsock_airflow.step import StepOperator


@for_each_model("train")
def train_dag(spec: ModelSpec) -> None:
    """Make one model's DAG."""
    requested, clock = assets.of(spec, "retrain_requested"), weekly(spec.schedule.train)
    with DAG(
        **identity(spec, "train", __doc__),
        # No start date: a fresh installation waits for the next tick instead of training at once.
        schedule=[requested] if clock is None else AssetOrTimeSchedule(timetable=clock, assets=[requested]),
        is_paused_upon_creation=False,
        max_active_runs=1,
        params=forms.train_form(spec),
    ):
        events, learnt_from = assets.of(spec, "events"), [assets.of(spec, kind) for kind in ("events", "features")]
        cause = ["as_of", "reasons", "dedupe_key", "trigger", "recovery"]
        asked = {"keyed": False, "cause": cause, "timeout": timedelta(hours=2)}
        prepare = StepOperator(
            step="prepare",
            model=spec.name,
            form=["as_of", *forms.OVERRIDES],
            skip_on_schedule=True,
            outlets=[events],
            days_from={events.name: "days"},
            announce=["live"],
            **asked,
        )
        as_of = {"as_of": prepare.output["as_of"]}
        assemble = heavy_step(spec, step="assemble", form=[*forms.OVERRIDES, "reason"], options=as_of, **asked)
        run = {"run": assemble.output["run"]}
        choose = StepOperator(step="choose", model=spec.name, keyed=False, options=run)
        published = {"inlets": learnt_from, "outlets": [assets.of(spec, "challenger")], "announce": ["version", "run"]}
        register = StepOperator(step="register", model=spec.name, keyed=False, options=run, **published)
        fits = [fit_tasks(spec, estimator, run) for estimator in spec.training.estimators]
        prepare >> assemble >> fits >> choose >> register
