"""The ``fit`` step: train the candidates of a run on this machine.

Options: ``run``, the run folder's name; ``estimator``, one of the spec's, default: all of them, one after the other;
``role``, ``search`` to only take part in a shared search. On a cluster the same request goes to a trainer pod instead.
A finished candidate is not trained again.
"""

import logging
import os
import subprocess
import sys
from typing import Any

from windsock import mlflow_keys
from windsock.errors import DataContractError, SpecError, UpstreamUnavailable, WindsockError
from windsock.runs.contract import REQUEST_VARIABLE, TrainerRequest, read_candidate, request_url
from windsock.runs.run_folder import REQUEST, RunFolder
from windsock.spec.estimators import CustomSpec, Estimator
from windsock.steps import StepContext
from windsock.trainers.learn import spec_of
from windsock.trainers.trainer import train

log = logging.getLogger(__name__)

_KEPT_VARIABLES = (
    *("PATH", "LANG", "TMPDIR", "MLFLOW_TRACKING_URI", mlflow_keys.VARIABLE, "OMP_WAIT_POLICY", "OMP_NUM_THREADS"),
)


def run(ctx: StepContext) -> dict[str, Any]:
    """Train one candidate, or all.

    Returns:
        What :func:`result` says of it; for all: ``run`` and ``estimators``, by name.

    Raises:
        SpecError: The run folder is incomplete, or a parameter is refused.
        DataContractError: The training set cannot be learnt from, or the trainer broke its contract.
        UpstreamUnavailable: A service that the trainer needs is away.
    """
    folder = RunFolder.named(ctx.store, ctx.spec.name, ctx.options.get("run"))
    # The commit point of ``assemble``: it says what is trained, whatever the spec says by now.
    training, name = spec_of(folder.read_json(REQUEST)).training, ctx.options.get("estimator")
    if name is None and len(training.estimators) > 1:
        return {"run": folder.run, "estimators": {e.name: _fit(ctx, folder, e) for e in training.estimators}}
    return _fit(ctx, folder, training.estimator(name))


def _fit(ctx: StepContext, folder: RunFolder, estimator: Estimator) -> dict[str, Any]:
    url, role = request_url(folder, estimator.name), str(ctx.options.get("role") or "fit")
    if isinstance(estimator, CustomSpec):
        _run_program(ctx, estimator, url)
        return result(folder, estimator.name)
    done = train(url, role=role)
    if role == "search":
        return {"run": folder.run, "estimator": estimator.name, **done}
    return result(folder, estimator.name)


def result(folder: RunFolder, estimator: str) -> dict[str, Any]:
    """Return what later tasks and people are told of a finished candidate.

    Raises:
        DataContractError: It is not complete.
    """
    report = read_candidate(folder, estimator)
    kept = {name: report.get(name) for name in ("selection", "params", "rounds", "trial", "device", "seconds")}
    return {"run": folder.run, "estimator": estimator, **{k: v for k, v in kept.items() if v is not None}}


def _run_program(ctx: StepContext, estimator: CustomSpec, url: str) -> None:
    """Run a trainer of the user's own as a child, with nothing of ours in its environment but the request."""
    if not estimator.command:
        raise SpecError(
            f"{ctx.spec.name}: estimator {estimator.name!r} names an image and no command: it runs in pods only. "
            "Set compute.backend: kubernetes (or WINDSOCK_COMPUTE), or give command: a program in the model's folder."
        )
    if TrainerRequest.read(url).finished() is not None:
        log.info("%s: candidate %s is finished already", ctx.spec.name, estimator.name)
        return
    program = [sys.executable if part == "python" else part for part in estimator.command]
    env = {name: value for name in _KEPT_VARIABLES if (value := os.environ.get(name)) is not None}
    env |= {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    env[REQUEST_VARIABLE] = url
    last = "it said nothing"
    try:
        child = subprocess.Popen(
            program, cwd=ctx.spec.folder, env=env, text=True, errors="replace",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except OSError as err:
        raise SpecError(
            f"{ctx.spec.name}: the trainer {estimator.name!r} cannot be started: {err}. Its command is "
            f"{' '.join(estimator.command)!r}, run in {ctx.spec.folder}."
        ) from err
    try:
        assert child.stdout is not None
        for line in child.stdout:
            log.info("[%s] %s", estimator.name, line.rstrip())
            last = line.strip() or last
        code = child.wait()
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
    if code:
        kind = {64: SpecError, 65: DataContractError, 75: UpstreamUnavailable}.get(code, WindsockError)
        raise kind(f"{ctx.spec.name}: the trainer {estimator.name!r} ended with exit code {code}: {last}")
