"""Watching a training in MLflow while it goes on, without ever being in its way.

Each candidate has an MLflow run of its own, found again by its tag, so that a trainer
that was killed goes on in the same one; registration puts it below the version's run.
Numbers are handed to a thread: a server that is slow or away costs a line in the log,
never a training.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from windsock.learners import ranks
from windsock.runs.run_folder import CANDIDATE_TAG

log = logging.getLogger(__name__)

_LAST_CHANCE_S = 5.0
"""How long a training's end waits for the server, at most."""
_SLOWEST_IMPORT_S = 30.0
_MOST_WAITING = 10_000
_PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}

Number = tuple[str, float, int, int]
"""Name, value, time in ms, step."""


@dataclass
class LiveRun:
    """One candidate's run in MLflow, or nothing if there is no server to tell."""

    uri: str
    model: str
    candidate: str
    _numbers: queue.Queue[Number | None] = field(default_factory=lambda: queue.Queue(_MOST_WAITING))
    _sender: threading.Thread | None = None
    _loaded: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def of(cls, request: Mapping[str, Any], role: str) -> Self:
        """Return the live run of a trainer request; ``MLFLOW_TRACKING_URI`` names the server."""
        name = str(request["estimator"]["name"])
        suffix = "" if role == "fit" else "/search"
        return cls(os.environ.get("MLFLOW_TRACKING_URI", ""), str(request["model"]), f"{request['run']}/{name}{suffix}")

    def __enter__(self) -> Self:
        if self.uri.startswith(("http://", "https://")) and ranks.rank() == 0:
            self._sender = threading.Thread(target=self._send, name="mlflow-live", daemon=True)
            self._sender.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        if self._sender is not None:
            with suppress(queue.Full):
                self._numbers.put_nowait(None)
            # A short training may end before MLflow's client is loaded, which is no fault of the server.
            self._loaded.wait(_SLOWEST_IMPORT_S)
            self._sender.join(_LAST_CHANCE_S)

    def trial(self, number: int, score: float | None, state: str) -> None:
        """Tell how a trial of the search did."""
        if score is not None and state == "complete":
            self._tell("trial_score", score, number)

    def round(self, place: str, number: int, loss: float) -> None:
        """Tell the loss after a round of some training (``place`` says of which)."""
        self._tell(f"loss.{place}", loss, number)

    def finished(self, report: Mapping[str, Any]) -> None:
        """Tell what the candidate reached on the folds."""
        selection = report.get("selection")
        if selection is not None:
            self._tell(f"folds_{selection['metric']}", float(selection["score"]), 0)

    def _tell(self, name: str, value: float, step: int) -> None:
        if self._sender is not None:
            with suppress(queue.Full):  # a server this slow has lost them anyway
                self._numbers.put_nowait((name, float(value), int(time.time() * 1000), step))

    def _send(self) -> None:
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        ended = False
        log_batch: Callable[[list[Number]], None] | None = None
        while not ended:
            waiting = [self._numbers.get()]
            with suppress(queue.Empty):
                while len(waiting) < 500:
                    waiting.append(self._numbers.get_nowait())
            ended = None in waiting
            numbers = [number for number in waiting if number is not None]
            try:
                log_batch = log_batch or self._open()
                if numbers:
                    log_batch(numbers)
            except Exception as err:
                # Whatever MLflow's client raises: a training does not depend on who watches it.
                kind = type(err).__name__
                log.warning("%s: live metrics are off: MLflow does not take them (%s)", self.candidate, kind)
                return

    def _open(self) -> Callable[[list[Number]], None]:
        try:
            from mlflow import MlflowClient
            from mlflow.entities import Metric
        finally:
            self._loaded.set()
        client = MlflowClient(tracking_uri=self.uri)
        experiment = client.get_experiment_by_name(self.model)
        experiment_id = experiment.experiment_id if experiment is not None else client.create_experiment(self.model)
        found = client.search_runs([experiment_id], f"tags.`{CANDIDATE_TAG}` = '{self.candidate}'", max_results=1)
        tags = {CANDIDATE_TAG: self.candidate, "windsock.model": self.model}
        run = found[0] if found else client.create_run(experiment_id, run_name=self.candidate, tags=tags)

        def log_batch(numbers: list[Number]) -> None:
            client.log_batch(run.info.run_id, metrics=[Metric(*number) for number in numbers])

        return log_batch
