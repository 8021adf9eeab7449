"""Where a heavy step runs: in the task's own process, or in a pod.

The estimator's ``compute.backend`` decides, else ``WINDSOCK_COMPUTE``. The site's rules and
the Kubernetes client are imported only if there is a pod to make, so that DAG files of a
laptop parse as fast as ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from windsock.errors import SpecError
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.spec.estimators import Estimator
from windsock_airflow.step import StepOperator

if TYPE_CHECKING:
    from windsock_airflow.pods.operator import PodStepOperator


def heavy_step(
    spec: ModelSpec, *, step: str, estimator: Estimator | None = None, **kwargs: Any
) -> StepOperator | PodStepOperator:
    """Return the task that runs a heavy step of a model.

    Args:
        spec: The model.
        step: ``fit`` runs in the trainer's image; others (``assemble``, ``monitor``) in pods
            only if the site names an image with all of Windsock.
        estimator: What ``fit`` trains; its name becomes the option ``estimator``.
        **kwargs: As of :class:`~windsock_airflow.step.StepOperator`, ``model`` aside.
    """
    settings = Settings.from_env()
    options = dict(kwargs.pop("options", None) or {})
    if estimator is not None:
        options["estimator"] = estimator.name
    backend = (estimator.compute.backend if estimator is not None else None) or settings.compute
    if backend == "kubernetes":
        from windsock.compute import load_site, needs_of

        try:
            site = load_site(settings)
            in_pod = step == "fit" or site.step_image is not None
            needs = needs_of(spec, estimator, site) if in_pod else None
        except SpecError:
            # The task itself fails with this sentence; the DAG must not vanish for it.
            in_pod, needs = True, None
        if in_pod:
            from windsock_airflow.pods.operator import PodStepOperator

            if needs is not None and needs.gpu:
                # Airflow starts no more of these at a time than there are GPUs.
                kwargs = {"pool": needs.pool, "pool_slots": needs.gpu, **kwargs}
            name = estimator.name if estimator is not None else None
            return PodStepOperator(step=step, model=spec.name, estimator=name, options=options, **kwargs)
    return StepOperator(step=step, model=spec.name, options=options, **kwargs)
