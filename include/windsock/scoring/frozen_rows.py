"""Does a version still say what it said? Its frozen rows are scored once with every set of libraries that it meets.

A library is upgraded for many reasons and changes what a model says for none of them. The first time that a version
scores with libraries that it has not met, it scores rows of its own holdout and is held against what training recorded.
"""

import hashlib
import logging

import numpy as np

from windsock.errors import DataContractError
from windsock.runs.contract import libraries
from windsock.runs.run_folder import HOLDOUT, HOLDOUT_SCORES, RunFolder
from windsock.served.metrics import SCORE
from windsock.served.model import Model, largest_difference
from windsock.spec import ModelSpec
from windsock.steps import StepContext
from windsock.store import to_json
from windsock.version_index import version_info

log = logging.getLogger(__name__)

_MOST_ROWS = 1000


def check_frozen_rows(ctx: StepContext, spec: ModelSpec, version: str, model: Model) -> None:
    """Score a version's frozen rows unless these libraries have done so already.

    Raises:
        DataContractError: The scores differ by more than the model's format allows.
    """
    here = libraries()
    note = (spec.name, "checked", f"version-{version}-{hashlib.sha256(to_json(here)).hexdigest()[:16]}.json")
    if ctx.store.exists(*note):
        return
    folder = RunFolder.named(ctx.store, spec.name, version_info(ctx.settings, spec, version).run)
    try:
        rows, recorded = (folder.read_table(name).slice(0, _MOST_ROWS) for name in (HOLDOUT, HOLDOUT_SCORES))
    except FileNotFoundError:
        log.warning("%s: version %s has no frozen rows left in %s to be checked by", spec.name, version, folder.url())
        return
    off = largest_difference(recorded[SCORE].to_numpy().astype(np.float64), model.predict(rows))
    if off > model.tolerance:
        then = dict(version_info(ctx.settings, spec, version).tags)
        moved = [
            f"{name} {was} -> {here[name]}"
            for name in here
            if (was := then.get(f"library.{name}")) is not None and was != here[name]
        ]
        raise DataContractError(
            f"{spec.name}: version {version} scores the rows that were frozen at its training by up to {off:.3g} "
            f"otherwise than then ({model.tolerance:g} is allowed), so it scores nothing. Changed since: "
            f"{', '.join(moved) or 'nothing that was noted'}. Go back to those libraries, or train and promote a "
            "version with these."
        )
    ctx.store.write_json({"version": version, "libraries": here, "largest_difference": off}, *note)
