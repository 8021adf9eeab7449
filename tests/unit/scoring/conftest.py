"""A world with two trained versions, shared by the tests of scoring."""

import shutil

import pytest

from training_world import AS_OF, make_world, world_spec
from windsock.promotions import Promotion, append, current
from windsock.registry.versions import VersionInfo, folder_hash, record_version
from windsock.steps import run_step
from windsock.store import Store

DAY = AS_OF


def add_version(settings, spec, version, run):
    digest = folder_hash(Store.of(settings), "runs", "fraud", run, "model")
    record_version(settings, VersionInfo("fraud", version, run, AS_OF, model_hash=digest))


def promote(settings, spec, version, run, day):
    last = current(settings, spec)
    entry = Promotion(0, "promote", version, run, last.version if last else None, day, AS_OF, "test")
    append(settings, spec, entry, after=last)


@pytest.fixture(scope="package")
def trained(tmp_path_factory):
    """A world with two versions; the first is champion from the last day on."""
    home = tmp_path_factory.mktemp("scored")
    settings, spec = make_world(home)
    for version, origin in (("1", "first"), ("2", "second")):
        if version == "2":
            settings, spec = world_spec(home, training={**spec.training.model_dump(mode="json"), "seed": 99})
        run = run_step("assemble", model="fraud", settings=settings, origin=origin)["run"]
        run_step("fit", model="fraud", settings=settings, options={"run": run})
        run_step("choose", model="fraud", settings=settings, options={"run": run})
        add_version(settings, spec, version, run)
        if version == "1":
            promote(settings, spec, "1", run, DAY)
    return home


@pytest.fixture
def scored_world(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return world_spec(tmp_path)
