"""LightGBM's own text as a model: ``model.txt`` holds the trees, ``model.json`` what to feed them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from windsock.errors import DataContractError
from windsock.served.formats.lightgbm_text import checked
from windsock.served.matrix import Feature
from windsock.served.model import MODEL_CARD, Scorer, Task, threads
from windsock.store import to_json

FORMAT = "windsock-lightgbm/1"
MODEL_TEXT = "model.txt"
_THREADS = re.compile(r"^\[num_threads: -?\d+\]$", re.MULTILINE)


def lightgbm_files(booster: Any, task: Task, features: Sequence[Feature]) -> dict[str, bytes]:
    """Return the model folder of a freshly trained booster."""
    # The text repeats the parameters it was trained with. The trees do not depend on the number of threads
    # (deterministic=true), so the text shall not either.
    text = _THREADS.sub("[num_threads: 0]", booster.model_to_string())
    card = {"format": FORMAT, "task": task, "features": [f.to_json() for f in features]}
    return {MODEL_TEXT: text.encode(), MODEL_CARD: to_json(card)}


def read(folder: str, data: bytes, card: Mapping[str, Any], inputs: Sequence[Feature]) -> tuple[Any, Scorer]:
    """Read trees.

    Raises:
        DataContractError: The text is damaged or something else.
    """
    where = f"{folder}/{MODEL_TEXT}"
    if not data.startswith(b"tree\n"):
        raise DataContractError(
            f"{where}: is not LightGBM's model text (it starts with {data[:8]!r}), and pickles are never loaded. Save "
            "it with Booster.save_model, or train the version again."
        )
    text = checked(data, len(inputs), where)
    import lightgbm

    try:
        booster = lightgbm.Booster(model_str=text)
    except lightgbm.basic.LightGBMError as err:
        raise DataContractError(f"{where}: is damaged: {err}. Fetch or train the version again.") from err
    return booster, lambda x: booster.predict(x, num_threads=threads())
