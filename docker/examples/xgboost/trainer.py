"""XGBoost for Windsock: trained here, handed in as ONNX, served without any of this.

    WINDSOCK_REQUEST=.../request.json python3 trainer.py

``params`` are XGBoost's own (``n_estimators``, ``max_depth``, ...). A category is the number
of its place in the list; XGBoost's own categories do not become ONNX, and are refused.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xgboost
from onnxmltools.convert import convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from sklearn.metrics import average_precision_score, mean_absolute_error


def fit(request: dict[str, Any], features: list[dict[str, Any]], x: np.ndarray, y: np.ndarray) -> Any:
    """Return trained trees."""
    params = {"n_estimators": 200, "max_depth": 6, "random_state": request["seed"], **request["estimator"]["params"]}
    if params.get("enable_categorical") or params.get("booster", "gbtree") != "gbtree":
        raise Refused(REQUEST_WRONG, "enable_categorical and boosters but gbtree do not become ONNX: leave them out")
    kind = xgboost.XGBRegressor if request["task"] == "regression" else xgboost.XGBClassifier
    try:
        return kind(**params).fit(x, y)
    except (TypeError, ValueError, xgboost.core.XGBoostError) as err:
        raise Refused(REQUEST_WRONG, f"XGBoost refuses params {params}: {str(err)[:300]}") from err


def predict(request: dict[str, Any], model: Any, x: np.ndarray) -> np.ndarray:
    """Return XGBoost's own scores, shape (rows,)."""
    return model.predict(x) if request["task"] == "regression" else model.predict_proba(x)[:, 1]


def convert(request: dict[str, Any], model: Any, width: int) -> tuple[bytes, str, int | None]:
    """Return the graph, and which output and column of it the scores are."""
    regression = request["task"] == "regression"
    graph = convert_xgboost(model, initial_types=[("rows", FloatTensorType([None, width]))])
    return graph.SerializeToString(), "variable" if regression else "probabilities", None if regression else 1


# From here on: the trainer contract (docs/trainer.md), the same in every example.

REQUEST_WRONG, DATA_WRONG, TERMINATED = 64, 65, 143
TERMINATION_LOG = Path("/dev/termination-log")
METRICS = {"average_precision": average_precision_score, "mean_absolute_error": mean_absolute_error}


class Refused(Exception):
    """The training cannot be done, and trying again would not help: exit code, sentence."""


def run(place: Path) -> None:
    """Answer a request: train, judge on the folds, write model, native scores and metrics."""
    if not place.is_file():
        raise Refused(REQUEST_WRONG, f"WINDSOCK_REQUEST is {str(place)!r}, and there is no such file here")
    data = place.read_bytes()
    request, sha256, started = json.loads(data), hashlib.sha256(data).hexdigest(), time.monotonic()
    if request.get("format") != "windsock-trainer/1":
        raise Refused(REQUEST_WRONG, f"the request is {request.get('format')!r}, not 'windsock-trainer/1'")
    output = {name: place.parent / path for name, path in request["output"].items()}
    if output["metrics"].is_file() and json.loads(output["metrics"].read_bytes()).get("request_sha256") == sha256:
        return  # answered already
    table = read_rows(place.parent, request["train"])
    features = [learn_feature(table, name, name in request["categorical"]) for name in request["features"]]
    x, y = to_matrix(table, features), table[request["label"]].to_numpy().astype(float)
    if len(y) == 0 or (request["task"] == "binary" and set(y) != {0.0, 1.0}):
        raise Refused(DATA_WRONG, f"{len(y)} rows: too few, or without one of the classes 0 and 1")
    folds = [score for fold in request["folds"] if (score := fold_score(request, table, fold, x, y)) is not None]
    model = fit(request, features, x, y)
    graph, name, column = convert(request, model, x.shape[1])
    card = {"format": "windsock-onnx/1", "task": request["task"], "features": features, "input": "float32",
            "output": name, "column": column}  # fmt: skip
    write(output["model"] / "model.onnx", graph)
    write(output["model"] / "model.json", json.dumps(card).encode())
    some = np.unique(np.linspace(0, len(y) - 1, 1000).astype(int))
    native = [repr(float(score)) for score in predict(request, model, x[some])]
    lines = [
        f"{request['key']},score",
        *map(",".join, zip(map(quoted, table[request["key"]].take(some)), native, strict=True)),
    ]
    write(place.parent / "check.csv.gz", gzip.compress("\n".join(lines).encode() + b"\n", mtime=0))
    metrics = {"format": "windsock-candidate/1", "request_sha256": sha256, "params": request["estimator"]["params"],
               "seconds": round(time.monotonic() - started, 3)}  # fmt: skip
    if folds:
        metrics["selection"] = {"metric": request["metric"], "score": float(np.mean(folds)), "folds": folds}
    write(output["metrics"], json.dumps(metrics).encode())  # last: with it, the candidate is complete


def read_rows(folder: Path, train: dict[str, Any]) -> pa.Table:
    """Return the training rows, if they are the ones that the request names."""
    if train["format"] != "parquet":
        raise Refused(REQUEST_WRONG, "this trainer reads Parquet: leave 'data' out of its estimator in model.yaml")
    data = (folder / train["path"]).read_bytes()
    if hashlib.sha256(data).hexdigest() != train["sha256"]:
        raise Refused(DATA_WRONG, f"{train['path']} is not the file that the request names: assemble it again")
    # Without threads: one that is still there when the program ends early would abort it.
    return pq.read_table(io.BytesIO(data), use_threads=False, pre_buffer=False)


def learn_feature(table: pa.Table, name: str, is_category: bool) -> dict[str, Any]:
    """Return an input as model.json describes it; a category's value becomes its place in the list."""
    known = sorted(value for value in set(table[name].to_pylist()) if value is not None) if is_category else None
    return {"name": name, "categories": known}


def to_matrix(table: pa.Table, features: list[dict[str, Any]]) -> np.ndarray:
    """Return what the model sees, as Windsock will feed it: shape (rows, features), NaN is missing."""
    x = np.full((table.num_rows, len(features)), np.nan)
    for place, feature in enumerate(features):
        values = table[feature["name"]].to_pylist()
        if feature["categories"] is not None:
            codes = {value: code for code, value in enumerate(feature["categories"])}
            values = [codes.get(value) for value in values]
        x[:, place] = [np.nan if value is None else float(value) for value in values]
    return x


def fold_score(request: dict[str, Any], table: pa.Table, fold: dict[str, Any], x: np.ndarray, y: np.ndarray) -> Any:
    """Return the request's metric on a fold, as Windsock's own trainer computes it; None: it cannot be computed."""
    days = np.array([str(when)[:10] for when in table[request["time"]].to_pylist()])
    learn, judge = (np.isin(days, fold[part]) for part in ("learn", "judge"))
    entity = request["spec"]["training"]["evaluation"]["exclude_known_positives"]
    if entity is not None:  # who is known to be positive is not looked for again
        who = np.array(table[entity].to_pylist(), dtype=object)
        judge &= ~np.isin(who.astype(str), who[learn & (y == 1)].astype(str))
    enough = all(len(np.unique(y[part])) >= 2 for part in (learn, judge))
    if request["metric"] not in METRICS or not enough:
        return None
    features = [{"name": name, "categories": None} for name in request["features"]]
    model = fit(request, features, x[learn], y[learn])
    return float(METRICS[request["metric"]](y[judge], predict(request, model, x[judge])))


def quoted(key: Any) -> str:
    """Return a key as it stands in a CSV of the contract."""
    value = key.as_py()
    return str(value) if not isinstance(value, str) else '"' + ("\\" + value).replace('"', '""') + '"'


def write(path: Path, content: bytes) -> None:
    """Put a file in place in one step: whoever reads sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_bytes(content)
    aside.replace(path)


def stop(signum: int, _: object) -> None:
    """End when asked to; a new start begins again. The first process of a pod must say so itself."""
    os._exit(TERMINATED)


def main() -> int:
    """Train; whatever goes wrong becomes an exit code and one last sentence."""
    signal.signal(signal.SIGTERM, stop)
    try:
        run(Path(os.environ.get("WINDSOCK_REQUEST", "")))
        return 0
    except Refused as err:
        code, why = err.args
    except Exception as err:  # a full disk, too little memory, a mistake: a retry may help
        code, why = 1, f"{type(err).__name__}: {err}"
        traceback.print_exc()
    sys.stderr.write(f"{why}\n")
    if TERMINATION_LOG.exists():
        TERMINATION_LOG.write_bytes(why.encode()[:4000])
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
