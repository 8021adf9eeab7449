"""A user's own network: one Python file of the model folder, frozen by its hash when the rows are assembled.

The file is run in the trainer only. What is served is the ONNX graph that it becomes. ``module`` is what a request
carries: ``file``, ``class``, ``source`` and ``sha256``; ``where`` names model and estimator in messages.
"""

import hashlib
import linecache
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from windsock.errors import SpecError


def check_source(module: Mapping[str, str], where: str) -> None:
    """Raise SpecError if a module's text is not the one that its hash names."""
    if hashlib.sha256(module["source"].encode()).hexdigest() != module["sha256"]:
        raise SpecError(f"{where}: the request's {module['file']} is not the one it names. Run 'assemble' again.")


def build_module(
    module: Mapping[str, str], where: str, inputs: int, categories: Sequence[int], arguments: Mapping[str, Any]
) -> Any:
    """Construct the network and try it on two rows.

    It gets the number of prepared numbers in a row, how many different codes each categorical input has, and the
    arguments of the spec or its search.

    Raises:
        SpecError: The file or its class does not work, or does not give one output per row.
    """
    import torch

    given = {"inputs": inputs, "categories": list(categories), **arguments}
    file, name = module["file"], module["class"]
    try:
        made = getattr(_loaded(module), name)(**given).float()
        tried = made.eval()(torch.zeros(2, inputs), torch.zeros((2, len(categories)), dtype=torch.int64))
        shape, learns = tuple(tried.shape), tried.requires_grad
    except Exception as err:
        call = f"{name}({', '.join(f'{argument}={value!r}' for argument, value in given.items())})"
        raise SpecError(
            f"{where}: {file}: {call} does not work: {type(err).__name__}: {str(err)[:300]}. "
            "It must be a torch.nn.Module with forward(numbers, codes); see docs/models.md."
        ) from err
    if shape not in ((2,), (2, 1)):
        raise SpecError(
            f"{where}: {file}: {name} gives shape {shape} for 2 rows; one output per row is needed, shape (2,) or "
            "(2, 1)."
        )
    if not learns:
        raise SpecError(
            f"{where}: {file}: what {name} gives depends on no weight that could be trained. Give it layers, and "
            "compute with them without torch.no_grad or detach."
        )
    return made


def _loaded(module: Mapping[str, str]) -> ModuleType:
    name, source = f"windsock_user_module_{module['sha256'][:16]}", module["source"]
    if name not in sys.modules:
        loaded = ModuleType(name)
        # Known by name and line to whatever asks: dataclasses, tracebacks, PyTorch's tracing.
        loaded.__file__ = f"<{module['file']}>"
        linecache.cache[loaded.__file__] = (len(source), None, source.splitlines(True), loaded.__file__)
        sys.modules[name] = loaded
        try:
            exec(compile(source, loaded.__file__, "exec"), loaded.__dict__)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
