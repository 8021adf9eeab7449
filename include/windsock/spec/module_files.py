"""The user's own networks: Python files of a model's folder, as runs freeze them. None of them is run here."""

import ast
import hashlib
from collections.abc import Iterator, Mapping

from windsock.errors import SpecError, did_you_mean
from windsock.spec.estimators import TorchSpec
from windsock.spec.model_spec import ModelSpec


def own_networks(spec: ModelSpec) -> Iterator[TorchSpec]:
    """Yield the estimators whose network is the user's own."""
    for estimator in spec.training.estimators:
        if isinstance(estimator, TorchSpec) and estimator.module is not None:
            yield estimator


def frozen_modules(spec: ModelSpec) -> dict[str, Mapping[str, str]]:
    """Return what a run keeps of own networks: estimator to ``file``, ``class``, ``source`` and ``sha256``.

    Raises:
        SpecError: A file is absent or no Python, or has no such class.
    """
    return {estimator.name: frozen_module(spec, estimator) for estimator in own_networks(spec)}


def frozen_module(spec: ModelSpec, estimator: TorchSpec) -> dict[str, str]:
    """Return what a run keeps of one own network; see :func:`frozen_modules`."""
    name, cls = str(estimator.module_file), estimator.module_class
    path = spec.folder / name
    field = f"{spec.name}: training.estimators: {estimator.name}.module"
    try:
        source = path.read_text(encoding="utf-8")
        classes = [node.name for node in ast.parse(source, name).body if isinstance(node, ast.ClassDef)]
    except FileNotFoundError as err:
        near = did_you_mean(name, [p.name for p in spec.folder.glob("*.py")])
        raise SpecError(f"{field} names the file {name!r}, which is not in {spec.folder}.{near}") from err
    except SyntaxError as err:
        raise SpecError(f"{field}: {path}, line {err.lineno}: is no Python: {err.msg}. Correct the file.") from err
    except (OSError, ValueError) as err:
        raise SpecError(f"{field}: {path} cannot be read: {err}. It must be a Python file in UTF-8.") from err
    if cls not in classes:
        raise SpecError(
            f"{field}: {path} has no class {cls!r} (it has: {', '.join(classes) or 'none'})."
            f"{did_you_mean(cls, classes)} Name its torch.nn.Module as {name}:Class."
        )
    return {"file": name, "class": cls, "source": source, "sha256": hashlib.sha256(source.encode()).hexdigest()}
