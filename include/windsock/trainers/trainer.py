"""The built-in trainer as a program: ``python -m windsock.trainers.trainer``.

Reads the request that ``WINDSOCK_REQUEST`` names, trains, and leaves the candidate
beside it, as ``contract`` says. It is what a trainer pod runs; the step ``fit`` calls
:func:`train` in its own process.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from types import FrameType
from typing import TYPE_CHECKING, Any

from windsock import last_words
from windsock.errors import SpecError, WindsockError
from windsock.learners import ranks
from windsock.runs.contract import ROLE_VARIABLE, TrainerRequest

if TYPE_CHECKING:
    from windsock.trainers.learn import TrainingTask

log = logging.getLogger(__name__)

STUDIES_VARIABLE = "WINDSOCK_STUDIES"
_TERMINATED = 143


def train(request_url: str | None = None, *, role: str | None = None) -> dict[str, Any]:
    """Train the candidate of a request, or take part in its search.

    Args:
        request_url: Path or URL of ``request.json``; default: ``WINDSOCK_REQUEST``.
        role: ``fit`` or ``search``; default: ``WINDSOCK_TRAINER_ROLE``, else ``fit``.

    Returns:
        The candidate's ``metrics.json``; for a search, how many trials were done here.

    Raises:
        SpecError: The request, a parameter or the role does not fit.
        DataContractError: The training set cannot be learnt from.
        UpstreamUnavailable: The shared study cannot be reached.
    """
    from windsock.runs.libraries import libraries
    from windsock.search.study import SharedStudy
    from windsock.trainers.learn import TrainingTask, learn, search_only
    from windsock.trainers.live import LiveRun

    role = role or os.environ.get(ROLE_VARIABLE) or "fit"
    if role not in ("fit", "search"):
        raise SpecError.unknown(f"trainer role ({ROLE_VARIABLE})", role, ("fit", "search"))
    request = TrainerRequest.read(request_url)
    done = request.finished()
    if done is not None and done.get("trainer") == libraries():
        log.info("%s: candidate %s is finished already", request.raw["model"], request.name)
        return done
    started = time.monotonic()
    task = TrainingTask.of(request.raw, request.train_table())
    study = SharedStudy.of(os.environ.get(STUDIES_VARIABLE, ""), request.raw, task.estimator)
    with LiveRun.of(request.raw, role) as live:
        if role == "search":
            if study is None:
                raise SpecError(
                    f"{request.raw['model']}: the role 'search' needs {STUDIES_VARIABLE}, the database that the "
                    "trainers share. Set it, or set training.estimators[].budget.parallel to 1."
                )
            return {"trials_done": search_only(task, request.checkpoints, study, live)}
        learnt = learn(task, checkpoints=request.checkpoints, shared_study=study, watch=live)
        live.finished(learnt.report)
    if ranks.rank() != 0:
        return {}
    about = {"trainer": libraries(), "device": _device(task), "seconds": round(time.monotonic() - started, 3)}
    return request.write_candidate(learnt.files, {**learnt.report, **about})


def main() -> int:
    """Run the trainer; our own errors become one sentence and their exit code."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGTERM, _end)
    try:
        if (code := _several()) is not None:
            return code
        train()
    except WindsockError as err:
        message = f"{type(err).__name__}: {err}"
        log.error("%s", message)
        last_words.leave(message)
        return err.exit_code
    except Exception as err:
        log.exception("The trainer failed")
        last_words.leave(f"{type(err).__name__}: {err}")
        return 1
    return 0


def _several() -> int | None:
    """Start one process per GPU where there are several; None: go on in this one."""
    request = TrainerRequest.read()
    if request.raw["estimator"].get("kind") != "torch":
        return None
    from windsock.learners.neural.distributed import relaunch_if_several

    return relaunch_if_several("windsock.trainers.trainer")


def _device(task: TrainingTask) -> str:
    return str(getattr(task.learner, "device", "cpu"))  # only networks have a choice


def _end(signum: int, frame: FrameType | None) -> None:
    # What has been checkpointed is there already; the training loop writes a last one on its way out.
    raise SystemExit(_TERMINATED)


if __name__ == "__main__":
    sys.exit(main())
