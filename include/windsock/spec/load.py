"""Reading specs from ``model.yaml``: one broken spec never hides the others."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from windsock.errors import SpecError, did_you_mean
from windsock.format_numbers import taken
from windsock.settings import Settings
from windsock.spec.model_spec import ModelSpec
from windsock.spec.yaml_file import checked, read_yaml

SPEC_FILE = "model.yaml"


@dataclass(frozen=True)
class BrokenSpec:
    """A model folder whose spec cannot be used, and why."""

    name: str
    path: Path
    error: SpecError


def find_specs(folders: Iterable[Path]) -> dict[str, Path]:
    """Return model name to spec file, for every folder that holds one.

    Raises:
        SpecError: Two folders claim the same model name.
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


def load_specs(settings: Settings) -> tuple[dict[str, ModelSpec], list[BrokenSpec]]:
    """Read every model's spec.

    Returns:
        The usable specs by name, and the broken ones with their errors.
    """
    specs: dict[str, ModelSpec] = {}
    broken: list[BrokenSpec] = []
    for name, paths in _spec_files(settings.models).items():
        try:
            specs[name] = load_spec(_only(name, paths))
        except SpecError as err:
            broken.append(BrokenSpec(name, paths[0], err))
    return specs, broken


def get_spec(settings: Settings, model: str) -> ModelSpec:
    """Return the spec of one model by name.

    Raises:
        SpecError: There is no such model, or its spec is broken, or there are two.
    """
    found = _spec_files(settings.models)
    if model not in found:
        raise SpecError.unknown("model", model, found)
    return load_spec(_only(model, found[model]))


def _spec_files(folders: Iterable[Path]) -> dict[str, list[Path]]:
    """Return model name to its spec files; more than one is a fault of that model alone."""
    found: dict[str, list[Path]] = {}
    for folder in folders:
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
