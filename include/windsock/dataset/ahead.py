"""Computing ahead what the next training lacks, from anywhere that reaches the store: a branch, too.

A definition has a table of its own, so whoever computes it early changes nothing for anybody else.
"""

from datetime import date

from windsock.dataset.feature_join import reach
from windsock.dataset.lacking import Lacking, lacking
from windsock.dataset.step import ingested_windows
from windsock.features.demand import NEXT_TRAINING, Demanded
from windsock.features.step import publish_day
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.steps import StepContext


def lacking_pairs(settings: Settings, spec: ModelSpec) -> list[tuple[date, Lacking]]:
    """List what a training as of the newest day would lack of the spec's definitions, in order of days.

    Returns:
        Day and definition.

    Raises:
        NotReady: Nothing has been ingested yet, or days are missing.
        TooLittleHistory: There is too little to train on.
        SpecError: A view does not run.
    """
    windows = ingested_windows(settings, spec, None)
    found = lacking(settings, spec, reach(spec, windows.days[0]), windows.as_of)
    return sorted(((day, each) for each in found for day in each.days), key=lambda pair: pair[0])


def compute(settings: Settings, spec: ModelSpec, day: date, each: Lacking) -> None:
    """Compute and publish a day of a definition.

    Raises:
        SpecError: It may not be computed.
    """
    ctx = StepContext(settings, spec, str(day), live=False, origin="apply")
    publish_day(ctx, Demanded(spec, each.view, (NEXT_TRAINING,), required=True))
