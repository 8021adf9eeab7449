"""The ``register`` step: a finished run folder becomes a model version, with the alias ``challenger``.

Option: ``run``, the run folder's name. Registering it again, also after a kill at any point, makes no second version.
"""

import logging
from typing import Any

from windsock import promotions
from windsock.registry import tracking
from windsock.registry.client import asking_mlflow, experiment_id, mlflow_client
from windsock.registry.versions import CHALLENGER
from windsock.steps import StepContext
from windsock.version_index import VersionInfo, record_version

log = logging.getLogger(__name__)


def run(ctx: StepContext) -> dict[str, Any]:
    """Register a run folder.

    Returns:
        ``version``, ``run`` and ``metrics`` on its holdout.

    Raises:
        SpecError: No run was named, or its folder is incomplete.
        UpstreamUnavailable: MLflow cannot be reached.
    """
    settings, spec = ctx.settings, ctx.spec
    finished = tracking.FinishedRun.open(ctx.store, spec, ctx.options.get("run"))
    run, metrics = finished.folder.run, finished.holdout_metrics
    client = mlflow_client(settings)
    with asking_mlflow(settings, f"register run {run} of {spec.name}"):
        tags = finished.tags(spec)
        experiment = experiment_id(settings, client, spec.name)
        run_id = tracking.run_of(client, experiment, finished, tags)
        tracking.group_candidates(client, experiment, finished, run_id)
        version = tracking.version_of(client, finished)
        if version is None:
            tracking.log_run(client, run_id, finished)
            model_id = tracking.log_model(client, run_id, finished)
            version = tracking.create_version(client, spec.name, model_id, run_id, tags)
        info = VersionInfo(
            spec.name, version, run, finished.as_of, metrics, tags, finished.model_hash, run_id, finished.definitions,
            finished.refit_of,
        )  # fmt: skip
        record_version(settings, info)
        champion = promotions.current(settings, spec)
        if finished.refit_of:  # it waits for no judgement, and its twin says where it is
            client.set_model_version_tag(spec.name, finished.refit_of, "windsock.refit", version)
        elif champion is None or champion.version != version:
            client.set_registered_model_alias(spec.name, CHALLENGER, version)
        if client.get_run(run_id).info.status != "FINISHED":
            client.set_terminated(run_id)
    what = f"the refit of version {finished.refit_of}" if finished.refit_of else f"@{CHALLENGER}"
    log.info("%s: run %s is version %s, %s", spec.name, run, version, what)
    return {"version": version, "run": run, "metrics": metrics}
