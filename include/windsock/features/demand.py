"""Who needs which definitions of a day: every version that is, will be or was just in force, and the next training."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date

from windsock import promotions
from windsock.errors import SpecError
from windsock.features.feature_tables import FeatureTable, feature_table
from windsock.features.frozen import spec_of_version
from windsock.living_versions import versions_needed
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.spec.modelling import FeatureView

NEXT_TRAINING = "the next training"


@dataclass(frozen=True)
class Demanded:
    """A definition that somebody needs."""

    spec: ModelSpec
    """Where it stands: the model's spec, or that of a version."""
    view: FeatureView
    by: tuple[str, ...]
    """Who needs it, in words."""
    required: bool
    """Whether the day's champion needs it; before the first champion, whether the spec does."""

    @property
    def table(self) -> FeatureTable:
        """Its table.

        Raises:
            SpecError: The view does not run.
        """
        return feature_table(self.spec, self.view)


def demanded(settings: Settings, spec: ModelSpec, day: date) -> list[Demanded]:
    """Return each definition (and ttl) of a day that anybody needs, those of the day's champion first.

    A view of the spec that does not run is among them, and its ``table`` raises.

    Raises:
        SpecError: A version's definitions are gone.
    """
    champion = promotions.champion_on(settings, spec, day)
    owners = [
        (f"version {version}", spec_of_version(settings, spec, version), champion and version == champion.version)
        for version in versions_needed(settings, spec, day)
    ]
    found: dict[str, Demanded] = {}
    for by, owner, required in [*owners, (NEXT_TRAINING, spec, champion is None)]:
        for view in owner.features.views:
            try:
                name = feature_table(owner, view).feast_name
            except SpecError:
                name = f"{view.name} of {by}"
            known = found.get(name, Demanded(owner, view, (), False))
            found[name] = replace(known, by=(*known.by, by), required=known.required or bool(required))
    return list(found.values())


def usable(wanted: Iterable[Demanded]) -> Iterator[Demanded]:
    """Yield the definitions whose views run; without the others the day's champion can do.

    Raises:
        SpecError: A required view does not run.
    """
    for each in wanted:
        try:
            _ = each.table
        except SpecError:
            if each.required:
                raise
        else:
            yield each
