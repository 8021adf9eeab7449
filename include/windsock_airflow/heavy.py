"""Where a heavy step runs: in the task's own process, or in a pod.

The estimator's ``compute.backend`` decides, else ``WINDSOCK_COMPUTE``. The site's rules and
the Kubernetes client are imported only if there is a pod to make, so that DAG files of a
laptop parse as fast as ever.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperator, TaskGroup

from windsock.errors import SpecError
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.spec.estimators import CustomSpec, Estimator
from windsock_airflow.step import StepOperator

LONGEST_TRAINING = timedelta(hours=12)


def fit_tasks(spec: ModelSpec, estimator: Estimator, options: Mapping[str, Any]) -> Any:
    """Make what trains one estimator: a task that fits it, or a group with a search by several tasks before it.

    The option ``run`` comes from the task ``assemble``.
    """
    name = f"fit_{estimator.name}" if len(spec.training.estimators) > 1 else "fit"

    def step(task_id: str, **more: str) -> Any:
        return heavy_step(
            spec,
            step="fit",
            estimator=estimator,
            task_id=task_id,
            keyed=False,
            options={**options, **more},
            execution_timeout=LONGEST_TRAINING,
        )

    parallel = 1 if isinstance(estimator, CustomSpec) else estimator.budget.parallel
    if parallel == 1:
        return step(name)
    with TaskGroup(group_id=estimator.name, prefix_group_id=False) as group:
        searches = [step(f"search_{estimator.name}_{number}", role="search") for number in range(1, parallel + 1)]
        searches >> step(name)
    return group


def heavy_step(spec: ModelSpec, *, step: str, estimator: Estimator | None = None, **kwargs: Any) -> BaseOperator:
    """Return the task that runs a heavy step of a model; ``kwargs`` are those of its operator.

    ``fit`` trains the ``estimator``, in the trainer's image; other steps (``assemble``, ``monitor``) run in pods only
    if the site names an image with all of Windsock.
    """
    settings, backend = Settings.from_env(), None
    if estimator is not None:
        kwargs["options"] = {**kwargs.get("options", {}), "estimator": estimator.name}
        backend = estimator.compute.backend
    if (backend or settings.compute) != "kubernetes":
        return StepOperator(step=step, model=spec.name, **kwargs)
    from windsock.compute import load_site, needs_of
    from windsock_airflow.pods.operator import PodStepOperator

    try:
        site = load_site(settings)
        if step != "fit" and site.step_image is None:
            return StepOperator(step=step, model=spec.name, **kwargs)
        needs = needs_of(spec, estimator, site)
        if needs.gpu:
            # Airflow starts no more of these at a time than there are GPUs.
            kwargs = {"pool": needs.pool, "pool_slots": needs.gpu, **kwargs}
    except SpecError:
        pass  # the task itself fails with this sentence; the DAG must not vanish for it
    return PodStepOperator(step=step, model=spec.name, **kwargs)
