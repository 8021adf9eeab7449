"""The built-in trainer as a program: ``python -m windsock.trainers.trainer``.

Reads the request that ``WINDSOCK_REQUEST`` names, trains, and leaves the candidate beside it, as ``contract`` says. It
is what a trainer pod runs; the step ``fit`` calls :func:`train` in its own process.
"""

import logging
import os
import signal
import sys
import time
from dataclasses import replace
from typing import Any

from windsock import last_words
from windsock.errors import SpecError, WindsockError
from windsock.faults import fault_behind
from windsock.learners import ranks
from windsock.runs.contract import ROLE_VARIABLE, TrainerRequest, libraries

log = logging.getLogger(__name__)

STUDIES_VARIABLE = "WINDSOCK_STUDIES"
_TERMINATED = 143


def train(request_url: str | None = None, *, role: str | None = None) -> dict[str, Any]:
    """Train the candidate of a request (``fit``), or only take part in its search (``search``).

    Without arguments, ``WINDSOCK_REQUEST`` names the request and ``WINDSOCK_TRAINER_ROLE`` the role, else ``fit``.

    Returns:
        The candidate's ``metrics.json``; for a search, how many trials were done here.

    Raises:
        SpecError: The request, a parameter or the role does not fit.
        DataContractError: The training set cannot be learnt from.
        UpstreamUnavailable: The shared study cannot be reached.
    """
    from windsock.search.live import LiveRun
    from windsock.search.search import take_part
    from windsock.search.study import SharedStudy
    from windsock.search.windows import choose_window, of_window
    from windsock.trainers.learn import chosen_of, learn, search_of

    role = role or os.environ.get(ROLE_VARIABLE) or "fit"
    if role not in ("fit", "search"):
        raise SpecError.unknown(f"trainer role ({ROLE_VARIABLE})", role, ("fit", "search"))
    request = TrainerRequest.read(request_url)
    done = request.finished()
    if done is not None:  # also by other libraries: what a training wrote is not written again
        log.info("%s: candidate %s is finished already", request.raw["model"], request.name)
        return done
    started = time.monotonic()
    search = search_of(request.raw, request.train_table())
    study = SharedStudy.of(os.environ.get(STUDIES_VARIABLE, ""), request.raw, search.estimator)
    with LiveRun.of(request.raw, role) as live:
        search = replace(search, checkpoints=request.checkpoints, shared_study=study, watch=live)
        if role == "search":
            if study is None:
                raise SpecError(
                    f"{request.raw['model']}: the role 'search' needs {STUDIES_VARIABLE}, the database that the "
                    "trainers share. Set it, or set training.estimators[].budget.parallel to 1."
                )
            if search.windows:  # all that share the search choose the same
                search = of_window(search, choose_window(search).days)
            return {"trials_done": take_part(search)}
        learnt = learn(search, chosen_of(request.raw))
        live.finished(learnt.report)
    if ranks.rank() != 0:
        return {}
    device = str(getattr(search.learner, "device", "cpu"))  # only networks have a choice
    about = {"trainer": libraries(), "device": device, "seconds": round(time.monotonic() - started, 3)}
    return request.write_candidate(learnt.files, {**learnt.report, **about})


def main() -> int:
    """Run the trainer; our own errors become one sentence and their exit code."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # What has been checkpointed is there already; the training loop writes a last one on its way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    try:
        if TrainerRequest.read().raw["estimator"].get("kind") == "torch":
            from windsock.learners.neural.device import relaunch_if_several

            if (code := relaunch_if_several("windsock.trainers.trainer")) is not None:
                return code
        train()
    except Exception as failure:
        err = fault_behind(failure) or failure
        last_words.leave(message := f"{type(err).__name__}: {err}")
        if isinstance(err, WindsockError):
            log.error("%s", message)
            return err.exit_code
        log.exception("The trainer failed")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
