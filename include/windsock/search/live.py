"""Watching a training in MLflow while it goes on, without ever being in its way.

Each candidate has an MLflow run of its own, found again by its tag, so that a trainer that was killed goes on in the
same one; registration puts it below the version's run. A server that is slow or away costs a line in the log, never a
training. That promise is why a thread of our own sends the numbers, and not MLflow's asynchronous logging (tried with
3.17): it opens the run in the caller's time, logs an error for every batch that a hanging server does not take, and
joins its threads when the process ends, so that a server which sends a byte a second keeps a trainer alive for ever.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from windsock.learners import ranks
from windsock.runs.run_folder import CANDIDATE_TAG

log = logging.getLogger(__name__)

_LAST_CHANCE_S = 5.0
"""How long a training's end waits for the server, at most."""
_SLOWEST_IMPORT_S = 30.0
_MOST_WAITING = 10_000
_BATCH = 500
_PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}

Number = tuple[str, float, int, int]
"""Name, value, time in ms, step."""


@dataclass
class LiveRun:
    """One candidate's run in MLflow, or nothing if no server is named."""

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

    def __exit__(self, *_: object) -> None:
        if self._sender is not None:
            self._put(None)
            # A short training may end before MLflow's client is loaded, which is no fault of the server.
            self._loaded.wait(_SLOWEST_IMPORT_S)
            self._sender.join(_LAST_CHANCE_S)

    def trial(self, number: int, score: float | None, state: str) -> None:
        """Log how a trial of the search did."""
        if score is not None and state == "complete":
            self._log("trial_score", score, number)

    def round(self, place: str, number: int, loss: float) -> None:
        """Log the loss after a round of some training (``place`` says of which)."""
        self._log(f"loss.{place}", loss, number)

    def finished(self, report: Mapping[str, Any]) -> None:
        """Log what the candidate reached on the folds."""
        if (selection := report.get("selection")) is not None:
            self._log(f"folds_{selection['metric']}", float(selection["score"]), 0)

    def _log(self, name: str, value: float, step: int) -> None:
        if self._sender is not None:
            self._put((name, float(value), int(time.time() * 1000), step))

    def _put(self, number: Number | None) -> None:
        with suppress(queue.Full):  # a server this slow has lost them anyway
            self._numbers.put_nowait(number)

    def _send(self) -> None:
        try:
            client, run_id, metric = self._open()
            while (first := self._numbers.get()) is not None:
                waiting = [first, *(self._numbers.get_nowait() for _ in range(min(self._numbers.qsize(), _BATCH)))]
                client.log_batch(run_id, metrics=[metric(*number) for number in waiting if number is not None])
                if None in waiting:
                    return
        except Exception as err:
            # Whatever MLflow's client raises: a training does not depend on who watches it.
            log.warning("%s: live metrics are off: MLflow does not take them (%s)", self.candidate, type(err).__name__)

    def _open(self) -> tuple[Any, str, type]:
        """Return the client, the id of the candidate's run and MLflow's class for a number."""
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
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
        return client, str(run.info.run_id), Metric
