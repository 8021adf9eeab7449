"""A user's own network: one Python file of the model folder, frozen by its hash when the rows are assembled.

The file is run in the trainer only. What is served is the ONNX graph that it becomes.
"""

import hashlib
import linecache
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Self

from windsock.errors import SpecError


@dataclass(frozen=True)
class UserModule:
    """A file and the class in it, as a request carries them."""

    file: str
    name: str
    source: str
    sha256: str
    where: str
    """Model and estimator, for messages."""

    @classmethod
    def of(cls, raw: Mapping[str, str], where: str) -> Self:
        """Read a request's ``module``.

        Raises:
            SpecError: Its text is not the one that its hash names.
        """
        made = cls(raw["file"], raw["class"], raw["source"], raw["sha256"], where)
        if hashlib.sha256(made.source.encode()).hexdigest() != made.sha256:
            raise SpecError(f"{where}: the request's {made.file} is not the one it names. Run 'assemble' again.")
        return made

    def build(self, inputs: int, categories: Sequence[int], arguments: Mapping[str, Any]) -> Any:
        """Construct the network and try it on two rows.

        Args:
            inputs: Prepared numbers of a row.
            categories: How many different codes each categorical input has.
            arguments: From the spec, or from its search.

        Raises:
            SpecError: The file or its class does not work, or does not give one output per row.
        """
        import torch

        given = {"inputs": inputs, "categories": list(categories), **arguments}
        call = f"{self.file}: {self.name}({', '.join(f'{name}={value!r}' for name, value in given.items())})"
        try:
            made = getattr(self._loaded(), self.name)(**given).float()
            tried = made.eval()(torch.zeros(2, inputs), torch.zeros((2, len(categories)), dtype=torch.int64))
            shape, learns = tuple(tried.shape), tried.requires_grad
        except Exception as err:
            raise SpecError(
                f"{self.where}: {call} does not work: {type(err).__name__}: {str(err)[:300]}. "
                "It must be a torch.nn.Module with forward(numbers, codes); see docs/models.md."
            ) from err
        if shape not in ((2,), (2, 1)):
            raise SpecError(
                f"{self.where}: {self.file}: {self.name} gives shape {shape} for 2 rows; one output per row is needed, "
                "shape (2,) or (2, 1)."
            )
        if not learns:
            raise SpecError(
                f"{self.where}: {self.file}: what {self.name} gives depends on no weight that could be trained. Give "
                "it layers, and compute with them without torch.no_grad or detach."
            )
        return made

    def _loaded(self) -> ModuleType:
        name = f"windsock_user_module_{self.sha256[:16]}"
        if name not in sys.modules:
            module = ModuleType(name)
            # Known by name and line to whatever asks: dataclasses, tracebacks, PyTorch's tracing.
            module.__file__ = f"<{self.file}>"
            linecache.cache[module.__file__] = (len(self.source), None, self.source.splitlines(True), module.__file__)
            sys.modules[name] = module
            try:
                exec(compile(self.source, module.__file__, "exec"), module.__dict__)
            except BaseException:
                del sys.modules[name]
                raise
        return sys.modules[name]
