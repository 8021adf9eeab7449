"""The tasks that train one estimator: a fit, and before it a search by several at once if asked for."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import TaskGroup

from windsock.spec import ModelSpec
from windsock.spec.estimators import CustomSpec, Estimator
from windsock_airflow.heavy import heavy_step

LONGEST_TRAINING = timedelta(hours=12)


def fit_tasks(spec: ModelSpec, estimator: Estimator, options: Mapping[str, Any]) -> Any:
    """Make the tasks of one estimator.

    Args:
        spec: The model.
        estimator: One of its estimators.
        options: Options of the step; ``run`` comes from the task ``assemble``.

    Returns:
        What stands between ``assemble`` and ``choose``: a task, or a group of them.
    """
    several = len(spec.training.estimators) > 1
    name = f"fit_{estimator.name}" if several else "fit"

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
