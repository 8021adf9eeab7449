"""A world with two trained versions, shared by the tests of scoring."""

import shutil

import pytest

from training_world import AS_OF, make_world, world_spec
from whole_chain import put_in_force, register
from windsock.steps import run_step


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
        if version == "1":
            put_in_force(settings, spec, version, run, AS_OF, AS_OF)
        else:
            register(settings, spec, version, run, AS_OF)
    return home


@pytest.fixture
def scored_world(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return world_spec(tmp_path)
