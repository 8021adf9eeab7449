"""A trainer of one's own: logistic or ridge regression with nothing but Python's standard library.

It keeps the trainer contract (docs/trainer.md) and is meant to be copied: the rows, the
model, the training, and what lets a program live well in a pod. Newton's method takes few
passes; a pod killed between them goes on from the last and ends with the same model.

The estimator's params: ``l2`` (penalty, default 1) and ``rows`` (most rows learnt from at
a time, default 20000; classes are sampled apart and weighted back to their true share).
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import logging
import math
import os
import platform
import random
import signal
import sys
import time
from collections.abc import Callable
from operator import mul
from pathlib import Path
from typing import Any

log = logging.getLogger("trainer")

REQUEST_WRONG, DATA_WRONG, TERMINATED = 64, 65, 143
TERMINATION_LOG = Path("/dev/termination-log")
MOST_STEPS, CLOSE_ENOUGH, LONGEST_STEP = 30, 1e-8, 4.0
UNFITTED = {"beta": [], "moved": 1.0, "steps": 0}  # where every fit begins

Table = dict[str, list[Any]]  # by column; None is NULL
Columns = list[list[float]]  # what the model sees: the intercept's ones, then each input's columns


class Refused(Exception):
    """Trying again would not help; carries the exit code and the sentence that says why."""


def number(text: str) -> float | None:
    """Read a number; NaN counts as missing."""
    value = float(text)
    if math.isinf(value):
        raise Refused(DATA_WRONG, "the training rows hold an infinite number: find the feature that divides by zero")
    return None if math.isnan(value) else value


READ: dict[str, Callable[[str], Any]] = {
    "int64": int,
    "double": number,
    "bool": lambda text: text == "1",
    "string": lambda text: text.removeprefix("\\"),
}


def read_rows(folder: Path, train: dict[str, Any]) -> Table:
    """Return the training rows, if they are the ones that the request names."""
    if train["format"] != "csv":
        raise Refused(REQUEST_WRONG, "this trainer reads CSV only: give its estimator 'data: csv' in model.yaml")
    data = (folder / train["path"]).read_bytes()
    if hashlib.sha256(data).hexdigest() != train["sha256"]:
        raise Refused(DATA_WRONG, f"{train['path']} is not the file that the request names: assemble it again")
    with gzip.open(io.BytesIO(data), "rt", encoding="utf-8", newline="") as lines:
        header, *rows = csv.reader(lines)
    readers = [READ.get(train["columns"][name], str) for name in header]
    return {
        name: [read(row[place]) if row[place] else None for row in rows]
        for place, (name, read) in enumerate(zip(header, readers, strict=True))
    }


def sample(labels: list[Any], rows: list[int], binary: bool, most: int, seed: int) -> tuple[list[int], list[float]]:
    """Choose rows to learn from, the rarer class first, and the weight that makes up for those left out."""
    groups = [[i for i in rows if labels[i] == wanted] for wanted in (0, 1)] if binary else [rows]
    chosen: list[int] = []
    weights: list[float] = []
    draw = random.Random(seed)
    for left, group in zip(range(len(groups), 0, -1), sorted(groups, key=len), strict=True):
        kept = sorted(draw.sample(group, min(len(group), (most - len(chosen)) // left)))
        weights += [len(group) / len(kept)] * len(kept)
        chosen += kept
    return chosen, weights


def learn_inputs(table: Table, rows: list[int], request: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each input as model.json describes it, without its coefficients: mean and scale, or categories."""
    made: list[dict[str, Any]] = []
    for name in request["features"]:
        known = [value for i in rows if (value := table[name][i]) is not None]
        if name in request["categorical"]:
            made.append({"name": name, "categories": sorted(set(known)), "other": 0.0})
        else:
            mean = math.fsum(known) / max(1, len(known))
            scale = math.sqrt(math.fsum((value - mean) ** 2 for value in known) / max(1, len(known)))
            made.append({"name": name, "categories": None, "mean": mean, "scale": scale or 1.0})
    return made


def columns_of(table: Table, rows: list[int], inputs: list[dict[str, Any]]) -> Columns:
    """Return what the model sees of some rows: standardised numbers, and one flag per category."""
    columns = [[1.0] * len(rows)]
    for one in inputs:
        values = [table[one["name"]][i] for i in rows]
        if one["categories"] is None:
            columns.append([0.0 if v is None else (v - one["mean"]) / one["scale"] for v in values])
        else:
            columns += [[float(v == category) for v in values] for category in one["categories"]]
    return columns


def predict(x: Columns, beta: list[float], binary: bool) -> list[float]:
    """Return probabilities or expected values."""
    scores = [0.0] * len(x[0])
    for weight, column in zip(beta, x, strict=True):
        scores = [score + weight * value for score, value in zip(scores, column, strict=True)]
    return [0.5 * (1 + math.tanh(score / 2)) for score in scores] if binary else scores


def newton_step(x: Columns, y: list[float], w: list[float], beta: list[float], l2: float, binary: bool) -> list[float]:
    """Return the change of ``beta`` towards the penalised maximum likelihood of rows weighted by ``w``."""
    p = predict(x, beta, binary)
    pull = [weight * (label - score) for weight, label, score in zip(w, y, p, strict=True)]
    curve = [weight * score * (1 - score) for weight, score in zip(w, p, strict=True)] if binary else w
    penalty = [1e-9] + [l2] * (len(beta) - 1)  # none on the intercept; a trace keeps the system solvable
    system = [[*[0.0] * len(x), sum(map(mul, c, pull)) - k * b] for c, k, b in zip(x, penalty, beta, strict=True)]
    for i, column in enumerate(x):
        curved = list(map(mul, column, curve))
        for j in range(i, len(x)):
            system[i][j] = system[j][i] = sum(map(mul, curved, x[j])) + (penalty[i] if i == j else 0.0)
    for n, pivot in enumerate(system):  # symmetric and positive definite: elimination needs no exchange of rows
        for line in system[n + 1 :]:
            factor = line[n] / pivot[n]
            line[n:] = [a - factor * b for a, b in zip(line[n:], pivot[n:], strict=True)]
    step = [0.0] * len(system)
    for n in reversed(range(len(system))):
        step[n] = (system[n][-1] - sum(map(mul, system[n][n + 1 : -1], step[n + 1 :]))) / system[n][n]
    longest = max(map(abs, step))
    return [change * LONGEST_STEP / longest for change in step] if binary and longest > LONGEST_STEP else step


def average_precision(y: list[float], scores: list[float]) -> float:
    """Return the area under the precision-recall steps; equal scores are one step."""
    order = sorted(range(len(y)), key=lambda i: -scores[i])
    hits = before = total = 0.0
    for place, i in enumerate(order, 1):
        hits += y[i]
        if place == len(order) or scores[order[place]] != scores[i]:
            total += (hits - before) * hits / place
            before = hits
    return total / hits


def mean_absolute_error(y: list[float], scores: list[float]) -> float:
    """Return the mean absolute difference."""
    return math.fsum(abs(label - score) for label, score in zip(y, scores, strict=True)) / len(y)


METRICS = {"average_precision": average_precision, "mean_absolute_error": mean_absolute_error}


class Training:
    """One request, its rows, and what has been done so far."""

    def __init__(self, place: Path) -> None:
        if not place.is_file():
            raise Refused(REQUEST_WRONG, f"WINDSOCK_REQUEST is {str(place)!r}, and there is no such file here")
        data = place.read_bytes()
        self.request, self.sha256 = json.loads(data), hashlib.sha256(data).hexdigest()
        if self.request.get("format") != "windsock-trainer/1":
            raise Refused(REQUEST_WRONG, f"the request is {self.request.get('format')!r}, not 'windsock-trainer/1'")
        params = {"l2": 1.0, "rows": 20_000, **self.request["estimator"]["params"]}
        numbers = set(params) == {"l2", "rows"} and all(isinstance(value, int | float) for value in params.values())
        if not numbers or params["l2"] <= 0 or params["rows"] < 2:
            raise Refused(REQUEST_WRONG, f"params may hold l2 (above 0) and rows (at least 2), not {params}")
        self.folder, self.params, self.binary = place.parent, params, self.request["task"] == "binary"
        self.output = {name: self.folder / path for name, path in self.request["output"].items()}
        self.checkpoint = self.output["checkpoints"] / "progress.json"
        self.progress: dict[str, Any] = {"request_sha256": self.sha256, "scores": [], **UNFITTED}

    def run(self) -> None:
        """Judge on the folds, learn from all rows, write the candidate; all of it only once."""
        started, metrics = time.monotonic(), self.output["metrics"]
        if metrics.is_file() and json.loads(metrics.read_bytes()).get("request_sha256") == self.sha256:
            log.info("this request is answered already")
            return
        self.table = read_rows(self.folder, self.request["train"])
        self.labels = self.table[self.request["label"]]
        if not self.labels or (self.binary and set(self.labels) != {0, 1}):
            raise Refused(DATA_WRONG, f"{len(self.labels)} rows: too few, or without one of the classes 0 and 1")
        if self.checkpoint.is_file():
            kept = json.loads(self.checkpoint.read_bytes())
            self.progress = kept if kept["request_sha256"] == self.sha256 else self.progress
            log.info("goes on from its checkpoint, %d folds are judged", len(self.progress["scores"]))
        metric = self.request["metric"]  # another one than ours: no fold score, so it can only stand alone
        folds = [split for fold in self.request["folds"] if metric in METRICS and (split := self.split(fold))]
        for learn, judge in folds[len(self.progress["scores"]) :]:
            inputs, beta = self.fit(learn)
            scores = predict(columns_of(self.table, judge, inputs), beta, self.binary)
            score = METRICS[metric]([self.labels[i] for i in judge], scores)
            self.keep(scores=[*self.progress["scores"], score], **UNFITTED)
        self.write(*self.fit(list(range(len(self.labels)))), started)

    def split(self, fold: dict[str, Any]) -> tuple[list[int], list[int]] | None:
        """Return the rows to learn from and to be judged on, as Windsock's own trainer does; None: unusable."""
        days = [when[:10] for when in self.table[self.request["time"]]]
        learn, judge = ([i for i, day in enumerate(days) if day in fold[part]] for part in ("learn", "judge"))
        entity = self.request["spec"]["training"]["evaluation"]["exclude_known_positives"]
        if self.binary and entity is not None:  # who is known to be positive is not looked for again
            known = {self.table[entity][i] for i in learn if self.labels[i] == 1}
            judge = [i for i in judge if self.table[entity][i] not in known]
        enough = all(len({self.labels[i] for i in part}) == 2 if self.binary else part for part in (learn, judge))
        return (learn, judge) if enough else None

    def fit(self, rows: list[int]) -> tuple[list[dict[str, Any]], list[float]]:
        """Return the inputs and their weights, beginning from those of the checkpoint."""
        inputs = learn_inputs(self.table, rows, self.request)
        rows, weights = sample(self.labels, rows, self.binary, self.params["rows"], self.request["seed"])
        x, y = columns_of(self.table, rows, inputs), [self.labels[i] for i in rows]
        beta = self.progress["beta"] or [0.0] * len(x)
        while self.progress["steps"] < MOST_STEPS and self.progress["moved"] > CLOSE_ENOUGH:
            step = newton_step(x, y, weights, beta, self.params["l2"], self.binary)
            beta = [b + change for b, change in zip(beta, step, strict=True)]
            moved = max(map(abs, step)) / (1 + max(map(abs, beta)))
            self.keep(beta=beta, moved=moved, steps=self.progress["steps"] + 1)
            log.info("%d rows, step %d: the weights move by %.2g", len(rows), self.progress["steps"], moved)
        return inputs, beta

    def keep(self, **progress: Any) -> None:
        """Write the checkpoint."""
        self.progress |= progress
        write_json(self.checkpoint, self.progress)

    def write(self, inputs: list[dict[str, Any]], beta: list[float], started: float) -> None:
        """Write the model, then metrics.json: with it, the candidate is complete."""
        rest, task, scores = iter(beta), self.request["task"], self.progress["scores"]
        model = {"format": "windsock-linear/1", "task": task, "intercept": next(rest), "features": inputs}
        for one in inputs:
            if one["categories"] is None:
                one["coefficient"] = next(rest)
            else:
                one["coefficients"] = [next(rest) for _ in one["categories"]]
        write_json(self.output["model"] / "model.json", model)
        metrics = {
            "format": "windsock-candidate/1",
            "request_sha256": self.sha256,
            "params": self.params,
            "trainer": {"python": platform.python_version()},
            "seconds": round(time.monotonic() - started, 3),
        }
        if scores:
            mean = math.fsum(scores) / len(scores)
            metrics["selection"] = {"metric": self.request["metric"], "score": mean, "folds": scores}
        write_json(self.output["metrics"], metrics)
        log.info("done in %.1f s; on the folds: %s", metrics["seconds"], scores or "not judged")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Put a file in place in one step: whoever reads sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    with aside.open("w", encoding="utf-8") as file:
        json.dump(content, file, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def stop(signum: int, _: object) -> None:
    """End when asked to; the last step is in the checkpoint. The first process of a pod must say so itself."""
    log.info("asked to stop (signal %d); a new start goes on from the checkpoint", signum)
    sys.exit(TERMINATED)


def main() -> int:
    """Train; whatever goes wrong becomes an exit code and one last sentence."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    signal.signal(signal.SIGTERM, stop)
    try:
        Training(Path(os.environ.get("WINDSOCK_REQUEST", ""))).run()
        return 0
    except Refused as err:
        code, why = err.args
        log.error("%s", why)
    except Exception as err:  # a full disk, too little memory, a mistake: a retry may help
        code, why = 1, f"{type(err).__name__}: {err}"
        log.exception("the trainer failed")
    if TERMINATION_LOG.exists():
        TERMINATION_LOG.write_bytes(str(why).encode()[:4000])
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
