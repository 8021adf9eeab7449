"""How a model is described: ``model.yaml``, strict and explained when wrong.

Read ``model_spec`` for the whole, ``load`` for reading it.
"""

from windsock.spec.load import BrokenSpec, find_specs, get_spec, load_spec, load_specs
from windsock.spec.model_spec import ModelSpec

__all__ = ["BrokenSpec", "ModelSpec", "find_specs", "get_spec", "load_spec", "load_specs"]
