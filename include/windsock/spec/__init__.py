"""How a model is described: ``model.yaml``, strict and explained when wrong; ``model_spec`` is the whole."""

from windsock.spec.load import find_specs, get_spec, load_spec, load_specs
from windsock.spec.model_spec import ModelSpec

__all__ = ["ModelSpec", "find_specs", "get_spec", "load_spec", "load_specs"]
