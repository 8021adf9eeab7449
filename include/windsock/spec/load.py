"""Reading ``model.yaml`` and the files beside it: every fault is told as a sentence, one broken spec hides no other."""

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from windsock.errors import SpecError, did_you_mean
from windsock.format_numbers import taken
from windsock.settings import Settings
from windsock.spec.base import fields_of, kind_of, models_in
from windsock.spec.estimators import TorchSpec
from windsock.spec.model_spec import ModelSpec

_Model = TypeVar("_Model", bound=BaseModel)

SPEC_FILE = "model.yaml"
_NOT_TAKEN = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool")
"""What PyYAML would make of a word without quotation marks, and this does not."""


def find_specs(folders: Iterable[Path]) -> dict[str, Path]:
    """Return model name to spec file, for every folder that holds one.

    Raises:
        SpecError: Two folders claim the same model name, or one of them does not exist.
    """
    return {name: _only(name, paths) for name, paths in _spec_files(folders).items()}


def load_spec(path: Path) -> ModelSpec:
    """Read and check one ``model.yaml``.

    Raises:
        SpecError: It cannot be read or breaks a rule; every fault is named at once.
    """
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise SpecError(f"{path}: is empty or no mapping. Start it with 'name: {path.parent.name}'.")
    spec = checked(ModelSpec, taken("definition", raw, path), path)
    if spec.name != path.parent.name:
        raise SpecError(f"{path}: name is {spec.name!r}, but its folder is {path.parent.name!r}. Make them equal.")
    object.__setattr__(spec, "_folder", path.parent)
    _files_exist(spec, path)
    return spec


def load_specs(settings: Settings) -> tuple[dict[str, ModelSpec], dict[str, SpecError]]:
    """Read every model's spec; return the usable ones by name, and why each of the others cannot be used.

    Raises:
        SpecError: A folder of models does not exist.
    """
    specs: dict[str, ModelSpec] = {}
    broken: dict[str, SpecError] = {}
    for name, paths in _spec_files(settings.models).items():
        try:
            specs[name] = load_spec(_only(name, paths))
        except SpecError as err:
            broken[name] = err
    return specs, broken


def get_spec(settings: Settings, model: str) -> ModelSpec:
    """Return the spec of one model by name.

    Raises:
        SpecError: There is no such model, or its spec is broken, or there are two.
    """
    found = _spec_files(settings.models)
    if model not in found:
        raise SpecError.unknown("model", model, found, ", ".join(map(str, settings.models)))
    return load_spec(_only(model, found[model]))


def _spec_files(folders: Iterable[Path]) -> dict[str, list[Path]]:
    """Return model name to its spec files; more than one is a fault of that model alone."""
    found: dict[str, list[Path]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise SpecError(f"{folder}: there is no such folder of models. Mount it, or correct WINDSOCK_MODELS.")
        for path in sorted(folder.glob(f"*/{SPEC_FILE}")):
            found.setdefault(path.parent.name, []).append(path)
    return found


def _only(name: str, paths: list[Path]) -> Path:
    if len(paths) > 1:
        raise SpecError(f"Model {name!r} stands twice: {' and '.join(map(str, paths))}. Rename one of the folders.")
    return paths[0]


def _files_exist(spec: ModelSpec, path: Path) -> None:
    named = {f"features.views: {v.name!r}": v.sql for v in spec.features.views}
    if spec.validation.suite is not None:
        named["validation.suite"] = spec.validation.suite
    missing = []
    for field, file in named.items():
        if not (spec.folder / file).is_file():
            near = did_you_mean(file, [p.name for p in spec.folder.iterdir() if p.is_file()])
            missing.append(f"  - {field} names the file {file!r}, which is not in {spec.folder}.{near}")
    if missing:
        raise SpecError(f"{path}: {len(missing)} missing file{'s' if len(missing) > 1 else ''}:\n" + "\n".join(missing))


def frozen_modules(spec: ModelSpec) -> dict[str, Mapping[str, str]]:
    """Return what a run keeps of own networks: estimator to ``file``, ``class``, ``source`` and ``sha256``.

    Raises:
        SpecError: A file is absent or no Python, or has no such class.
    """
    own = [e for e in spec.training.estimators if isinstance(e, TorchSpec) and e.module is not None]
    return {estimator.name: frozen_module(spec, estimator) for estimator in own}


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


def read_yaml(path: Path, named_by: str = "") -> Any:
    """Return what a YAML file holds, None if it is empty; ``named_by`` is the setting that names it, for messages.

    Raises:
        SpecError: It cannot be read, or is no YAML in UTF-8.
    """
    try:
        return _parsed(path.read_text(encoding="utf-8"))
    except OSError as err:
        setting = f" ({named_by})" if named_by else ""
        raise SpecError(f"{path}{setting}: cannot be read: {err.strerror}.") from err
    except Exception as err:  # an explicit tag makes PyYAML raise whatever Python's own types do
        raise SpecError(f"{path}: is not valid YAML: {' '.join(str(err).split())}") from err


def _parsed(text: str) -> Any:
    """Return what YAML says, by libyaml where PyYAML has it: a tenth of the time, in every task and for every DAG."""
    try:
        return yaml.load(text, _as_written(getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except yaml.YAMLError:
        return yaml.load(text, _as_written(yaml.SafeLoader))  # its message also shows the line


@cache
def _as_written(loader: Any) -> Any:
    """Return a loader that leaves dates, keys and words such as ``no`` as they stand, and refuses a key that is twice.

    A field's own type says which date or truth value is wrong, PyYAML neither field nor line; and a column may be
    called ``no`` or ``null``, which YAML takes for what they mean. Of values, ``true`` and ``false`` alone are that.
    """
    rules = loader.yaml_implicit_resolvers.items()
    kept = {first: [rule for rule in some if rule[0] not in _NOT_TAKEN] for first, some in rules}
    made: Any = type(loader.__name__, (loader,), {"yaml_implicit_resolvers": kept})
    made.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF")
    made.add_constructor("tag:yaml.org,2002:map", _mapping_by_text)
    return made


def _mapping_by_text(loader: Any, node: yaml.MappingNode) -> Iterator[dict[Any, Any]]:
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        if key.value in seen:
            sentence = f"the key {key.value!r} stands twice: keep one of them"
            raise yaml.constructor.ConstructorError(None, None, sentence, key.start_mark)
        seen.add(key.value)
        key.tag = "tag:yaml.org,2002:str"
    yield from loader.construct_yaml_map(node)


def checked(model: type[_Model], raw: dict[str, Any], path: Path) -> _Model:
    """Check a file's content against its model.

    Raises:
        SpecError: It breaks a rule; every fault is named at once, with the nearest valid name.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as err:
        lines = [f"  - {_sentence(fault, model)}" for fault in err.errors()]
        raise SpecError(f"{path}: {len(lines)} fault{'s' if len(lines) > 1 else ''}:\n" + "\n".join(lines)) from err


def _sentence(fault: Any, model: type[BaseModel]) -> str:
    """Write one pydantic fault as a sentence with the field and the nearest valid name."""
    place = ".".join(str(p) for p in fault["loc"]) or "the file"
    if fault["type"] == "extra_forbidden":
        near = did_you_mean(str(fault["loc"][-1]), _fields_at(model, fault["loc"][:-1]))
        return f"{place}: there is no such field.{near}"
    if fault["type"] == "missing":
        return f"{place}: is missing."
    given = fault.get("input")
    shown = "" if isinstance(given, dict | list | BaseModel) else f" (given: {given!r})"
    return f"{place}: {fault['msg'].removeprefix('Value error, ')}{shown}"


def _fields_at(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """List the valid field names at a place in the file, as far as types can be followed."""
    at: Any = model
    for step in loc:
        if isinstance(step, int):
            continue
        if get_origin(at) is dict:
            at = get_args(at)[1]
            continue
        options = [fields_of(m)[step] for m in models_in(at) if step in fields_of(m)]
        tagged = [m for m in models_in(at) if kind_of(m) == step]
        if tagged:
            at = tagged[0]
        elif options:
            at = options[0].annotation
        else:
            return []
    return sorted({name for m in models_in(at) for name in fields_of(m)})
